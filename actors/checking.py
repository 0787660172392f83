"""Whether a running store fits together: records, references, files, snapshots and mounts. Source: DESIGN 8.

It reads page by page, each on one view, while others are served; what may be a moment's state is looked at again when
queued removals are done. Only with `repair` does it write: each flaw that has one safe answer in a transaction of its
own that looks again first, and what belongs to nothing is set aside, never deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from ..protocol.errors import OrlopError
from ..protocol.identifiers import split_digest
from ..protocol.messages import Check, Checked, Context, Finding, Fixed, Problem
from ..protocol.service import Session
from ..protocol.world import Work, World
from ..storage import keys, snapshots
from ..storage.audit import backends, counters, folders, references, states
from ..storage.audit.files import digest_of, list_store, mounted_snapshots, set_aside, sizes_of
from ..storage.audit.flaw import Flaw, Page
from ..storage.audit.recorded import unrecorded, waiting
from ..storage.blobs import ledger
from ..storage.blobs.local import LocalBlobs, disk_errors
from ..storage.collection.collector import has_suspects
from ..storage.collection.mark import Node, mark, read_graph
from ..storage.collection.owed import first_owed
from ..storage.collection.state import Vertex, decode_clock
from ..storage.collection.walk import walk_usage
from ..storage.engine import Reader, View
from ..storage.tables import page_namespaces
from ..storage.usage import BytesHeld, Unit, read_usage
from .gc import Collector
from .removals import RemovalActor
from .snapshotters import Snapshotters
from .storage import StorageActor

__all__ = ["Checker"]

log = structlog.get_logger("orlop.check")

_NAMESPACES_AT_ONCE: Final = 100
_SIZES_AT_ONCE: Final = 1000
_UNREADABLE: Final = (OrlopError, msgspec.MsgspecError, ValueError, KeyError)

Emit = Callable[[object], Awaitable[None]]

# In this order: each mends what the later ones count on. The comparison with the full mark comes before them all:
# whatever lives is known to live before anything is put in question.
_AUDITS: Final[tuple[tuple[str, Callable[[Reader, bytes], Awaitable[Page]]], ...]] = (
    ("records", references.audit_records),
    ("references", partial(references.audit_edges, region=keys.EDGES)),
    ("references", partial(references.audit_edges, region=keys.BACK_EDGES)),
    ("", references.audit_instants),
    ("", states.audit_states),
    ("", counters.audit_namespaces),
    ("", counters.audit_shareable),
    ("", counters.audit_journal),
    ("", counters.audit_deleted),
    ("", backends.audit_holders),
    ("", backends.audit_unheld),
    ("", backends.audit_small_bytes),
    ("", folders.audit_ids),
    ("", folders.audit_links),
    ("", folders.audit_snapshot_holders),
    ("", folders.audit_unpacked),
)


class Checker:
    def __init__(
        self,
        storage: StorageActor,
        collector: Collector,
        removals: RemovalActor,
        blobs: LocalBlobs,
        snapshotters: Snapshotters,
        world: World,
    ) -> None:
        self._storage = storage
        self._collector = collector
        self._removals = removals
        self._blobs = blobs
        self._snapshotters = snapshotters
        self._world = world

    async def check(self, request: Check, _: Context, __: Session, emit: Emit) -> Checked:
        """See Check. Cancellation: what was mended stays so."""
        run = _Run(self._storage, self._world, self._blobs.path(""), emit, repair=request.repair)
        await run.all_of(states.audit_extents)
        await run.pages(states.audit_queue, "")
        await run.pages(counters.audit_back_counts, "")
        compared = await self._unless_unreadable(self._compare, run)
        for what, audit in _AUDITS:
            await run.pages(audit, what)
        lost = await run.lost_blobs()
        await run.all_of(counters.audit_numbers)
        there = await self._list()
        for each in lost:
            await self._bring_back(run, each, there)
        blob_files = await run.blobs()
        own_folders = await run.snapshots()
        await self._files(run, blob_files, own_folders, there)
        await self._mounts(run)
        await self._unless_unreadable(self._usage, run)
        return run.result(compared)

    async def _unless_unreadable(self, look: Callable[[_Run], Awaitable[bool]], run: _Run) -> bool:
        """What cannot be read is told by others; without it nothing can be counted or compared."""
        try:
            return await look(run)
        except _UNREADABLE as error:
            log.warning("bytes are not counted or nothing is compared with the full mark", error=str(error))
            return False

    async def compare(self) -> int:
        """Collect nothing, but compare the collector with the full mark; what differs is looked at again. Returns how
        much did."""

        async def tell(finding: object) -> None:
            log.error("the full mark does not agree with the collector", finding=str(finding))

        run = _Run(self._storage, self._world, self._blobs.path(""), tell, repair=True)
        await self._compare(run)
        return run.findings

    async def _namespaces(self, view: Reader) -> list[str]:
        names: list[str] = []
        while True:
            page = await page_namespaces(view, names[-1] if names else "", _NAMESPACES_AT_ONCE)
            names += [each.name for each in page]
            if len(page) < _NAMESPACES_AT_ONCE:
                return names

    async def _list(self) -> list[str]:
        with disk_errors("reading the store's folders"):
            return await self._world.workers.run(Work.FILES, list_store, self._blobs.path(""), self._world.files)

    async def _sizes(self, paths: list[str]) -> dict[str, int | None]:
        """None: it is not there."""
        sizes: dict[str, int | None] = {}
        for at in range(0, len(paths), _SIZES_AT_ONCE):
            some = paths[at : at + _SIZES_AT_ONCE]
            with disk_errors("reading the store's folders"):
                found = await self._world.workers.run(
                    Work.FILES, sizes_of, self._blobs.path(""), some, self._world.files
                )
            sizes.update(zip(some, found, strict=True))
        return sizes

    async def _files(
        self, run: _Run, blob_files: dict[str, tuple[str, int]], own_folders: set[str], there: list[str]
    ) -> None:
        """Recorded files are there, with their sizes; and what is there is recorded, or waits to be removed. First it
        is seen that a file is missing, then that it is recorded even so: a file never comes after its record. And first
        that one is not recorded, then, when queued removals are done, that it is there even so."""
        run.looked["files"] = len(there)
        sizes = await self._sizes([*blob_files, *own_folders])
        for path, size in sizes.items():
            digest, recorded = blob_files.get(path, ("", size))
            if size == recorded and size is not None:
                continue
            with run.view() as view:
                if await unrecorded(view, [path]):
                    continue
            if path in own_folders:
                await run.tell(Flaw(Problem.FOLDER, "", "snapshot", path, "its folder is missing"))
            elif size is None:
                await run.blob_flaw(Problem.BYTES, digest, path, f"{path} is missing; pull or ingest it again")
            else:
                await run.blob_flaw(Problem.SIZE, digest, path, f"{size} bytes, recorded are {recorded}")
        with run.view() as view:
            strange = await unrecorded(view, [path for path in there if path not in sizes])
        if not strange:
            return
        await self._removals.settled()
        with run.view() as view:
            queued = await waiting(view)
        for path, size in (await self._sizes(strange)).items():
            if size is not None and path not in queued:
                await run.tell(Flaw(Problem.ORPHAN, "", "file", path, "belongs to nothing", quarantine=path))

    async def _bring_back(self, run: _Run, lost: backends.LostBlob, there: list[str]) -> None:
        """A blob whose record was lost: its bytes may be there even so."""
        algorithm, encoded = split_digest(lost.digest)
        begin = f"blobs/{algorithm}/{encoded}."
        generation = 0 if lost.small else None
        for path in there:
            number = path[len(begin) :]
            if path.startswith(begin) and number.isdecimal() and generation is None:
                found = await self._world.workers.run(
                    Work.FILES, digest_of, self._blobs.path(""), path, algorithm, self._world.files
                )
                generation = int(number) if found == encoded else None
        detail = "it is held and its blob is not recorded"
        if generation is None:
            detail += ", nor are its bytes there; pull or ingest it again"
        mend = partial(backends.restore, lost=lost, generation=generation)
        await run.tell(Flaw(Problem.BYTES, "", "content", lost.digest, detail, mend, heals=generation is not None))

    async def _mounts(self, run: _Run) -> None:
        """Seen as mounted, then as gone, then as mounted even so."""
        shown = await self._mounted()
        run.looked["mounts"] = len(shown)
        with run.view() as view:
            gone = [
                each
                for each in shown
                if await view.get(keys.backend_snapshot(each[2])) is None
                and await view.get(keys.unfinished_snapshot(each[2])) is None
            ]
        if not gone:
            return
        still = set(await self._mounted())
        for where, snapshotter, number in gone:
            if (where, snapshotter, number) in still:
                detail = f"mounted at {where}; unmount it"
                await run.tell(Flaw(Problem.MOUNT, "", "snapshot", f"{snapshotter}/{number}", detail))

    async def _mounted(self) -> list[tuple[str, str, int]]:
        return await self._world.workers.run(Work.FILES, mounted_snapshots, self._blobs.path(""), self._world.files)

    async def _usage(self, run: _Run) -> bool:
        with run.view() as view:
            walked = await walk_usage(view)
            for name in await self._namespaces(view):
                walked.setdefault(name, BytesHeld())
            counted = {name: await read_usage(view, name) for name in walked}
        for name, held in walked.items():
            if held != counted[name]:
                mend = partial(backends.mend_usage, namespace=name, by=_difference(held, counted[name]))
                detail = f"{counted[name]} counted, {held} there"
                await run.tell(Flaw(Problem.USAGE, name, "namespace", name or "the store", detail, mend))
        return True

    async def _compare(self, run: _Run) -> bool:
        """With the full mark, on one view, when nothing is in question there. A repair wakes what lives in any case."""
        flaws: list[Flaw] = []
        with run.view() as view:
            at_rest = not await has_suspects(view) and await first_owed(view) is None
            if not at_rest and not run.repair:
                return False
            time = decode_clock(await view.get(keys.CLOCK)).time
            for namespace in await self._namespaces(view):
                graph = await read_graph(view, namespace, time, trio.lowlevel.checkpoint)
                marked = await mark(graph, time, trio.lowlevel.checkpoint)
                if not at_rest:
                    for node in await states.unaware(view, namespace, marked):
                        await self._storage.transact(partial(states.wake_again, vertex=Vertex(namespace, *node)))
                    continue
                anchored = await states.anchored(view, namespace)
                flaws += [_disagree(namespace, node, alive=True) for node in marked - anchored.keys()]
                flaws += [_disagree(namespace, node, alive=False) for node in anchored.keys() - marked]
                circles = await states.loops(anchored, trio.lowlevel.checkpoint)
                flaws += [_in_circles(namespace, node) for node in circles if node in marked]
        for flaw in flaws:
            await run.tell(flaw)
        return at_rest


class _Look:
    """A view from which long looks are taken: others get their turn in between."""

    def __init__(self, view: View) -> None:
        self.get = view.get
        self._view = view

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        await trio.lowlevel.checkpoint()
        return await self._view.scan(start, stop, limit)


class _Run:
    """One check: what was looked at, found and mended so far."""

    def __init__(self, storage: StorageActor, world: World, root: str, emit: Emit, *, repair: bool) -> None:
        self._storage = storage
        self._world = world
        self._root = root
        self._emit = emit
        self.repair = repair
        self.looked = dict.fromkeys(("records", "references", "blobs", "snapshots", "files", "mounts", ""), 0)
        self.findings = self._fixed = 0

    @contextmanager
    def view(self) -> Iterator[Reader]:
        with self._storage.view() as view:
            yield _Look(view)

    async def pages(self, audit: Callable[[Reader, bytes], Awaitable[Page]], what: str) -> None:
        after = b""
        while True:
            with self.view() as view:
                page = await audit(view, after)
            await self._page(page, what)
            after = page.next
            if not after:
                return

    async def all_of(self, audit: Callable[[Reader], Awaitable[list[Flaw]]]) -> None:
        with self.view() as view:
            flaws = await audit(view)
        for flaw in flaws:
            await self.tell(flaw)

    async def blobs(self) -> dict[str, tuple[str, int]]:
        """Paths of blobs' files, with digest and size."""
        expected: dict[str, tuple[str, int]] = {}
        after = b""
        while True:
            with self.view() as view:
                found = await backends.audit_blobs(view, after)
            await self._page(found.page, "blobs")
            for digest, generation, size in found.files:
                expected[ledger.blob_path(digest, generation)] = digest, size
            after = found.page.next
            if not after:
                return expected

    async def lost_blobs(self) -> list[backends.LostBlob]:
        lost: dict[str, backends.LostBlob] = {}
        after = b""
        while True:
            with self.view() as view:
                found, after = await backends.find_lost(view, after)
            lost.update((each.digest, each) for each in found)
            if not after:
                return list(lost.values())

    async def snapshots(self) -> set[str]:
        """Folders that must be there. All on one view: children are counted on it."""
        expected: set[str] = set()
        pages: list[Page] = []
        after = b""
        with self.view() as view:
            try:
                children = await folders.count_children(view)
            except _UNREADABLE:
                children = None
            while True:
                found = await folders.audit_backends(view, after, children)
                pages.append(found.page)
                expected |= {snapshots.folder_of(snapshotter, number) for snapshotter, number in found.folders}
                after = found.page.next
                if not after:
                    break
        for page in pages:
            await self._page(page, "snapshots")
        return expected

    async def _page(self, page: Page, what: str) -> None:
        self.looked[what] += page.looked
        for flaw in page.flaws:
            await self.tell(flaw)
        await trio.lowlevel.checkpoint()

    async def blob_flaw(self, problem: Problem, digest: str, path: str, detail: str) -> None:
        mend = partial(backends.mark_damaged, digest=digest, generation=int(path.rpartition(".")[2]))
        await self.tell(Flaw(problem, "", "content", digest, detail, mend, heals=False))

    async def tell(self, flaw: Flaw) -> None:
        self.findings += 1
        fixed = await self._mended(flaw) if self.repair else Fixed.NO
        self._fixed += fixed is not Fixed.NO
        await self._emit(Finding(flaw.problem, flaw.namespace, flaw.kind, flaw.name, flaw.detail, fixed))

    async def _mended(self, flaw: Flaw) -> Fixed:
        try:
            if flaw.quarantine:
                await self._world.workers.run(Work.FILES, set_aside, self._root, flaw.quarantine, self._world.files)
                return Fixed.QUARANTINED
            if flaw.mend is not None:
                await self._storage.transact(flaw.mend)
                return Fixed.MENDED if flaw.heals else Fixed.NO
        except (OrlopError, OSError) as error:
            log.error("not mended", problem=flaw.problem.value, name=flaw.name, error=str(error))
        return Fixed.NO

    def result(self, compared: bool) -> Checked:
        looked = self.looked
        return Checked(
            records=looked["records"],
            references=looked["references"],
            blobs=looked["blobs"],
            snapshots=looked["snapshots"],
            files=looked["files"],
            mounts=looked["mounts"],
            findings=self.findings,
            fixed=self._fixed,
            compared=compared,
        )


def _disagree(namespace: str, node: Node, *, alive: bool) -> Flaw:
    vertex = Vertex(namespace, node.kind, node.name, node.flat)
    mend = partial(states.wake_again if alive else states.suspect_again, vertex=vertex)
    detail = f"{'alive' if alive else 'dead'}, and not known to be"
    return Flaw(Problem.MARK, namespace, node.kind.name.lower(), node.name, detail, mend)


def _in_circles(namespace: str, node: Node) -> Flaw:
    mend = partial(states.suspect_again, vertex=Vertex(namespace, node.kind, node.name, node.flat))
    detail = "what is said to keep it is kept by it"
    return Flaw(Problem.STATE, namespace, node.kind.name.lower(), node.name, detail, mend)


def _difference(there: BytesHeld, counted: BytesHeld) -> dict[Unit, int]:
    return {
        Unit.PACKED: there.packed - counted.packed,
        Unit.UNPACKED: there.unpacked - counted.unpacked,
        Unit.EXCLUSIVE: there.exclusive - counted.exclusive,
        Unit.RECLAIMABLE: there.reclaimable - counted.reclaimable,
    }
