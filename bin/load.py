"""orlop-load: closed-loop load on a store, with honest latencies."""

from __future__ import annotations

import click
import trio

from ..protocol.api import Store
from ..protocol.errors import OrlopError
from ..protocol.records import Descriptor
from ..protocol.version import __version__
from .embed import connect
from .output import fail, print_json, print_table

__all__ = ["main"]

_TARGET = Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 1234)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("workload", type=click.Choice(["creates", "gets"]))
@click.option("--address", "-a", required=True, metavar="ADDRESS", help="unix:PATH or tcp:HOST:PORT.")
@click.option("--namespace", "-n", default="load", show_default=True)
@click.option("--callers", "-c", type=click.IntRange(1, 500), default=64, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.version_option(__version__, prog_name="orlop-load")
def main(workload: str, address: str, namespace: str, callers: int, seconds: float, as_json: bool) -> None:
    """Load a server with callers that each wait for their answer, and print rate and latencies.

    \b
    orlop-load creates --address unix:/run/orlop/orlop.sock --callers 64
    orlop-load gets --address tcp:127.0.0.1:7070 --callers 8 --json
    """
    try:
        latencies = trio.run(_load, workload, address, namespace, callers, seconds)
    except OrlopError as error:
        fail(error, "orlop-load")
    latencies.sort()
    result = {
        "workload": workload,
        "callers": callers,
        "calls": len(latencies),
        "rate": round(len(latencies) / seconds, 1),
        "p50_ms": round(_at(latencies, 0.5) * 1000, 3),
        "p99_ms": round(_at(latencies, 0.99) * 1000, 3),
        "p999_ms": round(_at(latencies, 0.999) * 1000, 3),
        "max_ms": round(latencies[-1] * 1000, 3) if latencies else 0.0,
    }
    if as_json:
        print_json(result)
    else:
        print_table([key.upper() for key in result], [[str(value) for value in result.values()]])


async def _load(workload: str, address: str, namespace: str, callers: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    async with connect(address, namespace=namespace) as store:
        run = trio.current_time()
        if workload == "gets":
            await _ensure_image(store, "load-target")
        async with trio.open_nursery() as nursery:
            for caller in range(callers):
                nursery.start_soon(_call, store, workload, f"{run}-{caller}", seconds, latencies)
    return latencies


async def _call(store: Store, workload: str, prefix: str, seconds: float, latencies: list[float]) -> None:
    end = trio.current_time() + seconds
    made = 0
    while (began := trio.current_time()) < end:
        if workload == "creates":
            made += 1
            await store.images.create(f"load/{prefix}-{made}", _TARGET)
        else:
            await store.images.get("load-target")
        latencies.append(trio.current_time() - began)


async def _ensure_image(store: Store, name: str) -> None:
    try:
        await store.images.create(name, _TARGET)
    except OrlopError:
        await store.images.get(name)


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
