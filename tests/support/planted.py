"""A daemon with a fault that a measurement has to find: `python -m tests.support.planted FAULT ROOT ADDRESS`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from orlop.actors import images
from orlop.bin.daemon import main
from orlop.protocol.messages import Context, CreateImage
from orlop.storage.engine import Transaction
from orlop.storage.leveldb import LevelDBStore
from orlop.storage.tables import IMAGES

SLEEP_S = 0.004
LOSE_EVERY = 25


def none() -> None:
    """As it is."""


def slow_get() -> None:
    """One handler sleeps."""
    answer = images.get

    async def get(*arguments: Any) -> Any:
        time.sleep(SLEEP_S)  # noqa: ASYNC251 - that is the fault
        return await answer(*arguments)

    images.get = get


def double_sync() -> None:
    """What is written is synced twice."""
    write = LevelDBStore.write

    def twice(self: LevelDBStore, batch: Any) -> None:
        write(self, batch)
        write(self, {b"\x00planted": b""})

    LevelDBStore.write = twice  # type: ignore[method-assign]


def lost_write() -> None:
    """Now and then an acknowledged image is not there."""
    plans: Any = images.PLANS
    create: Callable[..., Any] = plans[CreateImage]
    made = 0

    async def forgetful(txn: Transaction, request: CreateImage, context: Context) -> Any:
        nonlocal made
        answer = await create(txn, request, context)
        made += 1
        if made % LOSE_EVERY == 0:
            await IMAGES.remove(txn, context.namespace or "", request.name)
        return answer

    plans[CreateImage] = forgetful


FAULTS = {"none": none, "slow-get": slow_get, "double-sync": double_sync, "lost-write": lost_write}

if __name__ == "__main__":
    _, fault, root, address = sys.argv
    FAULTS[fault]()
    main(["--root", root, "--listen", address, "--log-level", "warning"])
