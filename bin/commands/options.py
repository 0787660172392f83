"""Arguments that several commands take, and the loop over many names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import click

from ...protocol.errors import OrlopError
from ..output import EXIT_FAILED, report

__all__ = ["for_each", "json_option", "parse_labels", "quiet_option", "snapshotter_option", "sync_fs_option"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print only the names.")

snapshotter_option = click.option(
    "--snapshotter",
    metavar="NAME",
    default="",
    envvar=["ORLOP_SNAPSHOTTER", "CONTAINERD_SNAPSHOTTER"],
    help="overlayfs, native or btrfs. Default: overlayfs where it can be mounted.",
)


sync_fs_option = click.option(
    "--sync-fs",
    is_flag=True,
    expose_value=False,
    help="Always so, and taken for the sake of scripts: what is unpacked is on the disk before it is told of.",
)


def parse_labels(items: Sequence[str]) -> dict[str, str]:
    """`k=v` sets, a bare `k` sets "true", `k=` clears."""
    labels = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key:
            raise click.UsageError(f"label {item!r} has no key; write key=value")
        labels[key] = value if equals else "true"
    return labels


async def for_each(names: Sequence[str], act: Callable[[str], Awaitable[object]]) -> None:
    """Do it for every name, and print that or the text it answers; report each failure and go on; exit with an error if
    there was one."""
    code = 0
    for name in names:
        try:
            done = await act(name)
        except OrlopError as error:
            found = report(error, "orlop")
            code = found if code in (0, found) else EXIT_FAILED
        else:
            click.echo(done if isinstance(done, str) else name)
    if code:
        raise click.exceptions.Exit(code)
