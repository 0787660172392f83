"""Where everything lies: the only module that builds keys.

Every key starts with the schema's version (one byte) and a region (one byte):

    01 c <counter>                         counters and marks that every transaction rewrites; never scanned
    01 d <round> <phase> <number>          the collector's queue. Whatever is worked off leaves traces that slow down
                                           looks into the region before it; before this one lie the counters
    01 n <namespace>                       Namespace
    01 r <namespace> 00 <kind> <name>      records of a namespace, by kind and name
         b digest        ContentInfo
         i name          Image
         k id            Container
         l id            Lease
         s id            Sandbox
         w ref           ingest
         x name          snapshot, by `snapshotter/key`
    01 s <namespace> 00 <lease> <created> 01 <type> <id>
                                           entries of one life of a lease (names before others are escaped); of an
                                           id that makes it too long the SHA-256, and the id in the value
    01 p <record's key> <part>             further parts of a record over 64 KiB
    01 S <namespace>                       namespaces whose content others may adopt
    01 g <namespace> 00 <name>             the backend's id of a snapshot
    01 h <namespace> 00 <SHA-256 of parent> 01 <child>
                                           snapshots that have another as their parent
    01 V <id>                              the backend's snapshot: parent, holders, children
    01 W <id>                              backend snapshots that are being made
    01 X <id>                              backend snapshots that nobody holds
    01 Y <digest>                          backend snapshots that orlop unpacked, by what they were made of
    01 B <digest>                          the backend's blob: size, generation, holders
    01 D <digest>                          bytes of a small blob
    01 H <digest> 00 <namespace>           namespaces that have a record of a blob
    01 I <id> <namespace>                  namespaces that have a record of a backend's snapshot
    01 U <digest>                          blobs that no namespace holds
    01 q <number>                          queue: files to unlink
    01 Z <number>                          folders that could not be removed, to be tried again
    01 o <number>                          queue: owed work, edges and entries to put right
    01 e <namespace> 00 <target> <edge> <kind> <owner>
                                           edges, at the end that is referred to
    01 e <namespace> 00 <target> ~         what the collector knows of an object: its witness, its place in the queue;
                                           behind its edges, so that a look for these ends here, and not far behind
                                           where others' were deleted
    01 f <namespace> 00 <source> <kind> <object>
                                           back references, at the end that keeps the object
    01 k <round>                           rounds that wait in the bin
    01 t <time> <namespace> 00 <kind> <name>
                                           instants at which something expires, or a condition switches
    01 u <time> <namespace> 00 <name>      images that were deleted and may be brought back
    01 j <sequence>                        journal

Namespaces are identifiers and hold no NUL; a name stands last, so any byte may be in it. A change of this
layout needs a new format version and a migration.
"""

from __future__ import annotations

__all__ = ["RecordKind", "prefix_end"]

from enum import Enum
from functools import lru_cache
from hashlib import sha256

_V = b"\x01"


class RecordKind(Enum):
    CONTENT = b"b"
    IMAGE = b"i"
    CONTAINER = b"k"
    LEASE = b"l"
    SANDBOX = b"s"
    INGEST = b"w"
    SNAPSHOT = b"x"
    STREAM = b"t"
    MOUNT = b"m"


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that start with `prefix` (whose last byte is below 0xff)."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


HOT_REGIONS = frozenset((b"c", b"n"))
"""Counters and namespaces: few keys, which nearly every transaction reads."""

# counters ---------------------------------------------------------------------------------------------------
FORMAT = _V + b"cformat"
STORE_ID = _V + b"cstore"
COMMIT = _V + b"ccommit"
JOURNAL_HEAD = _V + b"cjournal.head"
JOURNAL_FLOOR = _V + b"cjournal.floor"
GENERATION = _V + b"cgeneration"
QUEUE_HEAD = _V + b"cqueue.head"
QUEUE_FLOOR = _V + b"cqueue.floor"
OWED_HEAD = _V + b"cowed.head"
OWED_FLOOR = _V + b"cowed.floor"
CLOCK = _V + b"cgc"
REBUILT = _V + b"crebuilt"
UNHELD_COUNT = _V + b"cunheld"
GRACE = _V + b"cgc.grace"


