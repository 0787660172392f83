"""The bytes of a layer, decompressed, hashed and counted as they are read. Source: spec unpack 3."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, cast

import zstandard
from isal import igzip_lib

from ...protocol.errors import DataLoss, ResourceExhausted
from ...protocol.errors import NotImplemented as Unsupported
from .limits import LayerLimits

__all__ = ["LAYER_TYPE", "LayerStream", "decompressed", "reader_of"]

LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_PLAIN: Final = frozenset((LAYER_TYPE, _NONDISTRIBUTABLE))
_SNIFFED: Final = frozenset(
    [f"{base}+{suffix}" for base in (LAYER_TYPE, _NONDISTRIBUTABLE) for suffix in ("gzip", "zstd")]
    + [
        f"application/vnd.docker.image.rootfs.{kind}.tar{suffix}"
        for kind in ("diff", "foreign.diff")
        for suffix in ("", ".gzip", ".zstd")
    ]
)

_IN_BYTES: Final = 256 * 1024
_OUT_BYTES: Final = 1024 * 1024
_ZSTD_SLICE: Final = 2048  # of input: a hostile one unfolds to some 64 MiB at most
_ZSTD_WINDOW: Final = 128 * 1024 * 1024
_AHEAD: Final = 4  # chunks
_RATIO_FROM: Final = 64 * 1024 * 1024

_IGZIP_ERROR: Final = cast("type[Exception]", igzip_lib.error)  # its stub takes the class for an instance

Read = Callable[[int], bytes]


def reader_of(media_type: str) -> Callable[[Read], Iterator[bytes]]:
    """How a layer of this type is read. Raises NotImplemented.

    Plain OCI types are taken as they are; all others are what their first bytes say.
    """
    if media_type in _PLAIN:
        return _raw
    if media_type in _SNIFFED:
        return decompressed
    raise Unsupported(f'layer media type "{media_type}"', hint="orlop reads tar, gzip and zstd layers")


def _raw(read: Read) -> Iterator[bytes]:
    while data := read(_OUT_BYTES):
        yield data


def decompressed(read: Read) -> Iterator[bytes]:
    """Gzip, zstd or neither, by the first bytes. Raises DataLoss for a stream that is broken or cut short."""
    head = b""
    while len(head) < 4 and (data := read(_IN_BYTES)):
        head += data
    if head[:3] == b"\x1f\x8b\x08":
        yield from _gunzip(head, read)
    elif head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        yield from _unzstd(head, read)
    else:
        if head:
            yield head
        yield from _raw(read)


def _gunzip(data: bytes, read: Read) -> Iterator[bytes]:
    """Every member, one after another; nothing else may follow the last."""
    while True:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        try:
            while True:
                out = member.decompress(data, _OUT_BYTES)
                if out:
                    yield out
                if member.eof:
                    break
                if member.needs_input:
                    data = read(_IN_BYTES)
                    if not data:
                        raise DataLoss("the layer's gzip stream is cut short")
                else:
                    data = b""
        except _IGZIP_ERROR as error:
            raise DataLoss(f"the layer's gzip stream is broken: {error}") from None
        data = member.unused_data or read(_IN_BYTES)
        if not data:
            return


def _unzstd(data: bytes, read: Read) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    begun = False
    held: list[bytes] = []
    size = 0
    try:
        while data:
            for at in range(0, len(data), _ZSTD_SLICE):
                piece = data[at : at + _ZSTD_SLICE]
                while piece:
                    out = frame.decompress(piece)
                    begun = True
                    if out:
                        held.append(out)
                        size += len(out)
                    piece = b""
                    if frame.eof:
                        piece = frame.unused_data
                        frame, begun = decompressor.decompressobj(), False
                if size >= _OUT_BYTES:
                    yield held[0] if len(held) == 1 else b"".join(held)
                    held, size = [], 0
            data = read(_IN_BYTES)
    except zstandard.ZstdError as error:
        raise DataLoss(f"the layer's zstd stream is broken: {error}") from None
    if begun:
        raise DataLoss("the layer's zstd stream is cut short")
    if held:
        yield b"".join(held)


class LayerStream:
    """Uncompressed bytes of a layer, read and hashed ahead by a thread of its own, both of which run without Python's
    lock. `digest` and `size` are of every byte that came out, once `drain` has been called.

    The thread ends with the stream, or when `close` is called; it calls `advanced` with the bytes so far.
    """

    def __init__(
        self, media_type: str, read: Read, limits: LayerLimits, advanced: Callable[[int], None] | None = None
    ) -> None:
        self._advanced = advanced
        self._limits = limits
        self._taken = 0
        self.size = 0
        self._hash = hashlib.sha256()
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._closed = False
        self._ended = False
        pieces = reader_of(media_type)(self._counted(read))
        self._thread = threading.Thread(target=self._run, args=(pieces,), daemon=True)
        self._thread.start()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read_chunk(self) -> bytes:
        """The next bytes; none at the end. Raises DataLoss, ResourceExhausted (limits)."""
        if self._ended:
            return b""
        chunk = self._chunks.get()
        if isinstance(chunk, bytes):
            return chunk
        self._ended = True
        self._thread.join()
        if chunk is not None:
            raise chunk
        return b""

    def drain(self) -> None:
        """To the very end: what follows the archive's end marker counts for its digest."""
        while self.read_chunk():
            pass

    def close(self) -> None:
        self._closed = True
        while not self._ended:
            try:
                self.read_chunk()
            except Exception:  # noqa: BLE001 - nobody wants to know any more
                pass

    def _counted(self, read: Read) -> Read:
        def counted(count: int) -> bytes:
            data = b"" if self._closed else read(count)
            self._taken += len(data)
            return data

        return counted

    def _run(self, pieces: Iterator[bytes]) -> None:
        end: BaseException | None = None
        try:
            for piece in pieces:
                self.size += len(piece)
                self._check()
                self._hash.update(piece)
                for at in range(0, len(piece), _OUT_BYTES):  # one that unfolds to much waits in parts
                    self._chunks.put(piece if len(piece) <= _OUT_BYTES else piece[at : at + _OUT_BYTES])
                if self._advanced is not None:
                    self._advanced(self.size)
                if self._closed:
                    break
        except Exception as error:  # noqa: BLE001 - raised where the stream is read
            end = error
        self._chunks.put(end)

    def _check(self) -> None:
        if self.size > self._limits.bytes:
            raise ResourceExhausted(
                f"the layer unfolds to more than {self._limits.bytes} bytes", hint="raise unpack.max_bytes"
            )
        if self.size > _RATIO_FROM and self.size > self._limits.ratio * max(1, self._taken):
            raise ResourceExhausted(
                f"the layer unfolds to more than {self._limits.ratio} times its size", hint="raise unpack.max_ratio"
            )
