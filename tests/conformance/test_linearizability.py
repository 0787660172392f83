"""Concurrent calls on few keys have results that the same calls, done one after the other, could have had.

Tasks create, read, change and delete images and containers, alone and in transactions over two of them; some calls
are cancelled, and then may or may not have happened. Source: RELIABILITY 3.7; spec metadata 1.3.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol.errors import OrlopError
from orlop.protocol.messages import Resource

from ..conftest import StoreMaker
from ..support.linearizability import UNKNOWN, Call, Recorder, linearization

TARGET = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 7)
SPEC = orlop.Any("types/spec", b"{}")

Asked = tuple[Any, ...]
Value = tuple[int, int] | None
"""The labels x and y of a record; 0: there is none. None: there is no record. No value is ever written twice."""

# The sequential model -------------------------------------------------------------------------------------


def apply(state: tuple[Value, ...], asked: Asked) -> tuple[tuple[Value, ...], Any]:
    """What is asked: (what, key, ...), or ("transaction", checks, operations); a key is its place in the state."""
    if asked[0] != "transaction":
        return apply_one(state, asked)
    _, checks, operations = asked
    for condition, key, *seen in checks:
        if condition == "exists" and state[key] is None:
            return state, "NotFound"
        if condition == "absent" and state[key] is not None:
            return state, "AlreadyExists"
        if condition == "unchanged" and state[key] != seen[0]:
            return state, "Conflict"
    after, results = state, []
    for operation in operations:
        after, result = apply_one(after, operation)
        if isinstance(result, str):
            return state, result  # all or nothing
        results.append(result)
    return after, tuple(results)


def apply_one(state: tuple[Value, ...], asked: Asked) -> tuple[tuple[Value, ...], Any]:
    what, key, *rest = asked
    value = state[key]
    if what == "create":
        return (state, "AlreadyExists") if value else (put(state, key, (rest[0], 0)), (rest[0], 0))
    if value is None:
        return state, "NotFound"
    if what == "get":
        return state, value
    if what == "delete":
        return put(state, key, None), None
    after = {"x": (rest[0], value[1]), "y": (value[0], rest[0]), "both": (rest[0], rest[0])}[what]
    return put(state, key, after), after


def put(state: tuple[Value, ...], key: int, value: Value) -> tuple[Value, ...]:
    return (*state[:key], value, *state[key + 1 :])


def alone(calls: list[Call], key: int) -> list[Call]:
    """The calls on one key, as a history of their own."""
    return [
        Call((call.asked[0], 0, *call.asked[2:]), call.result, call.called, call.returned)
        for call in calls
        if call.asked[1] == key
    ]


# The same calls on a store --------------------------------------------------------------------------------


def labels_of(value: Value) -> dict[str, str]:
    assert value is not None
    return {name: str(number) for name, number in zip("xy", value, strict=True) if number}


def value_of(record: Any) -> Value:
    return None if record is None else (int(record.labels.get("x", 0)), int(record.labels.get("y", 0)))


@dataclass(frozen=True)
class Kind:
    """Images or containers, by key; no round sees the names of another, for a cancelled call may still be under way."""

    kind: Resource
    round: int

    def name(self, key: int) -> str:
        return f"{self.round}-{key}"

    def ask(self, store: Any, asked: Asked) -> Awaitable[Any]:
        """`store` may be a transaction."""
        what, key, *rest = asked
        number = rest[0] if rest else 0
        labels = labels_of({"create": (number, 0), "y": (0, number), "both": (number, number)}.get(what, (number, 0)))
        mask = {"x": ["labels.x"], "y": ["labels.y"], "both": ["labels"]}.get(what)
        name = self.name(key)
        if self.kind is Resource.IMAGE:
            return {
                "create": lambda: store.images.create(name, TARGET, labels),
                "get": lambda: store.images.get(name),
                "delete": lambda: store.images.delete(name),
            }.get(what, lambda: store.images.update(name, labels=labels, mask=mask))()
        record = orlop.Container(name, labels, runtime=orlop.Runtime("r"), spec=SPEC)
        return {
            "create": lambda: store.containers.create(record),
            "get": lambda: store.containers.get(name),
            "delete": lambda: store.containers.delete(name),
        }.get(what, lambda: store.containers.update(record, mask))()


Kinds = Mapping[int, Kind]
IMAGE, CONTAINER = Resource.IMAGE, Resource.CONTAINER


def kinds_of(round_: int, *kinds: Resource) -> Kinds:
    """A key for each."""
    return {key: Kind(kind, round_) for key, kind in enumerate(kinds)}


def answer(asked: Asked, result: Any) -> Any:
    return None if asked[0] == "delete" else value_of(result)


class Client:
    """One task: random calls on a store, and what came of them."""

    def __init__(self, store: orlop.Store, kinds: Kinds, recorder: Recorder, chance: random.Random) -> None:
        self.store = store
        self.kinds = kinds
        self.recorder = recorder
        self.chance = chance
        self.read: dict[int, Any] = {}
        """The record each key was last seen to have."""

    async def run(self, calls: int, draw: Callable[[Client], Asked], cancelling: bool) -> None:
        for _ in range(calls):
            asked = draw(self)
            called = self.recorder.now()
            result: Any = UNKNOWN
            with trio.CancelScope() as scope:
                if cancelling and self.chance.random() < 0.05:
                    scope.deadline = trio.current_time() + self.chance.random() * 0.003
                try:
                    result = await self.ask(asked)
                except OrlopError as error:
                    result = type(error).__name__
            if result is not UNKNOWN or asked[0] != "get":
                self.recorder.done(asked, result, called)

    async def ask(self, asked: Asked) -> Any:
        if asked[0] != "transaction":
            found = await self.kinds[asked[1]].ask(self.store, asked)
            if asked[0] == "get":
                self.read[asked[1]] = found
            return answer(asked, found)
        _, checks, operations = asked
        async with self.store.transaction() as tx:
            for condition, key, *_ in checks:
                kind = self.kinds[key]
                if condition == "unchanged":
                    tx.unchanged(self.read[key])
                else:
                    getattr(tx, condition)(kind.kind, kind.name(key))
            planned = [self.kinds[operation[1]].ask(tx, operation) for operation in operations]
        return tuple([answer(o, await p) for o, p in zip(operations, planned, strict=True)])


NUMBERS = count(1)


def one(client: Client) -> Asked:
    """A call on one key."""
    key = client.chance.randrange(len(client.kinds))
    what = client.chance.choice(["get", "get", "create", "create", "delete", "x", "y", "both"])
    return (what, key) if what in ("get", "delete") else (what, key, next(NUMBERS))


def one_or_two(client: Client) -> Asked:
    """A call on one key, or a transaction over both."""
    if client.chance.random() < 0.4:
        return one(client)
    keys = [0, 1]
    client.chance.shuffle(keys)
    checks: list[Asked] = []
    for key in keys:
        condition = client.chance.choice(["", "", "", "exists", "absent", "unchanged"])
        if condition == "unchanged" and client.read.get(key) is not None:
            checks.append((condition, key, value_of(client.read[key])))
        elif condition in ("exists", "absent"):
            checks.append((condition, key))
    operations: list[Asked] = []
    for key in keys:
        for _ in range(client.chance.choice([0, 1, 1, 1, 2])):
            what = client.chance.choice(["create", "create", "delete", "x", "y", "both"])
            operations.append((what, key) if what == "delete" else (what, key, next(NUMBERS)))
    return ("transaction", tuple(checks), tuple(operations))


@asynccontextmanager
async def ways_in(stores: StoreMaker, many: int) -> AsyncIterator[list[orlop.Store]]:
    """One store, by connections of their own where there are any."""
    async with AsyncExitStack() as stack, stores.running() as running:
        if stores.way == "embedded":
            yield [running.store.in_namespace("default")] * many
        else:
            async with stack:  # the connections end before the store does
                yield [await stack.enter_async_context(orlop.connect(running.addresses[0])) for _ in range(many)]


async def history(
    stores: list[orlop.Store], kinds: Kinds, seed: int, calls: int, draw: Callable[[Client], Asked], cancelling: bool
) -> list[Call]:
    """What one task for each of `stores` did, until the end of it all, which one more task reads."""
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        for number, store in enumerate(stores):
            client = Client(store, kinds, recorder, random.Random(f"{seed} {number}"))
            nursery.start_soon(client.run, calls, draw, cancelling)
    last = Client(stores[0], kinds, recorder, random.Random(seed))
    for key in kinds:
        await last.run(1, lambda _, key=key: ("get", key), False)
    return recorder.calls


by_socket_and_in_process = pytest.mark.parametrize(
    "stores", [("unix", "leveldb"), ("embedded", "memory")], ids="-".join, indirect=True
)


@by_socket_and_in_process
@pytest.mark.parametrize("cancelling", [False, True], ids=["", "cancelling"])
async def test_calls_on_one_key_are_linearizable(stores: StoreMaker, cancelling: bool) -> None:
    seed = random.getrandbits(32)
    async with ways_in(stores, 12) as clients:
        for round_ in range(4):
            kinds = kinds_of(round_, IMAGE, CONTAINER, IMAGE, CONTAINER)
            calls = await history(clients, kinds, seed + round_, 25, one, cancelling)
            for key in kinds:
                own = alone(calls, key)
                assert linearization(own, (None,), apply) is not None, (f"seed {seed}, round {round_}", own)


@by_socket_and_in_process
@pytest.mark.parametrize("cancelling", [False, True], ids=["", "cancelling"])
@pytest.mark.parametrize("pair", [(IMAGE, IMAGE), (IMAGE, CONTAINER)], ids=["images", "both"])
async def test_transactions_over_two_keys_are_linearizable(
    stores: StoreMaker, pair: tuple[Resource, Resource], cancelling: bool
) -> None:
    seed = random.getrandbits(32)
    async with ways_in(stores, 8) as clients:
        for round_ in range(4):
            calls = await history(clients, kinds_of(round_, *pair), seed + round_, 20, one_or_two, cancelling)
            assert linearization(calls, (None, None), apply) is not None, (f"seed {seed}, round {round_}", calls)


async def test_a_history_has_all_that_can_come_of_a_call(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    seed = random.getrandbits(32)
    async with ways_in(StoreMaker("embedded", "memory", tmp_path), 8) as clients:
        calls = await history(clients, kinds_of(0, IMAGE, CONTAINER), seed, 100, one_or_two, False)
    results = {call.result if isinstance(call.result, str) else type(call.result).__name__ for call in calls}
    assert results >= {"NotFound", "AlreadyExists", "Conflict", "tuple"}, seed
    assert sum(call.asked[0] == "transaction" and isinstance(call.result, tuple) for call in calls) > 10, seed
    assert any(a.called < b.called < a.returned for a in calls for b in calls), seed


# The checker itself ---------------------------------------------------------------------------------------


def explained(*calls: Call, keys: int = 1) -> bool:
    return linearization(calls, (None,) * keys, apply) is not None


CREATED = Call(("create", 0, 1), (1, 0), 0, 1)


def test_the_checker_takes_calls_one_after_the_other() -> None:
    assert explained()
    assert explained(CREATED, Call(("get", 0), (1, 0), 2, 3), Call(("x", 0, 2), (2, 0), 4, 5))
    assert explained(CREATED, Call(("delete", 0), None, 2, 3), Call(("get", 0), "NotFound", 4, 5))


def test_the_checker_takes_either_order_of_calls_at_the_same_time() -> None:
    change = Call(("x", 0, 2), (2, 0), 2, 5)
    assert explained(CREATED, change, Call(("get", 0), (1, 0), 3, 4))
    assert explained(CREATED, change, Call(("get", 0), (2, 0), 3, 4))
    assert explained(CREATED, change, Call(("get", 0), (1, 0), 3, 6), Call(("get", 0), (2, 0), 4, 7))
    assert explained(Call(("create", 0, 1), (1, 0), 0, 3), Call(("create", 0, 2), "AlreadyExists", 1, 2))


def test_the_checker_rejects_a_stale_read() -> None:
    assert not explained(CREATED, Call(("x", 0, 2), (2, 0), 2, 3), Call(("get", 0), (1, 0), 4, 5))
    assert not explained(CREATED, Call(("get", 0), "NotFound", 2, 3))
    change = Call(("x", 0, 2), (2, 0), 2, 9)
    assert not explained(CREATED, change, Call(("get", 0), (2, 0), 3, 4), Call(("get", 0), (1, 0), 5, 6))


def test_the_checker_rejects_a_lost_update() -> None:
    first = Call(("x", 0, 2), (2, 0), 2, 4)
    assert explained(CREATED, first, Call(("y", 0, 3), (2, 3), 3, 5))
    assert not explained(CREATED, first, Call(("y", 0, 3), (1, 3), 3, 5))
    assert not explained(CREATED, first, Call(("y", 0, 3), (2, 3), 3, 5), Call(("get", 0), (2, 0), 6, 7))
    seen = ("transaction", (("unchanged", 0, (1, 0)),), (("x", 0, 2),))
    other = ("transaction", (("unchanged", 0, (1, 0)),), (("x", 0, 3),))
    assert explained(CREATED, Call(seen, ((2, 0),), 2, 4), Call(other, "Conflict", 3, 5))
    assert not explained(CREATED, Call(seen, ((2, 0),), 2, 4), Call(other, ((3, 0),), 3, 5))


def test_the_checker_rejects_two_winners() -> None:
    assert not explained(Call(("create", 0, 1), (1, 0), 0, 2), Call(("create", 0, 2), (2, 0), 1, 3))
    assert not explained(CREATED, Call(("delete", 0), None, 2, 4), Call(("delete", 0), None, 3, 5))


def test_the_checker_rejects_half_a_transaction() -> None:
    both = ("transaction", (), (("create", 0, 1), ("create", 1, 2)))
    made = Call(both, ((1, 0), (2, 0)), 0, 9)
    half = [Call(("get", 0), (1, 0), 1, 2), Call(("get", 1), "NotFound", 3, 4)]
    assert not explained(made, *half, keys=2)
    assert explained(made, half[1], Call(("get", 0), (1, 0), 5, 6), keys=2)
    taken = Call(("create", 1, 7), (7, 0), 0, 1)
    failed = Call(both, "AlreadyExists", 2, 3)
    assert explained(taken, failed, Call(("get", 0), "NotFound", 4, 5), keys=2)
    assert not explained(taken, failed, Call(("get", 0), (1, 0), 4, 5), keys=2)


def test_the_checker_lets_what_was_cancelled_happen_late_or_never_but_not_twice() -> None:
    cancelled = Call(("x", 0, 2), UNKNOWN, 2)
    before, after = Call(("get", 0), (1, 0), 3, 4), Call(("get", 0), (2, 0), 5, 6)
    assert explained(CREATED, cancelled)
    assert explained(CREATED, cancelled, before)
    assert explained(CREATED, cancelled, before, after)
    assert not explained(CREATED, cancelled, before, after, Call(("get", 0), (1, 0), 7, 8))
    assert not explained(CREATED, Call(("get", 0), (2, 0), 2, 3), Call(("x", 0, 2), UNKNOWN, 4))
    gone = Call(("delete", 0), UNKNOWN, 2)
    again = Call(("create", 0, 3), (3, 0), 3, 4)
    assert not explained(CREATED, gone, again, Call(("get", 0), "NotFound", 5, 6))


def test_the_checker_finds_a_planted_stale_read_in_a_long_history() -> None:
    chance = random.Random(7)
    state: tuple[Value, ...] = (None,)
    calls: list[Call] = []
    for number in range(300):  # each call overlaps with some before and after it
        what = chance.choice(["get", "create", "delete", "x", "y"])
        asked = (what, 0) if what in ("get", "delete") else (what, 0, number + 1)
        state, result = apply(state, asked)
        calls.append(Call(asked, result, number - chance.random() * 4, number + chance.random() * 4))
    assert explained(*calls)
    for at in (60, 150, 280):
        reads = [index for index, call in enumerate(calls) if index > at and call.asked[0] == "get"]
        old = next(call.result for call in calls if call.asked[0] == "create" and isinstance(call.result, tuple))
        planted = list(calls)
        planted[reads[0]] = Call(("get", 0), old, calls[reads[0]].called, calls[reads[0]].returned)
        assert not explained(*planted)
