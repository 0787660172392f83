"""A full walk over what is held, for those who check the counters."""

from __future__ import annotations

from collections import defaultdict

from .. import keys
from ..codec import read_record
from ..engine import Kind, Reader
from ..usage import STORE, BytesHeld
from .kinds import KIND_OF, decode_record, size_of
from .state import decode_states, is_dead

__all__ = ["walk_usage"]

_AT_ONCE = 500


async def walk_usage(reader: Reader) -> dict[str, BytesHeld]:
    """Bytes held by every namespace, and by the store under its empty name; in memory that follows the store's size."""
    holders: dict[tuple[Kind, object], list[tuple[str, int]]] = defaultdict(list)
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    totals[STORE] = [0, 0, 0, 0]
    after = keys.RECORDS
    while True:
        page = await reader.scan(after, keys.prefix_end(keys.RECORDS), _AT_ONCE)
        for key, value in page:
            name_of_space, _, rest = key[len(keys.RECORDS) :].partition(b"\x00")
            namespace, kind, name = name_of_space.decode(), KIND_OF[rest[:1]], rest[1:].decode()
            totals[namespace]
            measure = size_of(kind)
            if measure is None or decode_record(kind, await read_record(reader, key, value)) is None:
                continue
            size = await measure(reader, namespace, name)
            what: object = name
            if kind is Kind.SNAPSHOT:
                what = await reader.get(keys.snapshot_id(namespace, name))
            holders[kind, what].append((namespace, size))
            totals[namespace][0 if kind is Kind.CONTENT else 1] += size
            if is_dead(*decode_states(await reader.get(keys.state(namespace, rest[:1], name)))):
                totals[namespace][3] += size
        if len(page) < _AT_ONCE:
            break
        after = page[-1][0] + b"\x00"
    for (kind, _), held in holders.items():
        totals[STORE][0 if kind is Kind.CONTENT else 1] += held[0][1]
        if len(held) == 1:
            totals[held[0][0]][2] += held[0][1]
    return {name: BytesHeld(*each) for name, each in totals.items()}