@lru_cache(4096)
def count(namespace: str, kind: bytes) -> bytes:
    return _V + b"c#" + namespace.encode() + b"\x00" + kind


# records ----------------------------------------------------------------------------------------------------
NAMESPACES = _V + b"n"
RECORDS = _V + b"r"


def namespace(name: str) -> bytes:
    return NAMESPACES + name.encode()


@lru_cache(4096)
def records(name: str, kind: bytes) -> bytes:
    """What every record of a kind in a namespace begins with. Remembered: every read and write needs it."""
    return b"%br%b\x00%b" % (_V, name.encode(), kind)


def part(record_key: bytes, index: int) -> bytes:
    return _V + b"p" + record_key + index.to_bytes(2, "big")


def lease_entries(namespace: str, lease: str, created_at: int) -> bytes:
    """Ends in 01, so `prefix_end` works."""
    return b"%bs%b\x00%b%b\x01" % (_V, namespace.encode(), _escape(lease), number(created_at))


def lease_of(prefix: bytes) -> tuple[str, str]:
    """Namespace and lease of what `lease_entries` made."""
    namespace, _, rest = prefix[2:].partition(b"\x00")
    return namespace.decode(), unescape(rest)[0]


def lease_entry(resource_type: str, resource_id: str) -> bytes:
    """What follows the prefix of a lease's entries."""
    return _escape(resource_type) + resource_id.encode()


def long_lease_entry(resource_type: str, resource_id: str) -> bytes:
    """The same where lease and resource have names that are too long together: the entry's value tells the id."""
    return _escape(resource_type) + sha256(resource_id.encode()).digest()


def _escape(text: str) -> bytes:
    """Ends in 00 01, so that no escaped text is a prefix of another and the order stays that of the text."""
    return text.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x01"


def unescape(data: bytes) -> tuple[str, bytes]:
    """The text that `_escape` wrote at the start of `data`, and what follows it."""
    end = data.index(b"\x00\x01")
    return data[:end].replace(b"\x00\xff", b"\x00").decode(), data[end + 2 :]


def snapshot_id(namespace: str, name: str) -> bytes:
    return b"%bg%b\x00%b" % (_V, namespace.encode(), name.encode())


def snapshot_children(namespace: str, parent: str) -> bytes:
    """Ends in 01, so `prefix_end` works."""
    return b"%bh%b\x00%b\x01" % (_V, namespace.encode(), sha256(parent.encode()).digest())


SHAREABLE = _V + b"S"


def shareable(name: str) -> bytes:
    return SHAREABLE + name.encode()


# collection -------------------------------------------------------------------------------------------------
EDGES = _V + b"e"
BACK_EDGES = _V + b"f"
STATE_MARK = b"~"
QUEUE = _V + b"d"
BINS = _V + b"k"
TIMES = _V + b"t"
DELETED_IMAGES = _V + b"u"

_LONGEST_TARGET = 400
_LONGEST_OWNER = 512
_HASH_BYTES = 32


def _target(kind: bytes, name: str) -> bytes:
    """An object's kind and name where more follows; of a name that is too long the SHA-256."""
    escaped = _escape(name)
    if len(escaped) > _LONGEST_TARGET:
        return kind + b"\x00\x02" + sha256(name.encode()).digest()
    return kind + escaped


def edges_to(namespace: str, kind: bytes, name: str) -> bytes:
    """What the keys of every edge to an object begin with; one byte with the edge's kind follows."""
    return b"%be%b\x00%b" % (_V, namespace.encode(), _target(kind, name))


def back_edges_from(namespace: str, kind: bytes, name: str) -> bytes:
    return b"%bf%b\x00%b" % (_V, namespace.encode(), _target(kind, name))


@lru_cache(4096)
def back_count(namespace: str) -> bytes:
    """How many back references a namespace has."""
    return count(namespace, b"\x01b")


def owner(kind: bytes, name: str) -> tuple[bytes, bytes]:
    """The end of an edge's key, and what of it did not fit there: the name, of which the SHA-256 stands in the key."""
    encoded = name.encode()
    if len(encoded) > _LONGEST_OWNER:
        return kind + b"\x00" + sha256(encoded).digest(), encoded
    return kind + b"\x01" + encoded, b""


