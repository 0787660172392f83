"""What an export lacks, brought from where it came: every repository that its labels name, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..protocol.api import Store
from ..protocol.archives.exporting import Missing
from ..protocol.errors import InvalidArgument, NotFound, OrlopError
from ..protocol.messages import FetchBlobs, RegistryAccess, TransferProgress

__all__ = ["fetch_missing"]

_MOST_SOURCES: Final = 32  # of one object; a label has room for hundreds
_MOST_FAILURES: Final = 3  # in a row, of which none is "not found": such a host is not asked for the rest
_MOST_NAMED: Final = 4
_SHOWN_CHARS: Final = 1000
Access = Callable[[str], RegistryAccess]
Told = Callable[[TransferProgress], None]


class _Failure(NamedTuple):
    source: str
    error: OrlopError


async def fetch_missing(store: Store, missing: Sequence[Missing], access: Access, told: Told) -> None:
    """Have all of these here. A source that has one of them not, or does not answer, costs that one the next.

    Raises NotFound (nobody says where it came from; all sources say they have it not), what else the first source says
    that says something else, and InvalidArgument (how a registry is to be spoken to) at once. Each error of an object
    names the sources that were asked. Cancellation: what came stays, unfinished ingests too.
    """
    failures: dict[str, list[_Failure]] = {each.descriptor.digest: [] for each in missing}
    waiting = list(missing)
    while waiting:
        by_source: dict[str, list[Missing]] = {}
        for each in waiting:
            done = failures[each.descriptor.digest]
            if len(done) == min(len(each.sources), _MOST_SOURCES):
                raise _refusal(each, done)
            by_source.setdefault(each.sources[len(done)], []).append(each)
        waiting = []
        for source, wanted in by_source.items():
            for each, failure in await _fetch_from(store, source, wanted, access(source), told):
                failures[each.descriptor.digest].append(failure)
                waiting.append(each)


async def _fetch_from(
    store: Store, source: str, wanted: Sequence[Missing], access: RegistryAccess, told: Told
) -> list[tuple[Missing, _Failure]]:
    """Those that did not come, and why. All at once if that can be; else one by one, as one that the source has not
    ends what is under way."""
    try:
        await store.fetch(FetchBlobs(source, [each.descriptor for each in wanted], access), told)
    except InvalidArgument:
        raise
    except OrlopError as error:
        if len(wanted) == 1:
            return [(wanted[0], _Failure(source, error))]
    else:
        return []
    failed: list[tuple[Missing, _Failure]] = []
    in_a_row = 0
    given_up: OrlopError | None = None
    for each in wanted:
        if await store.content.has(each.descriptor.digest):
            continue
        if given_up is not None:
            failed.append((each, _Failure(source, given_up)))
            continue
        try:
            await store.fetch(FetchBlobs(source, [each.descriptor], access), told)
        except OrlopError as error:
            failed.append((each, _Failure(source, error)))
            in_a_row = 0 if isinstance(error, NotFound) else in_a_row + 1
            given_up = error if in_a_row == _MOST_FAILURES else None
        else:
            in_a_row = 0
    return failed


def _refusal(missing: Missing, failures: Sequence[_Failure]) -> OrlopError:
    if not failures:
        return NotFound(missing.what, hint="nobody says where it came from; --missing=skip leaves it out")
    told = [each.error for each in failures]
    kind = type(next((each for each in told if not isinstance(each, NotFound)), told[0]))
    asked = "; ".join(f"{each.source}: {_reason(missing, each.error)}" for each in failures)
    asked = asked if len(asked) <= _SHOWN_CHARS else f"{asked[:_SHOWN_CHARS]}…"
    more = len(missing.sources) - len(failures)
    hint = asked + (f"; and {more} more were not" if more else "")
    return kind(f"{missing.what}, asked of {_names([each.source for each in failures])}", hint=hint)


def _reason(missing: Missing, error: OrlopError) -> str:
    """Without the object's name, which has been said."""
    return error.message.removeprefix(missing.object).lstrip(" :")


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
