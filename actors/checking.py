"""Whether a running store fits together: records, references, files, snapshots and mounts. Source: DESIGN 8.

It reads page by page, each on one view, while others are served; what may be a moment's state is looked at again when
queued removals are done. Only with `repair` does it write: each flaw that has one safe answer in a transaction of its
own that looks again first, and what belongs to nothing is set aside, never deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
import trio

from ..protocol.errors import OrlopError
from ..protocol.messages import Check, Checked, Context, Finding, Fixed, Problem
from ..protocol.service import Session
from ..protocol.world import Work, World
from ..storage import keys, snapshots
from ..storage.audit.backends import audit_blobs, audit_holders, audit_snapshots, held_by_ingests, mend_usage
from ..storage.audit.files import Found, list_store, mounted_snapshots, set_aside, sizes_of
from ..storage.audit.flaw import Flaw, Page
from ..storage.audit.references import audit_edges, audit_records, suspect_again, wake_again
from ..storage.blobs import ledger
from ..storage.blobs.local import LocalBlobs, disk_errors
from ..storage.collection.collector import has_suspects
from ..storage.collection.kinds import LETTERS
from ..storage.collection.mark import Node, mark, read_graph
from ..storage.collection.owed import first_owed
from ..storage.collection.state import Vertex, decode_clock, decode_states
from ..storage.collection.walk import walk_usage
from ..storage.engine import Reader, View
from ..storage.tables import INGESTS, page_namespaces
from ..storage.usage import BytesHeld, Unit, read_usage
from .gc import Collector
from .removals import RemovalActor
from .snapshotters import Snapshotters
from .storage import StorageActor

__all__ = ["Checker"]

log = structlog.get_logger("orlop.check")

_NAMESPACES_AT_ONCE: Final = 100
_STATES_AT_ONCE: Final = 500

Emit = Callable[[object], Awaitable[None]]


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
        await run.pages(audit_records, "records")
        for region in (keys.EDGES, keys.BACK_EDGES):
            await run.pages(partial(_edges_of, region=region), "references")
        with self._storage.view() as view:
            held = await held_by_ingests(view, await self._namespaces(view))
        blob_files = await run.blobs(held)
        await run.pages(audit_holders, "holders")
        folders = await run.snapshots()
        await self._files(run, blob_files, folders)
        await self._mounts(run)
        await self._usage(run)
        compared = await self._compare(run)
        return run.result(compared)

    async def compare(self) -> int:
        """Collect nothing, but compare the collector with the full mark; what differs is looked at again. Returns how
        much did."""

        async def tell(finding: object) -> None:
            log.error("the full mark does not agree with the collector", finding=str(finding))

        run = _Run(self._storage, self._world, self._blobs.path(""), tell, repair=True)
        await self._compare(run)
        return run.findings

    async def _namespaces(self, view: View) -> list[str]:
        names: list[str] = []
        while True:
            page = await page_namespaces(view, names[-1] if names else "", _NAMESPACES_AT_ONCE)
            names += [each.name for each in page]
            if len(page) < _NAMESPACES_AT_ONCE:
                return names

    async def _files(self, run: _Run, blob_files: dict[str, tuple[str, int]], folders: set[str]) -> None:
        """Recorded files are there, with their sizes; and what is there is recorded, or waits to be removed."""
        root, files, work = self._blobs.path(""), self._world.files, self._world.workers.run
        with disk_errors("reading the store's folders"):
            found: Found = await work(Work.FILES, list_store, root, files)
        there = {*found.blobs, *found.ingests, *found.snapshots}
        run.looked["files"] = len(there)
        missing = [path for path in (*blob_files, *folders) if path not in there]
        strange = [path for path in there if path not in blob_files and path not in folders]
        await self._removals.settled()
        sizes = dict(zip(there, await work(Work.FILES, sizes_of, root, list(there), files), strict=True))
        for path, (digest, size) in blob_files.items():
            if path in there and (now := sizes.get(path)) is not None and now != size:
                await run.blob_flaw(Problem.SIZE, digest, path, f"{now} bytes, recorded are {size}")
        for path in missing:
            with self._storage.view() as view:
                recorded = await _is_recorded(view, path)
            if recorded and (await work(Work.FILES, sizes_of, root, [path], files))[0] is None:
                if path in blob_files:
                    await run.blob_flaw(Problem.BYTES, blob_files[path][0], path, f"{path} is missing")
                else:
                    await run.tell(Flaw(Problem.FOLDER, "", "snapshot", path, "its folder is missing"))
        for path in strange:
            with self._storage.view() as view:
                recorded = await _is_recorded(view, path)
            if not recorded and (await work(Work.FILES, sizes_of, root, [path], files))[0] is not None:
                await run.tell(Flaw(Problem.ORPHAN, "", "file", path, "belongs to nothing", quarantine=path))

    async def _mounts(self, run: _Run) -> None:
        root = self._blobs.path("")
        shown = await self._world.workers.run(Work.FILES, mounted_snapshots, root, self._world.files)
        run.looked["mounts"] = len(shown)
        for where, snapshotter, number in shown:
            with self._storage.view() as view:
                known = await snapshots.find_backend(view, number) is not None or await _is_unfinished(view, number)
            if not known:
                detail = f"mounted at {where}; unmount it"
                await run.tell(Flaw(Problem.MOUNT, "", "snapshot", f"{snapshotter}/{number}", detail))

    async def _usage(self, run: _Run) -> None:
        with self._storage.view() as view:
            walked = await walk_usage(view)
            counted = {name: await read_usage(view, name) for name in walked}
        for name, held in walked.items():
            if held != counted[name]:
                mend = partial(mend_usage, namespace=name, by=_difference(held, counted[name]))
                detail = f"{counted[name]} counted, {held} there"
                await run.tell(Flaw(Problem.USAGE, name, "namespace", name or "the store", detail, mend))

    async def _compare(self, run: _Run) -> bool:
        """With the full mark, on one view, when nothing is in question there."""
        with self._storage.view() as view:
            if await has_suspects(view) or await first_owed(view) is not None:
                return False
            time = decode_clock(await view.get(keys.CLOCK)).time
            for namespace in await self._namespaces(view):
                graph = await read_graph(view, namespace, time, trio.lowlevel.checkpoint)
                marked = await mark(graph, time, trio.lowlevel.checkpoint)
                anchored = await _anchored(view, namespace)
                for node in marked - anchored:
                    await run.tell(_disagree(namespace, node, "alive, and not known to be", alive=True))
                for node in anchored - marked:
                    await run.tell(_disagree(namespace, node, "dead, and not known to be", alive=False))
        return True


class _Run:
    """One check: what was looked at, found and mended so far."""

    def __init__(self, storage: StorageActor, world: World, root: str, emit: Emit, *, repair: bool) -> None:
        self._storage = storage
        self._world = world
        self._root = root
        self._emit = emit
        self._repair = repair
        self.looked = dict.fromkeys(("records", "references", "blobs", "holders", "snapshots", "files", "mounts"), 0)
        self.findings = self._fixed = 0

    async def pages(self, audit: Callable[[Reader, bytes], Awaitable[Page]], what: str) -> None:
        after = b""
        while True:
            with self._storage.view() as view:
                page = await audit(view, after)
            await self._page(page, what)
            after = page.next
            if not after:
                return

    async def blobs(self, held: dict[str, int]) -> dict[str, tuple[str, int]]:
        """Paths of blobs' files, with digest and size."""
        expected: dict[str, tuple[str, int]] = {}
        after = b""
        while True:
            with self._storage.view() as view:
                found = await audit_blobs(view, after, held)
            await self._page(found.page, "blobs")
            for digest, generation, size in found.files:
                expected[ledger.blob_path(digest, generation)] = digest, size
            after = found.page.next
            if not after:
                return expected

    async def snapshots(self) -> set[str]:
        """Folders that must be there."""
        expected: set[str] = set()
        after = b""
        while True:
            with self._storage.view() as view:
                found = await audit_snapshots(view, after)
            await self._page(found.page, "snapshots")
            expected |= {snapshots.folder_of(snapshotter, number) for snapshotter, number in found.folders}
            after = found.page.next
            if not after:
                return expected

    async def _page(self, page: Page, what: str) -> None:
        self.looked[what] += page.looked
        for flaw in page.flaws:
            await self.tell(flaw)
        await trio.lowlevel.checkpoint()

    async def blob_flaw(self, problem: Problem, digest: str, path: str, detail: str) -> None:
        generation = int(path.rpartition(".")[2])

        async def damage(txn: object) -> None:
            await ledger.mark_damaged(txn, digest, generation)  # type: ignore[arg-type]  # a Transaction

        await self.tell(Flaw(problem, "", "content", digest, detail, damage))

    async def tell(self, flaw: Flaw) -> None:
        self.findings += 1
        fixed = await self._mended(flaw) if self._repair else Fixed.NO
        self._fixed += fixed is not Fixed.NO
        await self._emit(Finding(flaw.problem, flaw.namespace, flaw.kind, flaw.name, flaw.detail, fixed))

    async def _mended(self, flaw: Flaw) -> Fixed:
        try:
            if flaw.quarantine:
                await self._world.workers.run(Work.FILES, set_aside, self._root, flaw.quarantine, self._world.files)
                return Fixed.QUARANTINED
            if flaw.mend is not None:
                await self._storage.transact(flaw.mend)
                return Fixed.MENDED
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


