"""orlop version"""

from __future__ import annotations

import click

from ...protocol.api import Store
from ...protocol.version import PROTOCOL_VERSION, STORE_FORMAT, __version__
from ..output import print_json
from ..session import Session
from .options import json_option

__all__ = ["__version__", "version"]


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Do not ask the store.")
@json_option
@click.pass_obj
def version(session: Session, client_only: bool, as_json: bool) -> None:
    """The versions of this program and of the store it speaks to.

    A store's folder is not opened for this; only a server is asked.

    \b
    orlop version
    """
    client = {"version": __version__, "protocol": PROTOCOL_VERSION, "store_format": STORE_FORMAT}
    if not as_json:
        click.echo(f"Client:\n  Version: {__version__}\n  Protocol: {PROTOCOL_VERSION}\n  Store format: {STORE_FORMAT}")
    if client_only or session.address is None:
        if as_json:
            print_json({"client": client})
        return

    async def ask(store: Store) -> None:
        welcome = store.welcome()
        if as_json:
            print_json({"client": client, "server": welcome})
            return
        click.echo(f"\nServer:\n  Version: {welcome.server}\n  Store: {welcome.store}\n  PID: {welcome.pid}")

    session.run(ask)
