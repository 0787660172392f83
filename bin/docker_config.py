"""Credentials as docker keeps them: in its config.json, or with a helper program that it names.

Blocking. Source: docker's documentation of config.json and of credential helpers.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
from collections.abc import Mapping
from typing import Final

import msgspec

from ..protocol.errors import InvalidArgument, Unauthenticated
from ..protocol.messages import Credentials

__all__ = ["find_credentials"]

_HUB: Final = "https://index.docker.io/v1/"
_HELPER_S: Final = 30.0
_MAX_BYTES: Final = 1024 * 1024
_NOBODY: Final = "<token>"  # the user name by which helpers say that the secret is an identity token


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(msgspec.Struct):
    auths: dict[str, _Auth] = {}
    creds_store: str = msgspec.field(name="credsStore", default="")
    cred_helpers: dict[str, str] = msgspec.field(name="credHelpers", default_factory=dict)


class _Answer(msgspec.Struct):
    username: str = msgspec.field(name="Username", default="")
    secret: str = msgspec.field(name="Secret", default="")


def find_credentials(host: str, environment: Mapping[str, str]) -> Credentials | None:
    """What docker would send to a registry; None: nothing. `DOCKER_CONFIG` names the folder, else it is ~/.docker.

    Raises InvalidArgument (the file cannot be understood), Unauthenticated (a helper failed).
    """
    folder = environment.get("DOCKER_CONFIG") or os.path.join(environment.get("HOME", ""), ".docker")
    path = os.path.join(folder, "config.json")
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError:
        return None
    try:
        config = msgspec.json.decode(data, type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}", hint="mend it, or give --user") from None
    names = [_HUB, "index.docker.io", "docker.io", "registry-1.docker.io"] if host == "docker.io" else [host]
    for name in names:
        if helper := config.cred_helpers.get(name):
            return _ask(helper, name, environment)
    for server, auth in config.auths.items():
        if server in names or _bare(server) in names:
            found = _stored(auth, path)
            if found is not None:
                return found
    return _ask(config.creds_store, names[0], environment) if config.creds_store else None


def _bare(server: str) -> str:
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


def _stored(auth: _Auth, path: str) -> Credentials | None:
    if auth.identitytoken:
        return Credentials("", auth.identitytoken)
    if auth.username or auth.password:
        return Credentials(auth.username, auth.password)
    if not auth.auth:
        return None
    try:
        user, colon, password = base64.b64decode(auth.auth, validate=True).decode().rstrip("\x00").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidArgument(f"{path}: an `auth` that is not base64 of user:password") from None
    return Credentials(user, password) if colon else None


def _ask(helper: str, server: str, environment: Mapping[str, str]) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if os.path.basename(program) != program:
        raise InvalidArgument(f"credential helper {helper!r} has a slash in its name")
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_S,
            env=dict(environment),
        )
    except FileNotFoundError:
        raise Unauthenticated(f"credential helper {program} is not installed", hint="or give --user") from None
    except OSError as error:
        raise Unauthenticated(f"credential helper {program}: {error.strerror}", hint="or give --user") from None
    except subprocess.TimeoutExpired:
        raise Unauthenticated(f"credential helper {program} did not answer within {_HELPER_S:.0f} s") from None
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode:
        if "credentials not found" in said:
            return None
        raise Unauthenticated(f"credential helper {program}: {said[:200] or f'exit status {done.returncode}'}")
    try:
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Unauthenticated(f"credential helper {program} answered what is no credentials") from None
    return Credentials("" if answer.username == _NOBODY else answer.username, answer.secret)
