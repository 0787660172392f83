"""What the machines share that hold one resource against its model: a store of their own, arguments, comparison.

A step asks the store and the model the same and compares the answers; after each step the lists are compared too.
The store is embedded, over the memory engine: no disk, so that many short lives can be afforded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.storage.memory import MemoryStore

from ..storage.test_state_machine import Loop
from .models import NOW, Place, Records

V = TypeVar("V")

SPACES = ("ns1", "ns2")
HOUR_NS = 3600 * 1_000_000_000
FUTURE = "2999-01-02T03:04:05Z"
SOAK = bool(os.environ.get("ORLOP_SOAK"))


def hold(machine: type[RuleBasedStateMachine], lives: int = 20) -> None:
    """Run many lives of a machine; more and longer ones in a soak."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=8 * lives if SOAK else lives,
            stateful_step_count=60 if SOAK else 40,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


# arguments --------------------------------------------------------------------------------------------------


def mostly(good: Sequence[V], bad: Sequence[V] = (), times: int = 6) -> st.SearchStrategy[V]:
    """One of the good ones most of the time, so that most calls succeed and most names collide."""
    return st.sampled_from([*good * times, *bad])


def usually(usual: st.SearchStrategy[V], rare: st.SearchStrategy[V], times: int = 8) -> st.SearchStrategy[V]:
    """The rare one once in so many times. (`one_of` would draw both alike, however often one is repeated in it.)"""
    return st.sampled_from([True] * times + [False]).flatmap(lambda is_usual: usual if is_usual else rare)


def label_maps(*more: str) -> st.SearchStrategy[dict[str, str]]:
    """Sound ones most of the time: a single bad label spoils all of a call, and then nothing else of it shows."""
    keys = ["a", "b", "x.y/z", *more]
    sound = st.dictionaries(st.sampled_from(keys), st.sampled_from(["1", "2", FUTURE, ""]), max_size=3)
    bad_keys, bad_values = mostly([*keys, "é"], [""], times=1), mostly(["1", ""], ["x" * 4095, "é" * 2048], times=1)
    return usually(sound, st.dictionaries(bad_keys, bad_values, min_size=1, max_size=3))


def masks(*good: str, bad: Sequence[str] = ()) -> st.SearchStrategy[list[str] | None]:
    paths = st.sampled_from(good)
    spoiled = st.lists(st.sampled_from([*good, *bad, *BAD_PATHS]), min_size=1, max_size=3)
    return usually(usually(st.lists(paths, min_size=1, max_size=3), st.sampled_from([None, []]), times=3), spoiled)


Spaces = mostly(["ns1", "ns1", "ns2"])
Ids = mostly(["a", "b"], ["B", "a.b-c_d", "z" * 76, "", "a..b", "a\n", "é", "z" * 77], times=12)
LabelMaps = label_maps()
Anys = st.sampled_from([orlop.Any("types/one", b"1"), orlop.Any("types/two", b"")])
Extensions = st.dictionaries(st.sampled_from(["e1", "e2", "x.y/z"]), Anys, max_size=2)
Runtimes = st.builds(orlop.Runtime, mostly(["r1"], ["r2", ""], times=10), st.none() | Anys)
Times = st.sampled_from([0, 1, HOUR_NS])

LABEL_PATHS = ["labels", "labels.a", "labels.b", "labels.x.y/z", "labels.never", "labels."]
EXTENSION_PATHS = ["extensions", "extensions.e1", "extensions.x.y/z", "extensions.never"]
BAD_PATHS = ["", "*", "Labels", "label.a", " labels", "labels[a]", "id", "name", "created_at", "updated_at"]


def anywhere() -> st.SearchStrategy[Place]:
    return st.runner().flatmap(lambda machine: st.tuples(Spaces, machine.names))


def somewhere() -> st.SearchStrategy[Place]:
    """Where something is, most of the time."""

    def known(machine: Any) -> st.SearchStrategy[Place]:
        there = sorted(machine.model.records)
        return st.sampled_from(there) if there else st.tuples(Spaces, machine.names)

    return usually(st.runner().flatmap(known), anywhere())


