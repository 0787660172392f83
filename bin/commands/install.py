"""orlop install"""

from __future__ import annotations

import os

import click

from ...protocol.api import Store
from ...protocol.errors import FailedPrecondition
from ..embed import host_platform
from ..output import print_json, visible
from ..session import Session
from ..world import real_world
from .names import resolve_name
from .options import json_option
from .progress import open_display

__all__ = ["install"]


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("--path", type=click.Path(), metavar="DIR", help="Where to. Default: what the server says.")
@click.option("--libs", "-l", is_flag=True, help="Also what is in lib.")
@click.option("--replace", "-r", is_flag=True, help="Also where there is a file of that name.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_obj
def install(
    session: Session, name: str, path: str | None, libs: bool, replace: bool, quiet: bool, as_json: bool
) -> None:
    """Put an image's programs, what is right inside its bin, into DIR/bin; with --libs also lib into DIR/lib.

    They come straight from the layers for this machine, with their modes, and their owners where we may give files
    away. Nothing is installed unless all of it can be; each file appears whole. Prints what was installed.

    \b
    orlop install --path /opt/tools registry.example/team/tools:1
    orlop install --libs --replace registry.example/team/tools:2
    """

    from ..installing import install_image  # which loads what unpacks

    async def run(store: Store) -> None:
        target = os.path.abspath(path or await _exported(store))
        literal = await resolve_name(store, name)
        with open_display(quiet or as_json) as display:
            done = await install_image(
                store, literal, target, real_world(), host_platform(), libs=libs, replace=replace, told=display.show
            )
            display.notes += done.notes
        if as_json:
            print_json({"path": target, "installed": done.names})
            return
        for each in done.names:
            click.echo(visible(os.path.join(target, each)))

    session.run(run)


async def _exported(store: Store) -> str:
    """The folder that the store's settings name."""
    for plugin in await store.plugins(["type==io.orlop.opt.v1"]):
        if found := plugin.exports.get("path"):
            return found
    raise FailedPrecondition(
        "the server does not say where to install", hint="give --path DIR, or set install_path in its settings"
    )