def edges_in(namespace: str) -> bytes:
    """What the keys of all edges and states in a namespace begin with."""
    return b"%be%b\x00" % (_V, namespace.encode())


def state(namespace: str, kind: bytes, name: str) -> bytes:
    return edges_to(namespace, kind, name) + STATE_MARK


def is_hashed(name: str) -> bool:
    """Whether a name is so long that keys tell its hash only."""
    return len(name) * 4 + 2 > _LONGEST_TARGET and len(_escape(name)) > _LONGEST_TARGET


def about(key: bytes) -> tuple[str, bytes, str | None, bytes]:
    """Namespace, kind and name (None: hashed) of the object to which a key of edges, back edges or states belongs, and
    what follows them. Raises ValueError, IndexError for what is no such key."""
    space, _, rest = key[2:].partition(b"\x00")
    kind, rest = rest[:1], rest[1:]
    if rest.startswith(b"\x00\x02"):
        return space.decode(), kind, None, rest[2 + _HASH_BYTES :]
    name, end = unescape(rest)
    return space.decode(), kind, name, end


def queued(round_: int, phase: int, sequence: int) -> bytes:
    return b"%b%b%c%b" % (QUEUE, number(round_), phase, number(sequence))


QUEUE_EXTENTS = _V + b"c@"


def queue_extent(round_: int, phase: int) -> bytes:
    """How many entries a phase has, and before which number there is none: among what every transaction rewrites."""
    return b"%b%b%c" % (QUEUE_EXTENTS, number(round_), phase)


def queue_phase(round_: int, phase: int) -> bytes:
    return b"%b%b%c" % (QUEUE, number(round_), phase)


def bin_round(round_: int) -> bytes:
    return BINS + number(round_)


def instant(at_ns: int) -> bytes:
    """What the keys of an instant begin with; there is none before 1970."""
    return TIMES + number(min(max(at_ns, 0), 2**64 - 1))


def instant_of(at_ns: int, namespace: str, kind: bytes, name: str) -> bytes:
    return b"%b%b\x00%b%b" % (instant(at_ns), namespace.encode(), kind, name.encode())


def deleted_image(at_ns: int, namespace: str, name: str) -> bytes:
    return b"%b%b%b\x00%b" % (DELETED_IMAGES, number(max(at_ns, 0)), namespace.encode(), name.encode())


# backend ----------------------------------------------------------------------------------------------------
BLOBS = _V + b"B"
UNHELD = _V + b"U"
REMOVALS = _V + b"q"
OWED = _V + b"o"
JOURNAL = _V + b"j"


def blob(digest: str) -> bytes:
    return BLOBS + digest.encode()


def small_bytes(digest: str) -> bytes:
    return _V + b"D" + digest.encode()


HOLDERS = (_V + b"H", _V + b"I")


def blob_holders(digest: str) -> bytes:
    """What the keys of a blob's holders begin with; a namespace's name follows."""
    return _V + b"H" + digest.encode() + b"\x00"


def snapshot_holders(snapshot_id: int) -> bytes:
    return _V + b"I" + number(snapshot_id)


def unheld(digest: str) -> bytes:
    return UNHELD + digest.encode()


BACKEND_SNAPSHOTS = _V + b"V"
UNFINISHED_SNAPSHOTS = _V + b"W"
UNHELD_SNAPSHOTS = _V + b"X"


def backend_snapshot(snapshot_id: int) -> bytes:
    return BACKEND_SNAPSHOTS + number(snapshot_id)


def unfinished_snapshot(snapshot_id: int) -> bytes:
    return UNFINISHED_SNAPSHOTS + number(snapshot_id)


def unheld_snapshot(snapshot_id: int) -> bytes:
    return UNHELD_SNAPSHOTS + number(snapshot_id)


def unpacked(origin: bytes) -> bytes:
    return _V + b"Y" + origin


def removal(position: int) -> bytes:
    return REMOVALS + number(position)


ASIDE = _V + b"Z"


def aside(position: int) -> bytes:
    return ASIDE + number(position)


def owed(position: int) -> bytes:
    return OWED + number(position)


def event(sequence: int) -> bytes:
    return JOURNAL + number(sequence)
