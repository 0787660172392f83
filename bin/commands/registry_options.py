"""How a registry is spoken to: the options that pull, push, copy and their like share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from ...protocol.messages import Credentials, RegistryAccess
from ...protocol.registry.references import normalize, parse_reference
from ..docker_config import find_credentials

__all__ = ["access_for", "credentials_of", "literal_option", "platform_option", "reference_of", "registry_options"]

F = TypeVar("F", bound=Callable[..., Any])
_File = click.Path(exists=True, dir_okay=False, resolve_path=True)

literal_option = click.option(
    "--literal", is_flag=True, help="Take the reference as it stands; no docker.io, no :latest."
)
platform_option = click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH[/VARIANT]")


def registry_options(command: F) -> F:
    """Gives the command one argument `access`."""
    for option in reversed(
        (
            click.option("--plain-http", is_flag=True, help="The registry speaks http without TLS."),
            click.option("--skip-verify", "-k", is_flag=True, help="Do not check the registry's certificate."),
            click.option("--user", "-u", metavar="NAME[:PASSWORD]", help="Asks for the password if it is left out."),
            click.option("--refresh", metavar="TOKEN", help="An identity token instead of a password."),
            click.option("--hosts-dir", type=click.Path(file_okay=False), metavar="DIR", help="Folders of hosts.toml."),
            click.option("--tlscacert", type=_File, metavar="FILE", help="Authorities beside the system's."),
            click.option("--tlscert", type=_File, metavar="FILE", help="Our own certificate."),
            click.option("--tlskey", type=_File, metavar="FILE", help="Its key."),
        )
    ):
        command = option(command)

    def with_access(
        *args: Any,
        plain_http: bool,
        skip_verify: bool,
        user: str | None,
        refresh: str | None,
        hosts_dir: str | None,
        tlscacert: str | None,
        tlscert: str | None,
        tlskey: str | None,
        **rest: Any,
    ) -> Any:
        if tlskey and not tlscert:
            raise click.UsageError("--tlskey belongs to a --tlscert")
        access = RegistryAccess(
            plain_http=plain_http,
            skip_verify=skip_verify,
            credentials=credentials_of(user, refresh),
            hosts_dir=os.path.abspath(hosts_dir) if hosts_dir else "",
            ca=tlscacert or "",
            client_cert=tlscert or "",
            client_key=tlskey or "",
        )
        return original(*args, access=access, **rest)

    original = command
    with_access.__name__, with_access.__doc__ = original.__name__, original.__doc__
    with_access.__click_params__ = getattr(original, "__click_params__", [])  # type: ignore[attr-defined]
    return with_access  # type: ignore[return-value]


def access_for(access: RegistryAccess, reference: str) -> RegistryAccess:
    """With docker's own credentials for the reference's host, where none were given."""
    if access.credentials is not None:
        return access
    host = parse_reference(reference, needs_object=False).host
    return msgspec.structs.replace(access, credentials=find_credentials(host, os.environ))


def reference_of(text: str, *, literal: bool) -> str:
    """As a person writes it, or literally."""
    return text if literal else normalize(text)


def credentials_of(user: str | None, refresh: str | None) -> Credentials | None:
    """What the options say; asks on the terminal for a password that is left out."""
    if refresh is not None:
        if user is not None:
            raise click.UsageError("--user and --refresh exclude each other")
        return Credentials("", refresh)
    if user is None:
        return None
    name, colon, password = user.partition(":")
    if not colon:
        if not sys.stdin.isatty():
            raise click.UsageError("--user needs a password: NAME:PASSWORD, as there is no terminal to ask on")
        password = click.prompt("Password", hide_input=True, err=True)
    return Credentials(name, password)
