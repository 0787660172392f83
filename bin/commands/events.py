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
@click.option("--filter", "filters", multiple=True, metavar="FILTER", help="Several are alternatives.")
@json_option
@click.pass_obj
def events(session: Session, since: int | None, follow: bool, filters: tuple[str, ...], as_json: bool) -> None:
    """Print events of all namespaces, one line each: SEQ TIME NAMESPACE TOPIC PAYLOAD.

    \b
    orlop events                      # from now on
    orlop events --since 0            # all that are kept, then from now on
    orlop events --since 4711 --no-follow --json
    orlop events --filter 'namespace==ci,topic~=^/images/' --filter 'event.name~=redis'
    """

    async def run(store: Store) -> None:
        if follow:
            async with store.events.subscribe(since, filters) as stream:
                async for event in stream:
                    _show(event, as_json)
            return
        after = since or 0
        while True:
            page = await store.events.page(after, filters=filters)
            for event in page.items:
                _show(event, as_json)
            if page.next == after:
                return
            after = page.next

    session.run(run)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    payload = msgspec.json.encode(event.event).decode()
    click.echo(f"{event.sequence} {rfc3339(event.timestamp)} {event.namespace} {event.topic} {payload}")
