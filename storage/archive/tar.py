"""Reading tar: every dialect that layers come in (V7, ustar, GNU, PAX, sparse files), from a stream of chunks.

One pass, no seeks, no copies of file contents. Source: POSIX pax; GNU tar's documented formats; spec unpack 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from zlib import adler32

from ...protocol.errors import DataLoss, InvalidArgument

__all__ = ["BLOCK", "Entry", "TarReader"]

BLOCK: Final = 512
_ZERO: Final = bytes(BLOCK)
_ADLER: Final = 65521
_MAX_EXTENDED: Final = 1024 * 1024  # of a PAX header or a long name
_EXTENDED: Final = frozenset((b"x", b"g", b"L", b"K"))
_MOST_REMEMBERED: Final = 4096
_MAX_SPARSE: Final = 100_000  # pieces of one file
_NS: Final = 1_000_000_000
_MAX_FILE: Final = 2**63 - 1

Piece = tuple[int, int]


class Entry:
    """One member. `name` and `link` are bytes as they stand; times are nanoseconds, `None` where none was given.

    `sparse`: (offset, length) of the pieces whose bytes follow; `size` is the file's own, holes included.
    `xattrs`: names are text, values bytes, as PAX carries them.
    """

    __slots__ = (
        "atime_ns", "gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "size", "sparse", "stored",
        "uid", "xattrs",
    )  # fmt: skip

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    atime_ns: int | None
    link: bytes
    major: int
    minor: int
    sparse: list[Piece] | None
    xattrs: dict[str, bytes] | None


class TarReader:
    """Entries of a stream. After each, its content is read with `pieces`, or skipped by asking for the next.

    Raises InvalidArgument for what is no tar, DataLoss where the stream ends too soon.
    """

    def __init__(self, read_chunk: Callable[[], bytes]) -> None:
        self._read_chunk = read_chunk
        self._chunk = b""
        self._at = 0
        self._left = 0  # stored bytes of the current entry that were not taken
        self._padding = 0
        self._numbers: dict[bytes, int] = {}
        self._sums: dict[bytes, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry; None at the end marker, or where the stream ends between two entries."""
        pax: dict[str, bytes] | None = None
        long_name: bytes | None = None
        long_link: bytes | None = None
        extended = 0
        while True:
            if self._left or self._padding:
                at = self._at + self._left + self._padding
                if at <= len(self._chunk):  # spelled out: small files are what most layers are made of
                    self._at = at
                    self._left = self._padding = 0
                else:
                    self._skip()
            header = self._header()
            if header is None:
                if pax or long_name or long_link:
                    raise DataLoss("the layer ends after an extended header")
                return None
            kind = header[156:157]
            field = header[124:136]
            size = self._numbers.get(field, -1)
            if size < 0:
                size = self._number(field)
            if size < 0:
                raise InvalidArgument("a tar entry has a negative size")
            if kind in _EXTENDED:
                extended += size + BLOCK
                if extended > _MAX_EXTENDED:
                    raise InvalidArgument(f"an entry's extended headers have more than {_MAX_EXTENDED} bytes")
                data = self._extended(size)
                if kind == b"x":
                    pax = _records(data) if pax is None else {**pax, **_records(data)}
                elif kind == b"L":
                    long_name = data.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = data.partition(b"\0")[0]
                # A global header changes nothing here: spec unpack 5.3.
                continue
            return self._entry(header, kind, size, pax, long_name, long_link)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The stored bytes of the current entry, as they come."""
        while self._left:
            available = len(self._chunk) - self._at
            if not available:
                self._fill("in the content of a file")
                continue
            if available >= self._left:
                view = memoryview(self._chunk)[self._at : self._at + self._left]
                self._at += self._left
                self._left = 0
            else:
                view = memoryview(self._chunk)[self._at :]
                self._at = len(self._chunk)
                self._left -= available
            yield view

    def whole(self) -> memoryview | None:
        """All the stored bytes of the current entry, if they are at hand."""
        at, end = self._at, self._at + self._left
        if end > len(self._chunk):
            return None
        self._at = end
        self._left = 0
        return memoryview(self._chunk)[at:end]

    def take(self, count: int) -> bytes:
        """Exactly `count` of the stored bytes."""
        found = bytearray()
        while len(found) < count:
            if not self._left:
                raise DataLoss("a sparse file's map is cut short")
            if self._at == len(self._chunk):
                self._fill("in the content of a file")
            piece = self._chunk[self._at : self._at + min(self._left, count - len(found))]
            found += piece
            self._at += len(piece)
            self._left -= len(piece)
        return bytes(found)

    # headers

    def _header(self) -> bytes | None:
        at = self._at
        header = self._chunk[at : at + BLOCK]
        if len(header) == BLOCK:
            self._at = at + BLOCK
        else:
            header = self._gather(BLOCK)
            if not header:
                return None  # no end marker: fine
            if len(header) < BLOCK:
                if not header.strip(b"\0"):
                    return None
                raise DataLoss("the layer ends in the middle of a header")
        field = header[148:156]
        # Adler's lower half is one more than the sum of the bytes: a hundred times faster than adding them up here.
        expected = self._sums.get(field)
        if expected is None:
            expected = self._expected_sum(field)
        if expected != adler32(header) & 0xFFFF:
            stored = self._number(field)
            if header == _ZERO:
                if self._gather(BLOCK).strip(b"\0"):
                    raise InvalidArgument("the layer has entries behind a lone block of zeros")
                return None
            signed = sum(b - 256 if b > 127 else b for b in header[:148] + header[156:]) + 256
            if stored != signed:
                raise InvalidArgument("the layer is not a tar archive, or a header is damaged: its checksum is wrong")
        return header

    def _expected_sum(self, field: bytes) -> int:
        """Of the lower half of a header's Adler-32, by what its checksum says; remembered, as sums come again."""
        if len(self._sums) > _MOST_REMEMBERED:
            self._sums.clear()
        expected = self._sums[field] = (self._number(field) - 256 + sum(field) + 1) % _ADLER
        return expected

    def _entry(
        self,
        header: bytes,
        kind: bytes,
        size: int,
        pax: dict[str, bytes] | None,
        long_name: bytes | None,
        long_link: bytes | None,
    ) -> Entry:
        known, number = self._numbers.get, self._number
        entry = Entry()
        name = header[:100].partition(b"\0")[0]
        if header[345] and header[257:263] == b"ustar\0":  # GNU keeps other things there
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        entry.name = name if long_name is None else long_name
        entry.kind = b"0" if kind == b"\0" else kind
        # Looked up before anything is called: the same modes, owners and times come again and again.
        mode, uid, gid, time = header[100:108], header[108:116], header[116:124], header[136:148]
        value = known(mode)
        entry.mode = number(mode) if value is None else value
        value = known(uid)
        entry.uid = number(uid) if value is None else value
        value = known(gid)
        entry.gid = number(gid) if value is None else value
        value = known(time)
        entry.mtime_ns = (number(time) if value is None else value) * _NS
        entry.atime_ns = None
        if long_link is not None:
            entry.link = long_link
        elif header[157]:
            entry.link = header[157:257].partition(b"\0")[0]
        else:
            entry.link = b""
        entry.major = entry.minor = 0
        if kind in b"34":
            entry.major, entry.minor = number(header[329:337]), number(header[337:345])
        entry.sparse = None
        entry.xattrs = None
        entry.size = size
        if pax:
            self._apply_pax(entry, pax)
            size = entry.size
        if kind == b"\0" and entry.name.endswith(b"/"):
            entry.kind = b"5"  # as old archives write folders
        entry.stored = 0 if entry.kind in b"123456" else size
        self._left = entry.stored
        self._padding = -entry.stored % BLOCK
        if kind == b"S":
            self._old_sparse(entry, header)
        elif pax and any(key.startswith("GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax)
        return entry

    def _apply_pax(self, entry: Entry, pax: dict[str, bytes]) -> None:
        for key, value in pax.items():
            if key == "path":
                entry.name = value
            elif key == "linkpath":
                entry.link = value
            elif key == "size":
                entry.size = _decimal(key, value)
            elif key == "uid":
                entry.uid = _decimal(key, value)
            elif key == "gid":
                entry.gid = _decimal(key, value)
            elif key == "mtime":
                entry.mtime_ns = _time(key, value)
            elif key == "atime":
                entry.atime_ns = _time(key, value)
            elif key.startswith("SCHILY.xattr."):
                if entry.xattrs is None:
                    entry.xattrs = {}
                entry.xattrs[key[13:]] = value
        if entry.size < 0:
            raise InvalidArgument("a tar entry has a negative size")

    def _old_sparse(self, entry: Entry, header: bytes) -> None:
        """GNU's own type: four pieces in the header, more in blocks behind it."""
        pieces: list[Piece] = []
        at, count, more = 386, 4, header[482]
        block = header
        while True:
            for index in range(count):
                start = at + 24 * index
                if not block[start]:
                    break
                pieces.append((self._number(block[start : start + 12]), self._number(block[start + 12 : start + 24])))
            if not more:
                break
            if len(pieces) > _MAX_SPARSE:
                raise InvalidArgument(f"a sparse file of more than {_MAX_SPARSE} pieces")
            block = self._gather(BLOCK)
            if len(block) < BLOCK:
                raise DataLoss("the layer ends in the map of a sparse file")
            at, count, more = 0, 21, block[504]
        entry.size = self._number(header[483:495])
        entry.kind = b"0"
        self._check_sparse(entry, pieces)

    def _pax_sparse(self, entry: Entry, pax: dict[str, bytes]) -> None:
        """The three formats that GNU tar writes in PAX records."""
        if name := pax.get("GNU.sparse.name"):
            entry.name = name
        size = pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size")
        if size is None:
            return
        entry.size = _decimal("GNU.sparse.size", size)
        if pax.get("GNU.sparse.major") == b"1":
            numbers = self._map_in_data()
        elif "GNU.sparse.map" in pax:
            text = pax["GNU.sparse.map"]
            numbers = [_decimal("GNU.sparse.map", part) for part in text.split(b",")] if text else []
        else:
            return
        self._check_sparse(entry, list(zip(numbers[::2], numbers[1::2], strict=False)))

    def _map_in_data(self) -> list[int]:
        """Format 1.0: the map stands in front of the data, decimal lines padded to blocks."""
        text = b""
        wanted = 1
        while text.count(b"\n") < wanted:
            if len(text) > _MAX_EXTENDED:
                raise InvalidArgument("a sparse file's map is too long")
            text += self.take(BLOCK)
            if wanted == 1 and b"\n" in text:
                wanted = 1 + 2 * _decimal("GNU.sparse map", text.partition(b"\n")[0])
                if wanted > 2 * _MAX_SPARSE:
                    raise InvalidArgument(f"a sparse file of more than {_MAX_SPARSE} pieces")
        return [_decimal("GNU.sparse map", line) for line in text.split(b"\n")[1:wanted]]

    def _check_sparse(self, entry: Entry, pieces: list[Piece]) -> None:
        end = 0
        for offset, length in pieces:
            if offset < end or length < 0:
                raise InvalidArgument("a sparse file's pieces overlap or stand in a wrong order")
            end = offset + length
        if entry.size > _MAX_FILE:
            raise InvalidArgument(f"a sparse file of {entry.size} bytes")
        if end > entry.size or sum(length for _, length in pieces) != self._left:
            raise InvalidArgument("a sparse file's map does not fit its size")
        entry.sparse = pieces

    def _number(self, field: bytes) -> int:
        """Octal text, or base 256. Remembered: the same modes and owners come again and again."""
        known = self._numbers.get(field)
        if known is not None:
            return known
        if field[0] & 0x80:
            value = int.from_bytes(field, "big", signed=True)
            if field[0] != 0xFF:
                value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        else:
            text = field.partition(b"\0")[0].strip()
            try:
                value = int(text, 8) if text else 0
            except ValueError:
                raise InvalidArgument("the layer is not a tar archive, or a header is damaged: a bad number") from None
        if len(self._numbers) > _MOST_REMEMBERED:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    # bytes

    def _extended(self, size: int) -> bytes:
        data = self._gather(size + -size % BLOCK)
        if len(data) < size:
            raise DataLoss("the layer ends in an extended header")
        return data[:size]

    def _gather(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end of the stream."""
        data = self._chunk[self._at : self._at + count]
        self._at += len(data)
        while len(data) < count:
            self._chunk = self._read_chunk()
            piece = self._chunk[: count - len(data)]
            self._at = len(piece)
            if not piece:
                break
            data += piece
        return data

    def _skip(self) -> None:
        """Past what is left of the content, and its padding, which may be missing at the very end."""
        count, content = self._left + self._padding, self._left
        self._left = self._padding = 0
        while count:
            available = len(self._chunk) - self._at
            step = min(available, count)
            self._at += step
            count -= step
            content = max(0, content - step)
            if count:
                self._chunk, self._at = self._read_chunk(), 0
                if not self._chunk:
                    if content:
                        raise DataLoss("the layer ends in the content of a file")
                    return

    def _fill(self, where: str) -> None:
        self._chunk, self._at = self._read_chunk(), 0
        if not self._chunk:
            raise DataLoss(f"the layer ends {where}")


def _records(data: bytes) -> dict[str, bytes]:
    """PAX records: `length key=value\\n`, the value free to hold anything. An empty value takes the key away."""
    found: dict[str, bytes] = {}
    numbers: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        text = data[at:space] if space > 0 else b""
        if not text.isdigit():
            if not data[at:].strip(b"\0"):
                break
            raise InvalidArgument("a PAX header is damaged")
        end = at + int(text)
        record = data[space + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise InvalidArgument("a PAX header is damaged")
        name = key.decode(errors="surrogateescape")
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            numbers.append(value)  # format 0.0 says these again and again
        elif value or name.startswith("SCHILY.xattr."):
            if b"\0" in value and name in ("path", "linkpath", "GNU.sparse.name"):
                raise InvalidArgument(f"a PAX header's {name} holds a NUL byte")
            found[name] = value
        else:
            found.pop(name, None)
        at = end
    if numbers:
        found["GNU.sparse.map"] = b",".join(numbers)
    return found


def _decimal(key: str, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"PAX record {key}: not a number") from None


def _time(key: str, value: bytes) -> int:
    """Seconds with a fraction, in nanoseconds; what is out of range is left to whoever sets it."""
    whole, _, fraction = value.partition(b".")
    seconds = _decimal(key, whole or b"0")
    part = int((fraction[:9] + b"0" * 9)[:9]) if fraction.isdigit() else 0
    return seconds * _NS - part if whole.startswith(b"-") else seconds * _NS + part
