"""The commands of orlop-load."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
import trio

from ...actors.failures import first_of
from ...protocol.errors import FailedPrecondition, InvalidArgument, OrlopError
from ...protocol.version import __version__
from ..output import EXIT_FAILED, fail, print_json, print_table
from .leader.running import Plan, Watcher, fill_in, run_scenario
from .leader.summary import print_summary
from .leftovers import remove_leftovers
from .result import Result, read_result, write_result
from .scenario import Scenario, find_scenario, find_text, ready_scenarios

__all__ = ["main"]

_DRIVERS = ("in-process", "unix", "tcp", "containerd")


class _Commands(click.Group):
    """An error is one line, and a hint."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OrlopError as error:
            fail(error, "orlop-load")
        except KeyboardInterrupt:
            click.echo("orlop-load: interrupted", err=True)
            sys.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orlop-load")
def main() -> None:
    """Load a store, measure honestly, compare.

    \b
    orlop-load run metadata                            a store of its own, removed afterwards
    orlop-load run ci-runner --address unix:/run/orlop/orlop.sock --json a.json --report a.html
    orlop-load compare a.json b.json
    """


@main.command()
@click.argument("scenario")
@click.option("--address", "-a", metavar="ADDRESS", default="", help="unix:PATH or tcp:HOST:PORT of a server.")
@click.option("--store", metavar="DIR", default="", help="A store's folder instead; made if it is not there.")
@click.option(
    "--driver",
    type=click.Choice(_DRIVERS),
    help="How it is spoken to. Of a folder: in-process (default), or by a daemon started for it. Of an address: as it "
    "says, or containerd.",
)
@click.option("--duration", type=click.FloatRange(0.1), metavar="S", help="Seconds of a round.")
@click.option("--warmup", type=click.FloatRange(0), metavar="S", help="Seconds before, which are not counted.")
@click.option("--seed", type=int, metavar="N", help="The same seed issues the same operations.")
@click.option("--clients", "-c", type=click.IntRange(1, 10_000), metavar="N")
@click.option("--rate", type=click.FloatRange(0), metavar="PER_S", help="Open loop: so many arrive. 0: closed loop.")
@click.option("--ramp", metavar="FROM:TO", help="Open loop at a rate that goes evenly from one to another.")
@click.option(
    "--find-rate", type=click.FloatRange(0.1), metavar="MS", help="The highest rate with p99 below so many ms."
)
@click.option("--step", type=click.FloatRange(1), default=5.0, show_default=True, metavar="S", help="Of the search.")
@click.option(
    "--connections", type=click.Choice(["shared", "own"]), help="One for all clients of a worker, or each its own."
)
@click.option("--workers", "-w", type=click.IntRange(1, 64), metavar="N", help="Client processes.")
@click.option("--rounds", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N")
@click.option("--verify", is_flag=True, help="Compare what is read, and at the end what was acknowledged.")
@click.option(
    "--kill", "kills", type=click.IntRange(0, 100), default=0, metavar="N", help="kill -9 the daemon so often."
)
@click.option("--registry", default="", metavar="HOST:PORT", help="Where {registry} in references is.")
@click.option("--run", "run_name", metavar="NAME", help="Part of all names that are made. Default: the time.")
@click.option("--label", default="", help="What this run is called in reports.")
@click.option("--json", "json_file", metavar="FILE", help="Write the result; - for standard output.")
@click.option("--report", "report_file", metavar="FILE.html", help="Write a page with plots.")
@click.option("--quiet", "-q", is_flag=True, help="Show nothing while it runs.")
def run(
    scenario: str,
    address: str,
    store: str,
    driver: str | None,
    ramp: str | None,
    find_rate: float | None,
    step: float,
    workers: int | None,
    rounds: int,
    verify: bool,
    kills: int,
    registry: str,
    run_name: str | None,
    label: str,
    json_file: str | None,
    report_file: str | None,
    quiet: bool,
    **changed: Any,
) -> None:
    """Run a scenario: a TOML file, or the name of one that comes along (`orlop-load scenarios`).

    \b
    orlop-load run metadata --duration 10
    orlop-load run gc-churn --store ./store --driver unix --verify --kill 3
    orlop-load run mine.toml --address tcp:127.0.0.1:7070 --find-rate 20 --report mine.html
    orlop-load run metadata --driver containerd --address unix:/run/containerd/containerd.sock
    """
    for path in (json_file, report_file):
        _check_writable(path)
    chosen = fill_in(_changed(find_scenario(scenario), changed), registry)
    with _folder(address, store) as folder:
        driver = _driver(driver, address, store)
        plan = Plan(
            scenario=chosen,
            driver=driver,
            address=address,
            folder=folder,
            workers=_workers(workers, driver, chosen.load.clients),
            run=run_name if run_name is not None else f"-{int(time.time()):x}-{os.getpid():x}",
            rounds=rounds,
            verify=verify,
            kills=kills,
            bound_s=(find_rate or 0.0) / 1000,
            step_s=step,
            ramp=_parse_ramp(ramp),
            label=label,
        )
        if kills and (address or driver == "in-process"):
            raise InvalidArgument(
                "only a daemon that was started for the run is killed", hint="--store DIR --driver unix"
            )
        result = _run(plan, quiet=quiet)
    if json_file == "-":
        print_json(result)
    else:
        print_summary(result)
    if json_file and json_file != "-":
        write_result(result, json_file)
    if report_file:
        _write_report([result], report_file)
    if result.verification is not None and result.verification.wrong:
        sys.exit(EXIT_FAILED)


@main.command()
@click.argument("before", metavar="A.json")
@click.argument("after", metavar="B.json")
@click.option(
    "--least", type=click.FloatRange(0), default=5.0, show_default=True, metavar="%", help="Less is no change."
)
@click.option("--report", "report_file", metavar="FILE.html", help="Write both on one page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: str, after: str, least: float, report_file: str | None, as_json: bool) -> None:
    """What changed from one run to another, and whether it is more than noise. Exits with 1 if something got worse.

    \b
    orlop-load compare before.json after.json
    orlop-load compare orlop.json containerd.json --report both.html
    """
    from .comparison import compare as compare_results
    from .comparison import describe, exit_code

    results = [read_result(before), read_result(after)]
    outcome = compare_results(*results, least=least / 100)
    if as_json:
        print_json(outcome)
    else:
        click.echo(describe(outcome))
    if report_file:
        _write_report(results, report_file)
    sys.exit(exit_code(outcome))


@main.command()
@click.argument("results", metavar="RESULT.json...", nargs=-1, required=True)
@click.option("--output", "-o", required=True, metavar="FILE.html")
def report(results: tuple[str, ...], output: str) -> None:
    """Write one page with plots, of one or several results.

    \b
    orlop-load report a.json -o a.html
    orlop-load report orlop.json containerd.json -o both.html
    """
    _write_report([read_result(path) for path in results], output)


@main.command()
@click.option("--address", "-a", metavar="ADDRESS", default="", help="unix:PATH or tcp:HOST:PORT of a server.")
@click.option("--store", metavar="DIR", default="", help="A store's folder instead.")
def clean(address: str, store: str) -> None:
    """Remove what runs have left: the namespaces that they made, with all that is in them.

    \b
    orlop-load clean --address unix:/run/orlop/orlop.sock
    orlop-load clean --store ./store
    """
    if bool(address) == bool(store):
        raise InvalidArgument("an address or a store")
    removed = trio.run(remove_leftovers, address, store)
    click.echo(f"{removed} namespaces removed")


@main.command()
@click.argument("name", required=False)
def scenarios(name: str | None) -> None:
    """Those that come along; with a name, all that one says, to copy and change.

    \b
    orlop-load scenarios
    orlop-load scenarios gc-churn > mine.toml
    """
    if name is None:
        rows = [(each.name, str(each.load.clients), each.about) for each in ready_scenarios().values()]
        print_table(("NAME", "CLIENTS", "ABOUT"), rows)
    else:
        click.echo(find_text(name), nl=False)


def _run(plan: Plan, *, quiet: bool) -> Result:
    _need_histograms()
    from .leader.live import screen

    with screen(f"{plan.scenario.name} on {plan.driver}", quiet=quiet) as watcher:
        result: Result | None = trio.run(_until_interrupted, plan, watcher)
    if result is None:
        raise KeyboardInterrupt
    return result


async def _until_interrupted(plan: Plan, watcher: Watcher) -> Result | None:
    """None: a signal came first, and what was started has ended. Raises OrlopError."""
    result: Result | None = None

    async def interrupt(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        await anext(signals)
        scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt, signals, nursery.cancel_scope)
                result = await run_scenario(plan, watcher)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_of(group) from None
    return result


def _need_histograms() -> None:
    try:
        import hdrh  # noqa: F401
    except ImportError:
        raise FailedPrecondition(
            "histograms need a library that is not installed", hint="pip install 'orlop[load]'"
        ) from None


def _changed(scenario: Scenario, changed: dict[str, Any]) -> Scenario:
    """With what the command line says instead."""
    replace = msgspec.structs.replace
    given = {name: value for name, value in changed.items() if value is not None}
    load = replace(scenario.load, **{name: given[name] for name in ("clients", "rate", "connections") if name in given})
    whole = {"duration": "duration_s", "warmup": "warmup_s", "seed": "seed"}
    return replace(scenario, load=load, **{field: given[name] for name, field in whole.items() if name in given})


@contextmanager
def _folder(address: str, store: str) -> Iterator[str]:
    """The store's folder: none, the one that was named, or one for this run alone."""
    if address and store:
        raise InvalidArgument("an address or a store, not both")
    if address or store:
        yield os.path.abspath(store) if store else ""
        return
    folder = tempfile.mkdtemp(prefix="orlop-load-")
    try:
        yield os.path.join(folder, "store")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _driver(named: str | None, address: str, store: str) -> str:
    if address:
        of_address = address.partition(":")[0]
        if named not in (None, of_address, "containerd"):
            raise InvalidArgument(f"driver {named} does not go with the address {address}")
        return named or of_address
    if named == "containerd":
        raise InvalidArgument("containerd runs already", hint="give its socket: --address unix:PATH")
    return named or ("in-process" if store else "unix")


def _workers(count: int | None, driver: str, clients: int) -> int:
    if driver == "in-process":
        if count not in (None, 1):
            raise InvalidArgument("a store in process has one process")
        return 1
    return min(count or 1, clients)


def _parse_ramp(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        first, last = (float(each) for each in text.split(":"))
    except ValueError:
        raise InvalidArgument(f"ramp {text!r}", hint="write FROM:TO, operations per second") from None
    if first <= 0 or last <= 0:
        raise InvalidArgument(f"ramp {text!r}: rates are above 0")
    return first, last


def _check_writable(path: str | None) -> None:
    """Before a run, not after it. Raises InvalidArgument."""
    if not path or path == "-":
        return
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


def _write_report(results: list[Result], path: str) -> None:
    from .report import render

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(render(results))
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
