"""Archives as files, folders and pipes of this machine; see protocol/archives for what stands in them."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import stat
import sys
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import IO, Any, Final

import trio
import zstandard
from isal import igzip

from ..actors.timestamps import rfc3339
from ..protocol.api import Store
from ..protocol.archives.entries import Entry, EntryKind, Sink, link_target
from ..protocol.archives.exporting import Export, ExportOptions, plan_export, write_export
from ..protocol.archives.importing import ImportOptions, import_images, let_layers_go, suiting
from ..protocol.archives.tar import TarSink, tar_entries
from ..protocol.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from ..protocol.messages import RegistryAccess, TransferProgress
from ..protocol.records import Descriptor, Image
from ..protocol.registry.platforms import Platform
from .compression import Compression
from .conversion import layer_compressor
from .fetching import fetch_missing

__all__ = ["OnMissing", "as_ours", "export_archive", "import_archive"]

_CHUNK: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ALL_OF_IT: Final = ImportOptions()
Told = Callable[[TransferProgress], None]


class OnMissing(Enum):
    """What an export does about content that is not here."""

    FAIL = "fail"
    SKIP = "skip"
    FETCH = "fetch"


async def import_archive(
    store: Store,
    path: str | os.PathLike[str],
    options: ImportOptions = _ALL_OF_IT,
    *,
    unpack_for: Sequence[Platform] = (),
    snapshotter: str = "",
    compress_blobs: bool = False,
    told: Told = lambda _: None,
) -> list[Image]:
    """Bring the images of an OCI layout (a folder or a tar of it) or a docker archive; `-` is standard input. Gzip and
    zstd are recognised. `unpack_for`: also unpack those that are for these platforms. `compress_blobs`: store layers
    that are plain tars as gzip, the same bytes every time; manifests and indexes then have other digests, and
    signatures do not fit any more. Configs and file systems stay what they are.

    Raises what `import_images` raises, NotFound and PermissionDenied (the file), DataLoss (a layer to compress is not
    what its config says), and what unpacking raises.
    Cancellation: no image is recorded.
    """
    naming = replace(options.naming, prefix=options.naming.prefix or f"import-{time.strftime('%Y-%m-%d')}")
    options = replace(options, naming=naming, expires_at=options.expires_at or rfc3339(time.time_ns()))
    async with store.lease() as leased:

        async def unpack(name: str, target: Descriptor) -> None:
            for platform in unpack_for:
                manifest = await suiting(leased, target, platform)
                if manifest is not None:
                    await leased.images.unpack(name, target=manifest, snapshotter=snapshotter, progress=told)
                    if options.discard_layers:
                        await let_layers_go(leased, manifest)

        repack = layer_compressor(leased, told) if compress_blobs else None
        return await import_images(leased, _entries(os.fspath(path)), options, told, unpack, repack)


async def export_archive(
    store: Store,
    names: Sequence[str],
    path: str | os.PathLike[str],
    options: ExportOptions,
    *,
    missing: OnMissing = OnMissing.FAIL,
    compression: Compression | None = None,
    access: Callable[[str], RegistryAccess] = lambda _: RegistryAccess(),
    told: Told = lambda _: None,
) -> Export:
    """Write images as an OCI layout with docker's manifest.json: into a tar, or a folder where `path` ends in a slash
    or is one; `-` is standard output. Compressed as the name says (.gz, .tgz, .zst), unless `compression` does.
    `access`: to the registry of a repository (`host/name`), for what is to be fetched.

    Raises NotFound (an image, a platform, content that is not here), AlreadyExists (a folder with something in it), and
    what `fetch_missing` raises.
    Cancellation and failure: there is no file, and an older one is as it was.
    """
    where = os.fspath(path)
    export = await plan_export(store, names, options)
    fetched: set[str] = set()
    while missing is OnMissing.FETCH and (wanted := {each.descriptor.digest for each in export.missing} - fetched):
        await fetch_missing(store, export.missing, access, told)
        fetched |= wanted
        export = await plan_export(store, names, options)  # what came may refer to more
    if export.missing and missing is not OnMissing.SKIP:
        raise export.missing[0].error()
    if export.missing:
        export = export.without_missing()
    async with _sink(where, compression or _compression_of(where)) as sink:
        await write_export(store, export, sink, told)
    return export


# reading ----------------------------------------------------------------------------------------------------


async def _entries(path: str) -> AsyncGenerator[Entry, None]:
    if path != "-" and await trio.to_thread.run_sync(os.path.isdir, path):
        async with contextlib.aclosing(_folder_entries(path)) as entries:
            async for entry in entries:
                yield entry
        return
    with as_ours(path):
        file = _standard_input() if path == "-" else await trio.to_thread.run_sync(_open, path)
    try:
        with as_ours(path):
            reader = await trio.to_thread.run_sync(_decompressed, file, abandon_on_cancel=path == "-")
        buffered = _Buffered(reader, abandon=path == "-")
        async with contextlib.aclosing(tar_entries(buffered.read)) as entries:
            async for entry in entries:
                yield entry
        while await buffered.read(_CHUNK):  # to its end, where its packing has its checksum
            pass
    finally:
        if path != "-":
            file.close()


class _Buffered:
    """Reads a blocking file in large pieces, in a thread."""

    def __init__(self, file: Any, *, abandon: bool) -> None:
        self._file = file
        self._abandon = abandon
        self._data = b""
        self._at = 0

    async def read(self, count: int) -> bytes:
        if self._at == len(self._data):
            self._data, self._at = await trio.to_thread.run_sync(self._more, abandon_on_cancel=self._abandon), 0
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def _more(self) -> bytes:
        data = b""
        try:
            while len(data) < _CHUNK and (more := self._file.read(_CHUNK - len(data))):  # a pipe gives little at a time
                data += more
        except (OSError, EOFError, zstandard.ZstdError, zlib.error) as error:
            raise InvalidArgument(f"the archive cannot be read: {error}") from None
        return data


def _standard_input() -> Any:
    """Without its buffer: a thread that waits in there when the program ends would be the end of it."""
    if sys.stdin is None:
        raise InvalidArgument("standard input is closed")
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


def _open(path: str) -> IO[bytes]:
    return open(path, "rb", buffering=_CHUNK)


def _decompressed(file: Any) -> Any:
    head = b""
    while len(head) < 4 and (more := file.read(4 - len(head))):  # of a pipe as little may come as it likes
        head += more
    whole = _Begun(head, file)
    if head.startswith(_GZIP):
        return igzip.IGzipFile(fileobj=whole)  # type: ignore[no-untyped-call]  # isal has no types
    if head.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True)  # type: ignore[arg-type]  # it asks for less than its stub says
    return whole


class _Begun(io.RawIOBase):
    """A file whose first bytes have been read already."""

    def __init__(self, head: bytes, file: Any) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._file.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


async def _folder_entries(folder: str) -> AsyncGenerator[Entry, None]:
    for name, info in await trio.to_thread.run_sync(lambda: list(_walk(folder))):
        full = os.path.join(folder, name)
        if stat.S_ISREG(info.st_mode):
            yield Entry(name, EntryKind.FILE, info.st_size, "", partial(_file_chunks, full))
        elif stat.S_ISLNK(info.st_mode):  # its target is looked for among the names, never on the disk
            yield Entry(name, EntryKind.LINK, 0, link_target(name, os.readlink(full)), partial(_file_chunks, full))


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(parent, name)
            yield os.path.relpath(full, folder), os.lstat(full)


async def _file_chunks(path: str) -> AsyncGenerator[bytes, None]:
    with as_ours(path):
        file = await trio.to_thread.run_sync(_open, path)
    with file:
        while chunk := await trio.to_thread.run_sync(file.read, _CHUNK):
            yield chunk


# writing ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _sink(path: str, compression: Compression) -> AsyncIterator[Sink]:
    with as_ours("standard output" if path == "-" else path):
        if path.endswith("/") or (path != "-" and os.path.isdir(path)):
            sink = _folder_sink(path.rstrip("/") or "/")
        elif path == "-" or _is_stream(path):
            sink = _stream_sink(path, compression)
        else:
            sink = _file_sink(path, compression)
        async with sink as opened:
            yield opened


@asynccontextmanager
async def _file_sink(path: str, compression: Compression) -> AsyncIterator[Sink]:
    unfinished = f"{path}.{secrets.token_hex(4)}.partial"
    file = await trio.to_thread.run_sync(lambda: open(unfinished, "xb"))  # noqa: SIM115 - closed below
    try:
        writer = _compressed(file, compression)
        yield TarSink(_in_thread(writer))
        await trio.to_thread.run_sync(_end, writer, file)
        await trio.to_thread.run_sync(_put_in_place, file, unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


@asynccontextmanager
async def _stream_sink(path: str, compression: Compression) -> AsyncIterator[Sink]:
    """A pipe or a device takes the bytes as they come; it cannot be replaced by a whole file."""
    opened = None if path == "-" else await trio.to_thread.run_sync(lambda: open(path, "wb"))  # noqa: SIM115 - closed below
    file = opened or sys.stdout.buffer
    try:
        writer = _compressed(file, compression)
        yield TarSink(_in_thread(writer))
        await trio.to_thread.run_sync(_end, writer, file)
    finally:
        if opened is not None:
            opened.close()


def _is_stream(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@asynccontextmanager
async def _folder_sink(path: str) -> AsyncIterator[Sink]:
    """A folder that is there stays that folder: somebody may stand in it, or have something mounted there."""
    there = os.path.exists(path)
    if there and os.listdir(path):
        raise AlreadyExists(f"folder {path} with something in it", hint="name an empty or new one")
    token = secrets.token_hex(4)
    unfinished = os.path.join(path, f".{token}.partial") if there else f"{path}.{token}.partial"
    os.makedirs(unfinished)
    try:
        yield _FolderSink(unfinished)
        await trio.to_thread.run_sync(_put_folder_in_place, unfinished, path, there)
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(unfinished, ignore_errors=True))
        raise


def _put_folder_in_place(unfinished: str, path: str, there: bool) -> None:
    if not there:
        os.replace(unfinished, path)
        return
    for name in sorted(os.listdir(unfinished)):  # oci-layout, without which it is nothing, comes last
        os.replace(os.path.join(unfinished, name), os.path.join(path, name))
    os.rmdir(unfinished)


class _FolderSink:
    def __init__(self, root: str) -> None:
        self._root = root

    async def folder(self, name: str) -> None:
        os.makedirs(os.path.join(self._root, name), exist_ok=True)

    async def file(self, name: str, _: int, mode: int, pieces: AsyncIterator[bytes]) -> None:
        with open(os.path.join(self._root, name), "xb") as file:  # noqa: ASYNC230 - an open takes no time
            async for piece in pieces:
                await trio.to_thread.run_sync(file.write, piece)
            os.fchmod(file.fileno(), mode)
            await trio.to_thread.run_sync(_sync, file)

    async def end(self) -> None:
        return None


def _compression_of(path: str) -> Compression:
    if path.endswith((".gz", ".tgz")):
        return Compression.GZIP
    return Compression.ZSTD if path.endswith((".zst", ".zstd", ".tzst")) else Compression.NONE


def _compressed(file: Any, compression: Compression) -> Any:
    if compression is Compression.GZIP:
        return igzip.IGzipFile(filename="", fileobj=file, mode="wb", mtime=0)  # type: ignore[no-untyped-call]  # isal has no types
    if compression is Compression.ZSTD:
        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return file


def _in_thread(writer: Any) -> Callable[[bytes], Any]:
    async def write(data: bytes) -> None:
        await trio.to_thread.run_sync(writer.write, data)

    return write


def _end(writer: Any, file: Any) -> None:
    if writer is not file:
        writer.close()
    file.flush()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _put_in_place(file: IO[bytes], unfinished: str, path: str) -> None:
    _sync(file)
    file.close()
    os.replace(unfinished, path)


@contextlib.contextmanager
def as_ours(path: str) -> Iterator[None]:
    """What the machine says of a file, as a person is told."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"file {path}") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise PermissionDenied(f"{path}: {error.strerror}") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceExhausted(f"{path}: {error.strerror}") from None
