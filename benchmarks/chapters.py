"""The chapters of the book: what is compared, on what terms."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trio

from . import garbage as garbage_costs
from . import limits as machine_limits
from . import standing as standing_costs
from . import unpack
from .duels import Duel, duel, scenario_of
from .figures import Comparison, Section, Side

__all__ = ["Terms", "builds", "content", "garbage", "limits", "pulls", "records", "standing"]

CALLERS = (1, 8, 64, 256)


class Terms(NamedTuple):
    """`quick`: shorter and smaller, for a look."""

    folder: Path
    quick: bool
    both: bool

    @property
    def seconds(self) -> float:
        return 1.0 if self.quick else 2.5

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 3

    def fight(self, duels: list[Duel], name: str) -> list[Comparison]:
        return trio.run(self._fight, duels, name)

    async def _fight(self, duels: list[Duel], name: str) -> list[Comparison]:
        return await duel(duels, self.folder / name, self.seconds, self.rounds, both=self.both)


def limits(terms: Terms) -> Section:
    """Beside the least that the work can cost on this machine."""
    return Section(
        "limits", "Beside what the machine can", "the machine", machine_limits.compare(terms.folder, terms.seconds)
    )


def records(terms: Terms) -> Section:
    images = 2_000 if terms.quick else 10_000
    population = f"images = {images}"
    callers = (1, 64) if terms.quick else CALLERS
    duels = [
        Duel(
            f"{key}-{count}", f"{title}, {count} caller{'s' if count > 1 else ''}", scenario_of(what, count, population)
        )
        for key, title, what in (
            ("create", "image creates", 'do = "image-create"'),
            ("get", "image gets", 'do = "image-get"'),
            ("update", "one label by mask", 'do = "image-update"'),
        )
        for count in callers
    ]
    lists = [  # on servers of their own: exactly so many are there
        Duel("list", f"lists of {images:,} images, 1 caller", scenario_of('do = "image-list"', 1, population)),
        Duel("list-8", f"lists of {images:,} images, 8 callers", scenario_of('do = "image-list"', 8, population)),
        Duel(
            "list-filter",
            "the same by a filter that 1 in 9 passes, 1 caller",
            scenario_of('do = "image-list"; filters = ["name~=populated/1"]', 1, population),
        ),
    ]
    duels += [
        Duel(
            "mixed",
            "gets, creates, updates, deletes, 64 callers",
            scenario_of(
                'do = "image-get"; weight = 60 + do = "image-create"; weight = 15 + '
                'do = "image-update"; weight = 15 + do = "image-delete"; weight = 10',
                64,
                population,
            ),
        ),
    ]
    return Section("records", "Records", "containerd", terms.fight(duels, "records") + terms.fight(lists, "lists"))


def content(terms: Terms) -> Section:
    large = "blobs = 8; blob_size = 16777216"
    small = "blobs = 200; blob_size = 1048576"
    duels = [
        Duel(
            f"ingest-{size}-{count}",
            f"blobs of {title}, {count} caller{'s' if count > 1 else ''}",
            scenario_of(f'do = "blob-ingest"; size = {size}; keep = 1000000', count),
        )
        for size, title, counts in ((4096, "4 KiB", (1, 16, 64)), (1048576, "1 MiB", (4,)), (67108864, "64 MiB", (1,)))
        for count in counts
    ]
    duels += [
        Duel("read-1m", "blobs of 1 MiB read whole, 4 callers", scenario_of('do = "blob-read"', 4, small)),
        Duel("read-16m", "blobs of 16 MiB read whole, 4 callers", scenario_of('do = "blob-read"', 4, large)),
        Duel("read-at", "4 KiB at random, 16 callers", scenario_of('do = "blob-read-at"; length = 4096', 16, small)),
    ]
    return Section("content", "Content", "containerd", terms.fight(duels, "content"))


def builds(terms: Terms) -> Section:
    publish = 'do = "image-publish"; layers = 4; size = 65536'
    cycle = 'do = "snapshot-prepare" + do = "snapshot-commit"; keep = 5'
    duels = [
        Duel("publish-1", "images of 4 layers of 64 KiB, 1 caller", scenario_of(publish, 1)),
        Duel("publish-16", "images of 4 layers of 64 KiB, 16 callers", scenario_of(publish, 16)),
        Duel(
            "snapshots-1", "snapshots prepared, committed, removed, 1 caller", scenario_of(cycle, 1, "snapshots = 10")
        ),
        Duel("snapshots-16", "the same, 16 callers", scenario_of(cycle, 16, "snapshots = 10")),
    ]
    return Section("builds", "Images and snapshots", "containerd", terms.fight(duels, "builds"))


def garbage(terms: Terms) -> Section:
    sizes = (1_000, 10_000) if terms.quick else (1_000, 10_000, 100_000)
    most = 1_000 if terms.quick else 10_000

    async def run() -> list[Comparison]:
        return await garbage_costs.garbage(sizes, most, terms.folder, both=terms.both)

    return Section("garbage", "One image of ten blobs is deleted", "containerd", trio.run(run))


def pulls(terms: Terms) -> Section:
    presets = ("redis",) if terms.quick else ("redis", "tiny")  # `python -m benchmarks.unpack` knows a large one
    found = []
    for preset, costs in unpack.measure_all(terms.folder, presets, 1 if terms.quick else 2, both=terms.both):
        for case in unpack.CASES:
            ours = [cost.wall_s for cost in costs[case, "orlop"]]
            theirs = [cost.wall_s for cost in costs.get((case, "containerd"), [])]
            other = Side(theirs) if theirs else None
            found.append(Comparison(f"{preset}-{case}", f"{preset}: {case}", "s", "lower", Side(ours), other))
        peaks = [
            max(cost.peak_mib for cost in costs["pull", name])
            for name in ("orlop", "containerd")
            if ("pull", name) in costs
        ]
        other = Side([peaks[1]]) if len(peaks) > 1 else None
        title = f"{preset}: peak memory of a first pull"
        found.append(Comparison(f"{preset}-memory", title, "MiB", "lower", Side([peaks[0]]), other))
    return Section("pulls", "Pull and unpack", "containerd", found)


def standing(terms: Terms) -> Section:
    rounds, count = (2, 10_000) if terms.quick else (5, 100_000)
    found = standing_costs.standing(terms.folder, rounds, count, both=terms.both)
    return Section("standing", "Start and memory", "containerd", found)
