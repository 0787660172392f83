"""What every command that lists records shares: filters, all namespaces, names only, JSON, a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec

from ...protocol.api import Store
from ..output import print_json, print_table
from ..session import Session
from .options import json_option, quiet_option

__all__ = ["ListOptions", "list_options", "print_labels", "run_list"]

R = TypeVar("R", bound=msgspec.Struct)
F = TypeVar("F", bound=Callable[..., Any])


class ListOptions(msgspec.Struct, frozen=True):
    """What was asked for on the command line."""

    filters: list[str]
    everywhere: bool
    quiet: bool
    as_json: bool


def list_options(command: F) -> F:
    """The arguments of a list; the command gets them as one ListOptions, `options`."""

    @wraps(command)  # also carries the options that were given below this one
    def gathered(
        *arguments: Any, filters: tuple[str, ...], everywhere: bool, quiet: bool, as_json: bool, **others: Any
    ) -> Any:
        return command(*arguments, options=ListOptions(list(filters), everywhere, quiet, as_json), **others)

    wrapped: Any = gathered
    for option in (
        click.argument("filters", nargs=-1, metavar="[FILTER]..."),
        click.option("--all-namespaces", "-A", "everywhere", is_flag=True, help="Of every namespace."),
        quiet_option,
        json_option,
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click keeps the type


def run_list(
    session: Session,
    options: ListOptions,
    read: Callable[[Store], AsyncIterator[R]],
    name: Callable[[R], str],
    header: Sequence[str],
    row: Callable[[Store, R], Awaitable[Sequence[str]]],
) -> None:
    """List what `read` yields. A namespace stands in front where all are listed. Names are printed as they come."""

    async def run(store: Store) -> None:
        found: list[tuple[Store, R]] = []
        for each in await _stores(store, options.everywhere):
            async for record in read(each):
                if options.quiet:
                    click.echo(f"{each.namespace} {name(record)}" if options.everywhere else name(record))
                else:
                    found.append((each, record))
        if options.as_json:
            print_json([_with_namespace(at, record) if options.everywhere else record for at, record in found])
        elif not options.quiet:
            rows = [[*([at.namespace] if options.everywhere else []), *await row(at, record)] for at, record in found]
            print_table([*(["NAMESPACE"] if options.everywhere else []), *header], rows)

    session.run(run)


def print_labels(labels: dict[str, str]) -> None:
    """The labels that came of it, sorted."""
    click.echo(",".join(f"{key}={value}" for key, value in sorted(labels.items())))


async def _stores(store: Store, everywhere: bool) -> list[Store]:
    """The store as each namespace sees it."""
    if not everywhere:
        return [store]
    return [store.in_namespace(namespace.name) async for namespace in store.namespaces.list()]


def _with_namespace(at: Store, record: msgspec.Struct) -> dict[str, Any]:
    return {"namespace": at.namespace, **msgspec.to_builtins(record)}
