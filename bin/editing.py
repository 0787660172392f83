"""A blob in somebody's editor: a copy in a file, the program that changes it, and what becomes of its labels."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Iterator
from enum import Enum
from typing import Final

import msgspec
import trio

from ..protocol.api import Store
from ..protocol.errors import FailedPrecondition, InvalidArgument
from ..protocol.identifiers import quote, split_digest
from ..protocol.labels import GC_ROOT, UNCOMPRESSED, is_source_label
from ..protocol.records import ContentInfo
from ..protocol.registry.documents import INDEX_TYPES, MAX_DOCUMENT_BYTES, document_labels, sniff
from ..protocol.registry.rootfs import read_rootfs

__all__ = ["EditedCopy", "run_editor"]

_PIECE: Final = 1024 * 1024


class _Kind(Enum):
    """What a blob is, as far as its bytes tell. Blobs have no media type of their own."""

    INDEX = "index"
    MANIFEST = "manifest"
    CONFIG = "image config"
    JSON = "JSON document"
    BYTES = "text or bytes"


class EditedCopy:
    """A copy of a blob in a file that may be changed. Its reads and writes of that file block, but for `fetch` and
    `store`."""

    def __init__(self, info: ContentInfo, folder: str) -> None:
        self._info = info
        self._algorithm, value = split_digest(info.digest)
        self.path = os.path.join(folder, f"{self._algorithm}-{value[:12]}")
        self._kind = _Kind.BYTES
        self._own_labels: dict[str, str] = {}

    @classmethod
    async def fetch(cls, store: Store, digest: str, folder: str) -> EditedCopy:
        """Raises NotFound, DataLoss."""
        copy = cls(await store.content.info(digest), folder)
        with open(copy.path, "xb") as file:  # noqa: ASYNC230 - an open takes no time
            async with store.content.chunks(digest, verify=True) as pieces:
                async for piece in pieces:
                    await trio.to_thread.run_sync(file.write, piece)
        await trio.to_thread.run_sync(copy._look)
        return copy

    def _look(self) -> None:
        data = _document_at(self.path)
        self._kind = _kind(data)
        self._own_labels = _labels_of(data)
        if self._kind is not _Kind.BYTES:  # editors choose their colours by this
            os.rename(self.path, f"{self.path}.json")
            self.path += ".json"

    def can_be_validated(self) -> None:
        """Raises FailedPrecondition: anything goes for what it is."""
        if self._kind is _Kind.BYTES:
            raise FailedPrecondition(
                f"content {self._info.digest} is no JSON document, and cannot be validated", hint="leave out --validate"
            )

    def digest(self) -> str:
        """Of what is in the file now. Raises FailedPrecondition: there is none."""
        hasher = hashlib.new(self._algorithm)
        try:
            with open(self.path, "rb") as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
        except FileNotFoundError:
            raise FailedPrecondition(f"the editor took {self.path} away, so nothing was stored") from None
        return f"{self._algorithm}:{hasher.hexdigest()}"

    def validate(self) -> None:
        """Raises InvalidArgument: it is not any more what it was before, an index, a manifest, a config or JSON."""
        data = _document_at(self.path)
        found = _kind(data)
        if found is self._kind:
            return
        what = f"what you wrote is no {self._kind.value}"
        if self._kind in (_Kind.INDEX, _Kind.MANIFEST):
            sniff(data, what)
        elif found is _Kind.BYTES:
            _decode(data, what)
        raise InvalidArgument(what if found is _Kind.BYTES else f"{what} any more; it reads as {found.value}")

    async def store(self, store: Store, digest: str, now: str) -> ContentInfo:
        """Store what is in the file, whose digest this is. It is a root, and has the old blob's labels, but for those
        that speak of the old bytes: where they came from, what they unfold to, what they refer to. What a manifest or
        an index refers to now it keeps. A blob that is here already gets the labels that it lacks.

        Raises what `Content.write` raises, also when the file has been changed since. Cancellation: an ingest may stay.
        """
        fresh = await trio.to_thread.run_sync(lambda: _labels_of(_document_at(self.path)))
        labels = {key: value for key, value in self._info.labels.items() if self._is_carried(key, value)}
        labels = {GC_ROOT: now, **labels, **fresh}
        size = os.path.getsize(self.path)
        info = await store.content.write(
            f"edit-{digest}", _pieces(self.path), size=size, expected=digest, labels=labels
        )
        missing = {key: value for key, value in labels.items() if key not in info.labels}
        if missing:
            info = await store.content.update(digest, missing, [f"labels.{key}" for key in missing])
        return info

    def _is_carried(self, key: str, value: str) -> bool:
        return key != UNCOMPRESSED and not is_source_label(key) and self._own_labels.get(key) != value


def run_editor(editor: str, path: str) -> None:
    """Let the user change a file. `editor` is a shell's command, as EDITOR is everywhere. Blocks until it has ended.

    It writes to our standard error where our output is no terminal: that is for the digest alone. Ctrl-C is for it, and
    not for us. Raises FailedPrecondition: it ended badly, which is how editors say that nothing is to be done.
    """
    with _ctrl_c_for_the_editor():
        # The command's own words may have quotes and options; the path is never read by the shell. A trap, unlike what
        # is ignored, is not inherited: the shell waits on, and the editor hears of Ctrl-C.
        command = ["/bin/sh", "-c", f'trap : INT; {editor} "$@"', editor, path]
        status = subprocess.run(command, stdout=None if os.isatty(1) else 2, check=False).returncode
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        hint = "give --editor COMMAND, or set VISUAL or EDITOR" if status in (126, 127) else ""
        raise FailedPrecondition(f"editor {quote(editor)} {how}, so nothing was stored", hint=hint)


@contextlib.contextmanager
def _ctrl_c_for_the_editor() -> Iterator[None]:
    """A handler, because what is ignored would be ignored by the editor, too."""
    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _document_at(path: str) -> bytes:
    """What can be a document; nothing of what is too large."""
    with open(path, "rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    return data if len(data) <= MAX_DOCUMENT_BYTES else b""


def _kind(data: bytes) -> _Kind:
    try:
        _decode(data, "")
    except InvalidArgument:
        return _Kind.BYTES
    try:
        return _Kind.INDEX if sniff(data, "") in INDEX_TYPES else _Kind.MANIFEST
    except InvalidArgument:
        pass
    try:
        return _Kind.CONFIG if read_rootfs(data, "").platform.os else _Kind.JSON
    except InvalidArgument:
        return _Kind.JSON


def _labels_of(data: bytes) -> dict[str, str]:
    """Of a manifest or index; none of anything else."""
    try:
        return document_labels(sniff(data, ""), data, "")
    except InvalidArgument:
        return {}


def _decode(data: bytes, what: str) -> None:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what}: {error}") from None


async def _pieces(path: str) -> AsyncGenerator[bytes, None]:
    with open(path, "rb") as file:  # noqa: ASYNC230 - an open takes no time
        while piece := await trio.to_thread.run_sync(file.read, _PIECE):
            yield piece
