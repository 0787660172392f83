"""What a child does while its file calls fail: `python -m tests.crash.fault_sweep ROOT STEP`.

One step of a store's work is done again and again: first its first file call fails, then its second, until none is
left to fail. Each time the caller gets what it asked for or a clear error; when the fault is gone the store works by
itself; and at the end, after a restart, all that was acknowledged is there. A line on stdout counts the faults.
"""

from __future__ import annotations

import errno
import itertools
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio

import orlop
from orlop.actors import gc, removals, storage
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors

from ..support.files.calls import Armed, Kind
from .workload import ROOT, digest_of

__all__ = ["FAULTS", "STEPS"]

WRITING: Final = frozenset({Kind.WRITE, Kind.SYNC, Kind.RENAME, Kind.MKDIR, Kind.ALLOCATE, Kind.TRUNCATE})
ALL: Final = WRITING | {Kind.OPEN, Kind.READ, Kind.UNLINK, Kind.CHANGE}
FAULTS: Final = {
    "full": (errno.ENOSPC, WRITING),
    "broken": (errno.EIO, ALL),
    "read-only": (errno.EROFS, WRITING | {Kind.UNLINK, Kind.CHANGE}),
    "no descriptors": (errno.EMFILE, frozenset({Kind.OPEN})),
}
LARGE: Final = 40_000
RESUMES_WITHIN_S: Final = 5.0
MOST_CALLS: Final = 400

Step = Callable[["Sweep", int], Awaitable[None]]


@dataclass
class Sweep:
    """What is known of a store whose disk fails. `there` and `gone`: digests that it acknowledged so; one in neither
    may be either."""

    root: str
    store: orlop.Store
    there: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    answers: dict[str, int] = field(default_factory=dict)

    async def under(self, step: Step, number: int, armed: Armed) -> None:
        """The step, while a call of it fails: done, or one of our errors."""
        with armed:
            try:
                with trio.fail_after(RESUMES_WITHIN_S):
                    await step(self, number)
                answer = "done"
            except errors.OrlopError as error:
                answer = type(error).__name__ if str(error) else "an error without a word"
        assert answer != "an error without a word"
        self.answers[answer] = self.answers.get(answer, 0) + 1

    async def goes_on(self, number: int) -> None:
        """The fault is gone: soon the store does everything again."""
        data = b"after %d" % number
        with trio.fail_after(RESUMES_WITHIN_S):
            while True:
                try:
                    await self.store.content.put(data, labels=ROOT)
                    break
                except errors.AlreadyExists:
                    break
                except (errors.Unavailable, errors.Unknown, errors.ResourceExhausted):
                    await trio.sleep(0.01)
            await commit(self, -1 - number)
            assert await self.store.content.read(digest_of(data)) == data
        self.there[digest_of(data)] = data

    async def check(self) -> None:
        held = {info.digest async for info in self.store.content.list()}
        assert self.there.keys() <= held, f"lost: {self.there.keys() - held}"
        assert not self.gone & held, f"back again: {self.gone & held}"
        for digest in held:
            data = await self.store.content.read(digest)
            assert digest_of(data) == digest
        names = {image.name async for image in self.store.images.list()}
        assert self.images <= names, f"lost: {self.images - names}"


def blob(number: int, size: int) -> bytes:
    return random.Random(f"{number} {size}").randbytes(size)


# steps ----------------------------------------------------------------------------------------------------


async def put(sweep: Sweep, number: int) -> None:
    data = blob(number, 500)
    await sweep.store.content.put(data, labels=ROOT)
    sweep.there[digest_of(data)] = data


async def commit(sweep: Sweep, number: int) -> None:
    data = blob(number, LARGE)
    async with sweep.store.content.ingest(f"commit {number}", expected=digest_of(data), size=LARGE) as writer:
        await writer.write(data[: LARGE // 2])
        await writer.write(data[LARGE // 2 :])
        await writer.commit(labels=ROOT)
    sweep.there[digest_of(data)] = data


async def resume(sweep: Sweep, number: int) -> None:
    """An ingest is left, and gone on with: what it has by then is its own bytes."""
    data, ref = blob(number, LARGE), f"resume {number}"
    async with sweep.store.content.ingest(ref, size=LARGE) as writer:
        await writer.write(data[: LARGE // 2])
    async with sweep.store.content.ingest(ref, size=LARGE) as writer:
        await writer.write(data[writer.offset :])
        await writer.commit(expected=digest_of(data), labels=ROOT)
    sweep.there[digest_of(data)] = data


async def delete(sweep: Sweep, number: int) -> None:
    """Of a blob that an earlier round made, and then what that leaves is collected."""
    large = [digest for digest, data in sweep.there.items() if len(data) == LARGE]
    if not large:
        return await commit(sweep, number)
    del sweep.there[large[0]]
    await sweep.store.content.delete(large[0])
    sweep.gone.add(large[0])
    await sweep.store.collect()
    return None


async def image(sweep: Sweep, number: int) -> None:
    await sweep.store.images.create(f"image {number}", orlop.Descriptor("type", digest_of(b""), 7))
    sweep.images.add(f"image {number}")


async def read(sweep: Sweep, number: int) -> None:
    for digest, data in list(sweep.there.items())[-2:]:
        assert await sweep.store.content.read(digest) == data


STEPS: Final[Mapping[str, Step]] = {
    "put": put, "commit": commit, "resume": resume, "delete": delete, "image": image, "read": read,
}  # fmt: skip

# the sweep ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(root: str) -> AsyncIterator[orlop.Store]:
    async with run_store(StoreConfig(root), real_world(), host_platform()) as running:
        yield running.store


async def sweep_step(root: str, step: Step) -> dict[str, Any]:
    numbers, fired = itertools.count(1), 0
    async with opened(root) as store:
        sweep = Sweep(root, store)
        await sweep.goes_on(0)
        for error, kinds in FAULTS.values():
            for forever in (False, True):
                for call in range(MOST_CALLS):
                    number = next(numbers)
                    armed = Armed(call, error, kinds, forever=forever)
                    await sweep.under(step, number, armed)
                    if not armed.fired:
                        break
                    fired += 1
                    await sweep.goes_on(number)
                else:
                    raise AssertionError(f"after {MOST_CALLS} calls there is still one to fail")
        await sweep.check()
    async with opened(root) as store:
        sweep.store = store
        await sweep.check()
    return {"faults": fired, **sweep.answers}


async def sweep_start(root: str) -> dict[str, Any]:
    """Opening the store: it opens, or an error says why not; then it opens, with all that it had."""
    fired, answers = 0, {"done": 0}
    async with opened(root) as store:
        sweep = Sweep(root, store)
        await sweep.goes_on(0)
    for error, kinds in FAULTS.values():
        for forever in (False, True):
            for call in range(MOST_CALLS):
                armed = Armed(call, error, kinds, forever=forever)
                with armed:
                    try:
                        async with opened(root):
                            answers["done"] += 1
                    except (errors.OrlopError, errors.StoreFailed, OSError) as refused:
                        answers[type(refused).__name__] = answers.get(type(refused).__name__, 0) + 1
                async with opened(root) as store:
                    sweep.store = store
                    await sweep.check()
                if not armed.fired:
                    break
                fired += 1
    return {"faults": fired, **answers}


async def main(root: str, step: str) -> None:
    for actor in (gc, removals, storage):
        actor.RETRY_S = 0.02  # the pauses between attempts are not what is tested
    found = await (sweep_start(root) if step == "start" else sweep_step(root, STEPS[step]))
    print(" ".join(f"{name}={count}" for name, count in found.items()))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
