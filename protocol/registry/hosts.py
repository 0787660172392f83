"""Which hosts serve a registry, and how each is spoken to: defaults, and `hosts.toml` as containerd reads them.

Blocking: call it through the workers. Source: spec registry 2.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
from collections.abc import Iterable
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ..durations import parse_duration
from ..errors import InvalidArgument
from ..messages import RegistryAccess
from ..world import Files, Tls

__all__ = ["DOCKER_HUB", "Capability", "Host", "find_hosts", "is_loopback"]

DOCKER_HUB: Final = "registry-1.docker.io"
_DIAL_S: Final = 30.0
_MAX_FILE_BYTES: Final = 1024 * 1024


class Capability(Enum):
    PULL = "pull"
    RESOLVE = "resolve"
    PUSH = "push"
    REFERRERS = "referrers"


EVERYTHING: Final = frozenset(Capability)


class Host(msgspec.Struct, frozen=True):
    """One host of a registry. `authority`: name and, if it is not the scheme's own, port. `path`: the root of the API.

    `probe`: https is tried first, then http on the same port, as registries on the loopback are often without TLS.
    """

    scheme: str
    authority: str
    path: str = "/v2"
    capabilities: frozenset[Capability] = EVERYTHING
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = ()
    dial_s: float = _DIAL_S
    probe: bool = False
    given: bool = False
    """Somebody wrote down the scheme, so leaving https for http is not ours to decide."""

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class _Entry(msgspec.Struct):
    capabilities: list[str] | None = None
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool | None = None
    header: dict[str, str | list[str]] = {}
    override_path: bool = False
    dial_timeout: str = ""


class _HostsFile(_Entry):
    server: str = ""
    host: dict[str, _Entry] = {}


def is_loopback(host: str) -> bool:
    """localhost, 127.0.0.0/8 or ::1, with or without a port."""
    name = host
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        if port and not port[1:].isdigit():
            return False
    elif host.count(":") == 1:
        name, _, port = host.partition(":")
        if not port.isdigit():
            return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def find_hosts(files: Files, folder: str, namespace: str, access: RegistryAccess) -> list[Host]:
    """The hosts to be asked for a registry, in order. `folder` holds one folder for each registry; empty: none is
    configured. Raises InvalidArgument for a `hosts.toml` that cannot be understood, so that nobody asks the wrong host
    because of a slip."""
    own = _find_folder(files, folder, namespace) if folder else None
    default = _default_host(namespace, access)
    if own is None:
        return [default]
    path = posixpath.join(own, "hosts.toml")
    data = _read(files, path)
    if not (data or b"").strip():
        return [msgspec.structs.replace(default, tls=_with_files_of(files, own, default.tls))]
    try:
        return _parse(data or b"", own, access, default)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidArgument) as error:
        text = error.message if isinstance(error, InvalidArgument) else str(error)
        raise InvalidArgument(f"{path}: {text}", hint="nothing was asked of any registry") from None


def _default_host(namespace: str, access: RegistryAccess) -> Host:
    authority = DOCKER_HUB if namespace == "docker.io" else namespace
    loopback = is_loopback(authority)
    tls = _with_access(Tls(verify=not loopback), access)
    plain = (access.plain_http and namespace != "docker.io") or (loopback and authority.endswith(":80"))
    has_port = authority.rpartition("]")[2].count(":") == 1
    probe = loopback and has_port and not authority.endswith(":443") and not plain
    return Host("http" if plain else "https", authority, tls=tls, probe=probe, given=plain)


def _with_access(tls: Tls, access: RegistryAccess) -> Tls:
    """What a caller asked for holds for every host."""
    client = ((access.client_cert, access.client_key),) if access.client_cert else ()
    return Tls(tls.verify and not access.skip_verify, (*tls.ca, *_texts(access.ca)), (*tls.client, *client))


def _find_folder(files: Files, root: str, namespace: str) -> str | None:
    name, colon, port = namespace.rpartition(":")
    wanted = [f"{name}_{port}_", namespace] if colon and port.isdigit() else [namespace]
    try:
        there = set(files.list_folder(root))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"hosts folder {root}: {error.strerror}") from None
    found = next((each for each in [*wanted, "_default"] if each in there), None)
    return None if found is None else posixpath.join(root, found)


def _parse(data: bytes, folder: str, access: RegistryAccess, default: Host) -> list[Host]:
    file = msgspec.toml.decode(data, type=_HostsFile)
    found = [_host(url, entry, folder, access) for url, entry in file.host.items()]
    if file.server:
        return [*found, _host(file.server, file, folder, access)]
    if file != _HostsFile(host=file.host):  # settings for the registry itself, which goes by its own name
        entry = _host(default.base, file, folder, access)
        return [*found, msgspec.structs.replace(entry, path=default.path, probe=default.probe, given=default.given)]
    return [*found, default]


def _host(url: str, entry: _Entry, folder: str, access: RegistryAccess) -> Host:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidArgument(f"host {url!r} is no http or https URL")
    path = parts.path.rstrip("/")
    if not entry.override_path and not path.endswith("/v2"):
        path += "/v2"
    tls = Tls(
        verify=not entry.skip_verify if entry.skip_verify is not None else not is_loopback(parts.netloc),
        ca=tuple(posixpath.join(folder, each) for each in _texts(entry.ca)),
        client=tuple(_pairs(entry.client, folder)),
    )
    return Host(
        parts.scheme,
        parts.netloc,
        path,
        EVERYTHING if entry.capabilities is None else frozenset(map(_capability, entry.capabilities)),
        _with_access(tls, access),
        tuple((name, text) for name, value in entry.header.items() for text in _texts(value)),
        _duration(entry.dial_timeout),
        given=True,
    )


def _capability(text: str) -> Capability:
    try:
        return Capability(text.lower())
    except ValueError:
        known = ", ".join(each.value for each in Capability)
        raise InvalidArgument(f"capability {text!r}; there are {known}") from None


def _duration(text: str) -> float:
    if not text:
        return _DIAL_S
    duration = parse_duration(text)
    if duration is None or duration <= 0:
        raise InvalidArgument(f"dial_timeout {text!r} is no duration such as 5s")
    return duration / 1e9


def _texts(value: str | list[str]) -> list[str]:
    return ([value] if value else []) if isinstance(value, str) else value


def _pairs(value: str | list[str | list[str]], folder: str) -> Iterable[tuple[str, str]]:
    for each in [value] if isinstance(value, str) and value else value:
        pair = [each] if isinstance(each, str) else each
        if len(pair) not in (1, 2):
            raise InvalidArgument("client: a pair is a certificate and its key")
        certificate, key = pair[0], pair[1] if len(pair) == 2 else ""
        yield posixpath.join(folder, certificate), posixpath.join(folder, key) if key else ""


def _with_files_of(files: Files, folder: str, tls: Tls) -> Tls:
    """A folder without settings: *.crt are authorities, *.cert with the *.key of the same name our own certificates."""
    names = sorted(files.list_folder(folder))
    ca = [posixpath.join(folder, name) for name in names if name.endswith(".crt")]
    client = []
    for name in names:
        if name.endswith(".cert"):
            key = name.removesuffix(".cert") + ".key"
            if key not in names:
                raise InvalidArgument(f"{posixpath.join(folder, name)} has no {key} beside it")
            client.append((posixpath.join(folder, name), posixpath.join(folder, key)))
    return Tls(tls.verify, (*tls.ca, *ca), (*tls.client, *client))


def _read(files: Files, path: str) -> bytes | None:
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    try:
        size = files.size(fd)
        if size > _MAX_FILE_BYTES:
            raise InvalidArgument(f"{path} has {size} bytes; the limit is {_MAX_FILE_BYTES}")
        return files.pread(fd, size, 0)
    finally:
        files.close(fd)
