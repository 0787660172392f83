"""Bytes that are like no others, named by a few words, and the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from .chance import chance_of

__all__ = ["Blob", "bytes_at", "digest_of_blob", "pieces"]

_PIECE = 1024 * 1024
_STAMP = 64


class Blob(NamedTuple):
    """`name` decides the bytes: a stamp with the name, then the same noise for all."""

    name: str
    size: int


def pieces(blob: Blob) -> Iterator[bytes]:
    """All of its bytes, up to 1 MiB at a time."""
    stamp = _stamp(blob)
    noise = _noise()
    yield (stamp + noise[len(stamp) :])[: blob.size]
    done = _PIECE
    while done < blob.size:
        yield noise[: blob.size - done]
        done += _PIECE


def bytes_at(blob: Blob, offset: int, length: int) -> bytes:
    """Some of its bytes."""
    length = min(length, blob.size - offset)
    first, last = offset // _PIECE, (offset + length - 1) // _PIECE
    noise, stamp = _noise(), _stamp(blob)
    data = b"".join((stamp + noise[len(stamp) :]) if number == 0 else noise for number in range(first, last + 1))
    return data[offset - first * _PIECE :][:length]


@lru_cache(maxsize=100_000)
def digest_of_blob(blob: Blob) -> str:
    """Remembered: whoever times an operation asks before."""
    digest = hashlib.sha256()
    for piece in pieces(blob):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _stamp(blob: Blob) -> bytes:
    return hashlib.sha512(blob.name.encode()).digest()[:_STAMP]


@lru_cache(maxsize=1)
def _noise() -> bytes:
    return chance_of("noise").randbytes(_PIECE)