# machines ---------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """A store, and the model that it is held against."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = self.make_model()
        self.folder = tempfile.mkdtemp(prefix="orlop-models-")
        self.engine = MemoryStore()
        self.stack = AsyncExitStack()
        self.loop = Loop()
        self.last_ns = 0
        self.asked_ns = 0
        self.message = ""
        self.loop.run(self._start)
        self.loop.run(self.prepare)

    def make_model(self) -> Any:
        raise NotImplementedError

    async def prepare(self) -> None:
        """What is there before the first step."""

    async def _start(self) -> None:
        running = await self.stack.enter_async_context(
            run_store(StoreConfig(self.folder), real_world(), host_platform(), [], self.engine)
        )
        self.store = running.store

    async def _restart(self) -> None:
        await self.stack.aclose()
        self.stack = AsyncExitStack()
        await self._start()

    def teardown(self) -> None:
        self.loop.run(self.stack.aclose)
        self.loop.close()
        shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        self.loop.run(self._restart)

    @rule()
    def collect(self) -> None:
        self.agree(self.ask(self.store.collect), None)

    def within(self, space: str, lease: str | None = None) -> orlop.Store:
        store = self.store.in_namespace(space)
        return store if lease is None else store.with_lease(lease)

    def ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, or the name of the error's class."""

        async def ask() -> Any:
            try:
                return await call()
            except errors.OrlopError as error:
                self.message = str(error)
                return type(error).__name__

        self.message = ""
        self.asked_ns = time.time_ns()
        return self.loop.run(ask)

    def every(self, items: AsyncIterator[V]) -> list[V]:
        async def every() -> list[V]:
            return [item async for item in items]

        return self.loop.run(every)  # type: ignore[no-any-return]

    def agree(self, got: Any, expected: Any) -> None:
        """Compare an answer that holds nothing but what the model knows."""
        if isinstance(expected, set):
            assert got in expected
        elif expected is None:  # it was done, and there is nothing to tell
            assert not isinstance(got, str), (got, self.message)
        else:
            assert got == expected, self.message

    def now(self, at_ns: int) -> int:
        """A time that the store set during the call just made: in the call, and after all times before."""
        assert self.asked_ns <= at_ns <= time.time_ns()
        assert at_ns > self.last_ns
        self.last_ns = at_ns
        return at_ns


class RecordMachine(Machine):
    """Machines of resources with one record a name, in two namespaces."""

    kind: ClassVar[str]
    names: ClassVar[st.SearchStrategy[str]] = Ids
    model: Records[Any]

    def of(self, space: str, lease: str | None = None) -> Any:
        return getattr(self.within(space, lease), self.kind)

    def settle(self, got: Any, expected: Any, at: Place) -> None:
        """Compare the answer of a write; of a record that was written the model learns what only the store knows."""
        if isinstance(expected, str | set) or isinstance(got, str):
            self.agree(got, expected)
            return
        learned = self.learned(got, expected)
        assert got == learned
        self.model.learn(at, learned)

    def learned(self, got: Any, expected: Any) -> Any:
        if expected.created_at == NOW:
            at_ns = self.now(got.created_at)
            return replace(expected, created_at=at_ns, updated_at=at_ns)  # both from one reading of the clock
        if expected.updated_at == NOW:
            return replace(expected, updated_at=self.now(got.updated_at))
        return expected

    @rule(at=somewhere())
    def get(self, at: Place) -> None:
        space, name = at
        self.agree(self.ask(lambda: self.of(space).get(name)), self.model.get(at))

    @rule(at=somewhere())
    def delete(self, at: Place) -> None:
        space, name = at
        self.agree(self.ask(lambda: self.of(space).delete(name)), self.model.delete(at))

    @rule(space=Spaces, value=st.sampled_from(["1", "2"]), alike=st.booleans())
    def list_by_label(self, space: str, value: str, alike: bool) -> None:
        found = self.every(self.of(space).list([f"labels.a{'==' if alike else '!='}{value}"]))
        assert found == [record for record in self.model.list(space) if (record.labels.get("a") == value) == alike]

    @invariant()
    def lists_are_as_the_model_says(self) -> None:
        for space in SPACES:
            assert self.every(self.of(space).list()) == self.model.list(space)
