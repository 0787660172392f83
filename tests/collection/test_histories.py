"""Random histories: the collector keeps exactly what the full mark keeps. Source: gc-algorithm 10.

Each run takes seeds for a minute, from a start that is printed; `ORLOP_HISTORIES=100000` runs so many.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.support.forest_checks import Seen, check_always, check_rest, check_seal, check_usage
from tests.support.histories import History
from tests.support.wild_histories import WildHistory

SECONDS = 12.0


def run_history(seed: int, *, invariants: bool, wild: bool = False, **options: object) -> None:
    history = (WildHistory if wild else History)(seed, **options)  # type: ignore[arg-type]
    try:
        before = Seen(history.world)
        for _ in range(history.random.randint(40, 120)):
            history.step()
            after = Seen(history.world)
            check_seal(before, after) if history.log[-1] in ("collect", "settle") else None
            if invariants:
                check_always(after)
                check_usage(history.world)
            before = after
        history.world.now_ns += 1
        history.settle(None)  # type: ignore[arg-type]
        check_seal(before, Seen(history.world))
        check_rest(Seen(history.world))
    except BaseException as error:
        error.add_note(f"seed {seed}, wild {wild}, {options}, budget {history.budget}\n" + "\n".join(history.log))
        raise


@pytest.mark.parametrize(
    "options",
    [{}, {"namespaces": 2}, {"many": True}, {"grace": True}],
    ids=["plain", "namespaces", "large records", "bin"],
)
@pytest.mark.slow
def test_survivors_are_those_of_the_full_mark(options: dict[str, object]) -> None:
    start = int(os.environ.get("ORLOP_SEED", random.randrange(10**9)))
    count = int(os.environ.get("ORLOP_HISTORIES", 0)) // 4
    print(f"ORLOP_SEED={start}")
    until = time.monotonic() + SECONDS
    done = 0
    while done < count or (not count and time.monotonic() < until):
        run_history(start + done, invariants=done % 4 == 0, **options)
        done += 1
    print(f"{done} histories")
    assert done
