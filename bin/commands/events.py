"""orlop events"""

from __future__ import annotations

import click
import msgspec

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.records import Event
from ..output import print_json
from ..session import Session
from .options import json_option

__all__ = ["events"]


@click.command()
@click.option("--since", type=click.IntRange(0), metavar="SEQ", help="Begin after this event; 0: the oldest kept.")
@click.option("--follow/--no-follow", "-f", default=True, help="Go on with what happens next, until Ctrl-C.")
@json_option
@click.pass_obj
def events(session: Session, since: int | None, follow: bool, as_json: bool) -> None:
    """Print events of all namespaces, one line each: SEQ TIME NAMESPACE TOPIC PAYLOAD.

    \b
    orlop events                      # from now on
    orlop events --since 0            # all that are kept, then from now on
    orlop events --since 4711 --no-follow --json
    """

    async def run(store: Store) -> None:
        if follow:
            async with store.events.subscribe(since) as stream:
                async for event in stream:
                    _show(event, as_json)
            return
        after = since or 0
        while (page := await store.events.page(after)).items:
            for event in page.items:
                _show(event, as_json)
            after = page.next

    session.run(run)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    payload = msgspec.json.encode(event.event).decode()
    click.echo(f"{event.sequence} {rfc3339(event.timestamp)} {event.namespace} {event.topic} {payload}")