async def _edges_of(reader: Reader, after: bytes, region: bytes) -> Page:
    return await audit_edges(reader, region, after)


async def _is_recorded(view: View, path: str) -> bool:
    """Whether a file or folder belongs to something now."""
    folder, _, name = path.rpartition("/")
    if folder == "ingests":
        return await _has_ingest(view, name)
    if folder.startswith("snapshots/"):
        number = int(name)
        return await snapshots.find_backend(view, number) is not None or await _is_unfinished(view, number)
    encoded, _, generation = name.rpartition(".")
    digest = f"{folder.partition('/')[2]}:{encoded}"
    if not generation.isdecimal():
        return False
    blob = await ledger.find_blob(view, digest)
    return (blob is not None and blob.generation == int(generation)) or await _has_ingest(view, generation)


async def _has_ingest(view: View, generation: str) -> bool:
    """Whether an ingest has this file, under its own name or that of the blob that it is about to be."""
    after = ""
    while True:
        spaces = await page_namespaces(view, after, _NAMESPACES_AT_ONCE)
        for space in spaces:
            at = ""
            while True:
                page = await INGESTS.page(view, space.name, at, _NAMESPACES_AT_ONCE)
                if any(str(INGESTS.decode(raw).generation) == generation for _, raw in page.rows):
                    return True
                if not page.next:
                    break
                at = page.next
        if len(spaces) < _NAMESPACES_AT_ONCE:
            return False
        after = spaces[-1].name


