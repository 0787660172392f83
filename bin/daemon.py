"""orlopd: the daemon."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from typing import Any

import click
import msgspec
import trio

from ..actors.config import StoreConfig
from ..protocol.errors import InvalidArgument, OrlopError, StoreFailed
from ..protocol.version import __version__
from .embed import serving
from .logs import logger, setup_logging
from .output import EXIT_FAILED, fail

__all__ = ["main"]

_M_ARENA_MAX = -8


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", type=click.Path(), help="The store's folder; made if it is not there.")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="unix:PATH or tcp:HOST:PORT; may be repeated.")
@click.option("--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="A TOML file.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.version_option(__version__, prog_name="orlopd")
def main(root: str | None, listen: tuple[str, ...], config_file: str | None, log_level: str) -> None:
    """Serve a store until SIGTERM or Ctrl-C, then drain.

    \b
    orlopd --root /var/lib/orlop --listen unix:/run/orlop/orlop.sock
    orlopd --root ./store --listen tcp:127.0.0.1:7070 --config orlop.toml

    When it is ready it prints one line, `ready: ADDRESS ...`. Flags win over the file. Without --listen it
    serves ROOT/socket.
    """
    setup_logging(log_level)
    bound_memory()
    try:
        config = read_config(root, listen, config_file)
        trio.run(_serve, config)
    except OrlopError as error:
        fail(error, "orlopd")
    except StoreFailed as failure:
        logger().error("the store failed", exc_info=failure)
        sys.exit(EXIT_FAILED)


def read_config(root: str | None, listen: tuple[str, ...], config_file: str | None) -> StoreConfig:
    """The file's settings with the flags over them. Raises InvalidArgument."""
    settings: dict[str, Any] = {}
    if config_file is not None:
        with open(config_file, "rb") as file:
            data = file.read()
        try:
            settings = msgspec.toml.decode(data)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"{config_file}: {error}") from None
    if root is not None:
        settings["root"] = root
    if listen:
        settings["listen"] = list(listen)
    if "root" not in settings:
        raise InvalidArgument("no store", hint='give --root DIR, or root = "DIR" in the config file')
    settings["root"] = os.path.abspath(settings["root"])
    try:
        return msgspec.convert(settings, StoreConfig)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{config_file or 'settings'}: {error}") from None


async def _serve(config: StoreConfig) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with serving(config) as running:
            settle_memory()
            print("ready:", *running.addresses, flush=True)
            _tell_systemd("READY=1")
            await anext(signals)
            _tell_systemd("STOPPING=1")


def bound_memory() -> None:
    """Before any thread is started: let threads share two of malloc's arenas, where each would get one and keep what it
    once needed. A sixth of the daemon's peak, at no cost that could be measured. For a process that is a store and
    nothing else."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def settle_memory() -> None:
    """Take what start-up made out of the cycle collector's sight, and have it look at the rest more seldom.

    A look at everything takes 15 ms and holds up the loop; next to nothing here lies in cycles. For a process
    that is a store and nothing else: a program that embeds one decides for itself (docs/embedding.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def _tell_systemd(state: str) -> None:
    """The notify protocol: one datagram to the socket that the service manager named."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            logger().warning("cannot tell the service manager", error=str(error))
