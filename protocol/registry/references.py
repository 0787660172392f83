"""Names of images: the plain parser that the services use, and docker's normalisation for people at a shell.

Source: spec registry 1.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from ..errors import InvalidArgument
from ..identifiers import check_digest, quote

__all__ = ["Reference", "normalize", "parse_reference"]

_SEPARATOR = r"(?:\.|_|__|-+)"
_COMPONENT = rf"[a-z0-9]+(?:{_SEPARATOR}[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DOMAIN_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_HOST_PORT = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[^:\[\]]+)(?::[0-9]*)?")
_MAX_REPOSITORY = 255


@dataclass(frozen=True)
class Reference:
    """`host` may carry a port; `object` is `tag`, `tag@digest` or `@digest`."""

    host: str
    repository: str
    object: str

    @property
    def tag(self) -> str:
        return self.object.partition("@")[0]

    @property
    def digest(self) -> str:
        """Empty if there is none; not checked before it is used."""
        return self.object.partition("@")[2]

    def __str__(self) -> str:
        joint = "" if self.object.startswith("@") or not self.object else ":"
        return f"{self.host}/{self.repository}{joint}{self.object}"


def parse_reference(text: str, *, needs_object: bool = True) -> Reference:
    """The plain parser: `host/repository:object`, no defaults. Raises InvalidArgument.

    A query and a fragment are dropped; user information is refused, where containerd drops it.
    """
    shown = quote(text)
    if "://" in text:
        raise InvalidArgument(f"reference {shown}", hint="leave out the scheme")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise InvalidArgument(f"reference {shown} has blanks or control characters")
    host, slash, path = re.split(r"[?#]", text, maxsplit=1)[0].partition("/")
    if not host:
        raise InvalidArgument(f"reference {shown}: hostname required")
    if "@" in host:
        raise InvalidArgument(f"reference {shown} has user information")
    if not _HOST_PORT.fullmatch(host) or not _valid_port(host):
        raise InvalidArgument(f"reference {shown}: invalid port")
    cut = min((at for at in (path.find(":"), path.find("@")) if at >= 0), default=len(path))
    repository = posixpath.normpath("/" + path[:cut]).strip("/") if slash else ""
    rest = path[cut:]
    object_ = rest[1:] if rest.startswith(":") else rest
    if (not object_ and needs_object) or not repository:
        raise InvalidArgument(f"reference {shown}: object required", hint="add a tag, such as :latest")
    return Reference(host, repository, object_)


def _valid_port(host: str) -> bool:
    if host.startswith("["):
        _, _, port = host.partition("]")
        port = port[1:]
    else:
        _, _, port = host.partition(":")
    return not port or (port.isascii() and port.isdigit() and int(port) < 65536)


def normalize(text: str) -> str:
    """What docker means by a short name: `redis` is `docker.io/library/redis:latest`. Raises InvalidArgument."""
    shown = quote(text)
    if re.fullmatch(r"[a-f0-9]{64}", text):
        raise InvalidArgument(f"reference {shown} is 64 hex characters, which looks like an id")
    head, slash, tail = text.partition("/")
    if slash and (any(c in head for c in ".:") or head == "localhost" or head.lower() != head):
        domain, rest = head, tail
    else:
        domain, rest = "docker.io", text
    if domain == "index.docker.io":
        domain = "docker.io"
    rest, at, digest = rest.partition("@")
    if at:
        check_digest(digest, f"reference {shown}: digest")
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidArgument(f"reference {shown}: tag {quote(tag)}")
    if domain == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if repository.lower() != repository:
        raise InvalidArgument(f"reference {shown}: the repository must be lower case")
    if not _DOMAIN.fullmatch(domain) or not _REPOSITORY.fullmatch(repository):
        raise InvalidArgument(f"reference {shown}: malformed")
    if len(f"{domain}/{repository}") > _MAX_REPOSITORY and len(repository) > _MAX_REPOSITORY:
        raise InvalidArgument(f"reference {shown}: repository longer than {_MAX_REPOSITORY} characters")
    if at:
        return f"{domain}/{repository}@{digest}"  # a tag beside a digest says nothing more
    return f"{domain}/{repository}:{tag or 'latest'}"