async def _is_unfinished(view: View, number: int) -> bool:
    return await view.get(keys.unfinished_snapshot(number)) is not None


async def _anchored(view: View, namespace: str) -> set[Node]:
    found: set[Node] = set()
    prefix = keys.states(namespace)
    after = prefix
    kinds = {letter: kind for kind, letter in LETTERS.items()}
    while True:
        page = await view.scan(after, prefix + b"\x7f", _STATES_AT_ONCE)
        for key, value in page:
            kind, name = kinds[key[len(prefix) : len(prefix) + 1]], key[len(prefix) + 1 :].decode()
            normal, flat = decode_states(value)
            if normal.anchored:
                found.add(Node(kind, name))
            if flat.anchored:
                found.add(Node(kind, name, True))
        if len(page) < _STATES_AT_ONCE:
            return found
        after = page[-1][0] + b"\x00"
        await trio.lowlevel.checkpoint()


def _disagree(namespace: str, node: Node, detail: str, *, alive: bool) -> Flaw:
    vertex = Vertex(namespace, node.kind, node.name, node.flat)
    mend = partial(wake_again if alive else suspect_again, vertex=vertex)
    return Flaw(Problem.MARK, namespace, node.kind.name.lower(), node.name, detail, mend)


def _difference(there: BytesHeld, counted: BytesHeld) -> dict[Unit, int]:
    return {
        Unit.PACKED: there.packed - counted.packed,
        Unit.UNPACKED: there.unpacked - counted.unpacked,
        Unit.EXCLUSIVE: there.exclusive - counted.exclusive,
        Unit.RECLAIMABLE: there.reclaimable - counted.reclaimable,
    }
