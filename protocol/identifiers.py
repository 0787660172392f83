"""Names: identifiers, namespaces, digests, topics, and the free-form names that only have a length.

Every check raises InvalidArgument and names the offender. Source: spec metadata 2, 3, 5, 14.2.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from .errors import FailedPrecondition, InvalidArgument

__all__ = [
    "DEFAULT_NAMESPACE",
    "MAX_IDENTIFIER_BYTES",
    "MAX_NAME_BYTES",
    "check_digest",
    "check_identifier",
    "check_name",
    "check_request_namespace",
    "check_topic",
    "digest_of",
    "quote",
    "split_digest",
]

DEFAULT_NAMESPACE = "default"
MAX_IDENTIFIER_BYTES = 76
MAX_NAME_BYTES = 512
"""Image names, lease ids, ingest refs: any text, but short enough that every engine can use it as a key."""

# fullmatch, because `$` also matches before a final newline; explicit classes, because \w reads other scripts.
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}|sha384:[a-f0-9]{96}")
_DIGEST_SHAPE = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}


def quote(text: str) -> str:
    """`text` for an error message: quoted, with control characters visible, and not longer than a line."""
    shown = text if len(text) <= 160 else text[:160] + "…"
    if shown.isprintable():
        return f'"{shown}"'
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + '"'


def check_identifier(text: str, what: str = "identifier") -> str:
    """An identifier: groups of ASCII letters and digits joined by single `.`, `_` or `-`, up to 76 bytes."""
    if not text:
        raise InvalidArgument(f"{what} must not be empty")
    if len(text) > MAX_IDENTIFIER_BYTES:
        raise InvalidArgument(f"{what} {quote(text)} is longer than {MAX_IDENTIFIER_BYTES} characters")
    if not _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(f"{what} {quote(text)} must be letters and digits, joined by single '.', '_' or '-'")
    return text


def check_request_namespace(text: str | None) -> str:
    """The namespace of a request. Missing or empty is FailedPrecondition, malformed is InvalidArgument."""
    if not text:
        raise FailedPrecondition("namespace is required")
    return _checked_namespace(text)


def check_name(text: str, what: str) -> str:
    """Free-form names: any text of 1 to 512 bytes."""
    if not text:
        raise InvalidArgument(f"{what} must not be empty")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{what} is not valid Unicode") from None
    if length > MAX_NAME_BYTES:
        raise InvalidArgument(f"{what} {quote(text)} is longer than {MAX_NAME_BYTES} bytes")
    return text


def check_digest(text: str, what: str = "digest") -> str:
    """`algorithm:hex` with sha256, sha384 or sha512 in lower-case hex."""
    if _DIGEST.fullmatch(text):
        return text
    raise InvalidArgument(f"{what} {quote(text)}: {_digest_fault(text)}")


def split_digest(digest: str) -> tuple[str, str]:
    """(algorithm, hex) of a digest that has been checked."""
    algorithm, _, encoded = digest.partition(":")
    return algorithm, encoded


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def check_topic(text: str) -> str:
    """`/` and one or more identifiers joined by `/`."""
    if not text.startswith("/"):
        raise InvalidArgument(f"topic {quote(text)} must start with '/'")
    for component in text[1:].split("/"):
        check_identifier(component, f"component of topic {quote(text)}")
    return text


@lru_cache(1024)
def _checked_namespace(text: str) -> str:
    """Remembered, as every call names one; a refusal is not."""
    return check_identifier(text, "namespace")


def _digest_fault(text: str) -> str:
    algorithm, colon, encoded = text.partition(":")
    if not colon or not algorithm or not encoded:
        return "format: expected algorithm:hex"
    if algorithm not in _HEX_LENGTH:
        return "unsupported algorithm" if _DIGEST_SHAPE.fullmatch(text) else "format: expected algorithm:hex"
    if len(encoded.encode(errors="replace")) != _HEX_LENGTH[algorithm]:
        return f"length: {algorithm} has {_HEX_LENGTH[algorithm]} hex characters"
    return "format: only lower-case hex is allowed"
