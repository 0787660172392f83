"""`python -m benchmarks.unpack [--presets redis,tiny,large] [--folder DIR] [--rounds N] [--images DIR]`

Pull and unpack beside Debian's containerd, in turns, from one docker-registry on loopback, both with overlayfs. Wall
time, CPU seconds of the daemon and all its processes, and their peak memory (shared pages shared out). `tar` behind
igzip is the bare work. Needs root, containerd, docker-registry and skopeo. On ext4, and on tmpfs with `--folder`.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import trio

import orlop
from tests.support.registries import DockerRegistry, make_layout, push_layout

TICKS = os.sysconf("SC_CLK_TCK")
CASES = ("pull", "again", "second namespace", "unpack only")


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mib: float

    def without(self, seconds: float) -> Cost:
        return self._replace(wall_s=max(0.0, self.wall_s - seconds))


class Meter:
    """CPU of a process and all below it, with that of clients that were started for it and have ended; memory of the
    process and all below it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def measure(self, act: Callable[[], object]) -> Cost:
        os.sync()
        peak = 0.0
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.03):
                peak = max(peak, sum(_pss_kib(pid) for pid in _tree(self._pid)) / 1024)

        watcher = threading.Thread(target=watch)
        watcher.start()
        cpu, clients, began = self._cpu(), _ended_children_s(), time.perf_counter()
        try:
            act()
            wall = time.perf_counter() - began
        finally:
            ended.set()
            watcher.join()
        return Cost(wall, self._cpu() - cpu + _ended_children_s() - clients, peak)

    def _cpu(self) -> float:
        total = 0
        for pid in _tree(self._pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(int(field) for field in fields[11:15])
        return total / TICKS


def _ended_children_s() -> float:
    """CPU of what this process has started and that has ended: `ctr` fetches, where orlop's daemon does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        at = waiting.pop()
        found.append(at)
        try:
            for task in os.listdir(f"/proc/{at}/task"):
                waiting += map(int, Path(f"/proc/{at}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


class Orlop:
    name = "orlop"
    unpack_starts = 0

    def client_start_s(self) -> float:
        return 0.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "orlop"

    @contextmanager
    def running(self) -> Iterator[Meter]:
        self._address = f"unix:{self._folder}/o.sock"
        command = [Path(sys.executable).parent / "orlopd", "--root", self._folder, "--listen", self._address]
        with subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield Meter(process.pid)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        shutil.rmtree(self._folder)

    def pull(self, reference: str, namespace: str = "default", *, unpack: bool = True) -> None:
        async def run() -> None:
            async with orlop.connect(self._address, namespace=namespace) as store:
                await store.pull(
                    orlop.PullImage(
                        reference, access=orlop.RegistryAccess(plain_http=True), unpack=unpack, snapshotter="overlayfs"
                    )
                )

        trio.run(run)

    def unpack(self, reference: str) -> None:
        async def run() -> None:
            async with orlop.connect(self._address) as store:
                await store.images.unpack(reference, snapshotter="overlayfs")

        trio.run(run)


class Containerd:
    name = "containerd"
    unpack_starts = 2

    def client_start_s(self) -> float:
        took = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run(["ctr", "--version"], capture_output=True, check=True)
            took.append(time.perf_counter() - began)
        return median(took)

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "containerd"

    @contextmanager
    def running(self) -> Iterator[Meter]:
        self._folder.mkdir()
        self._address = f"{self._folder}/c.sock"
        config = self._folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self._folder}/root"\nstate = "{self._folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self._address}"\n'
        )
        command = ["containerd", "--config", str(config), "--log-level", "error"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                while subprocess.run(
                    ["ctr", "-a", self._address, "version"], capture_output=True, check=False
                ).returncode:
                    time.sleep(0.05)
                yield Meter(process.pid)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        shutil.rmtree(self._folder)

    def pull(self, reference: str, namespace: str = "default", *, unpack: bool = True) -> None:
        command = ["images", "pull", "--snapshotter", "overlayfs"] if unpack else ["content", "fetch"]
        self._ctr(namespace, *command, "--plain-http", reference)

    def unpack(self, reference: str) -> None:
        found = self._ctr("default", "images", "ls", f"name=={reference}").splitlines()[1].split()
        digest = next(word for word in found if word.startswith("sha256:"))
        self._ctr("default", "snapshots", "--snapshotter", "overlayfs", "unpack", digest)

    def _ctr(self, namespace: str, *command: str) -> str:
        done = subprocess.run(
            ["ctr", "-a", self._address, "-n", namespace, *command], capture_output=True, text=True, check=True
        )
        return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default="redis,tiny,large")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--images", default="", help="where images made before lie; else they are made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir=options.folder))
    images = Path(options.images) if options.images else folder / "images"
    try:
        with DockerRegistry(Path(tempfile.mkdtemp(prefix="orlop-registry-"))) as registry:
            for preset in options.presets.split(","):
                if not (images / preset).exists():
                    make_layout(images / preset, "--preset", preset)
                push_layout(images / preset, registry.address, f"bench/{preset}")
                measure(preset, f"{registry.address}/bench/{preset}:latest", folder, options.rounds)
                bare_tar(images / preset, folder)
            shutil.rmtree(registry.folder)
    finally:
        shutil.rmtree(folder)


Costs = dict[tuple[str, str], list[Cost]]
"""By case and side."""


def measure_all(folder: Path, presets: Sequence[str], rounds: int, *, both: bool) -> Iterator[tuple[str, Costs]]:
    """Each preset, made and served for the occasion."""
    folder.mkdir(parents=True, exist_ok=True)
    with DockerRegistry(Path(tempfile.mkdtemp(prefix="orlop-registry-"))) as registry:
        for preset in presets:
            make_layout(folder / "images" / preset, "--preset", preset)
            push_layout(folder / "images" / preset, registry.address, f"bench/{preset}")
            yield preset, measure(preset, f"{registry.address}/bench/{preset}:latest", folder, rounds, both=both)
        shutil.rmtree(registry.folder)


def measure(preset: str, reference: str, folder: Path, rounds: int, *, both: bool = True) -> Costs:
    costs: Costs = {}
    for number in range(rounds):
        sides = [Containerd(folder), Orlop(folder)] if both else [Orlop(folder)]
        for side in reversed(sides) if number % 2 else sides:
            for case, cost in run_side(side, reference):
                costs.setdefault((case, side.name), []).append(cost)
    if both:
        _show(preset, costs, rounds)
    return costs


def _show(preset: str, costs: Costs, rounds: int) -> None:
    print(f"\n{preset}: median of {rounds} rounds in turns      wall s    CPU s   peak MiB   wall ratio")
    for case in CASES:
        base = median(cost.wall_s for cost in costs[case, "containerd"])
        for side in ("containerd", "orlop"):
            found = costs[case, side]
            wall = median(cost.wall_s for cost in found)
            print(
                f"  {case:18} {side:12} {wall:19.3f} {median(c.cpu_s for c in found):8.2f} "
                f"{max(c.peak_mib for c in found):10.0f} {wall / base:12.2f}",
                flush=True,
            )


def run_side(side: Orlop | Containerd, reference: str) -> Iterator[tuple[str, Cost]]:
    """Without the start of `ctr`, which has no part in the work; orlop's client runs already."""
    start = side.client_start_s()
    with side.running() as meter:
        yield "pull", meter.measure(lambda: side.pull(reference)).without(start)
        yield "again", meter.measure(lambda: side.pull(reference)).without(start)
        yield "second namespace", meter.measure(lambda: side.pull(reference, "second")).without(start)
    with side.running() as meter:
        side.pull(reference, unpack=False)
        yield "unpack only", meter.measure(lambda: side.unpack(reference)).without(side.unpack_starts * start)


def bare_tar(layout: Path, folder: Path) -> None:
    """The layers one after another, as one would by hand."""
    manifest = next(
        data["layers"]
        for data in (
            _json(path) for path in sorted((layout / "blobs" / "sha256").iterdir()) if path.stat().st_size < 65536
        )
        if data and "layers" in data
    )
    target = folder / "tar"
    target.mkdir()
    os.sync()
    began = time.perf_counter()
    for layer in manifest:
        blob = layout / "blobs" / "sha256" / layer["digest"].partition(":")[2]
        unzip = "igzip -dc" if shutil.which("igzip") else "gzip -dc"
        subprocess.run(f"{unzip} < {blob} | tar -xp -C {target} --numeric-owner", shell=True, check=True)
    print(f"  bare: igzip | tar, one layer after another {time.perf_counter() - began:8.3f}")
    shutil.rmtree(target)


def _json(path: Path) -> dict:
    import json

    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main()
