"""Which store a command speaks to, and how it gets there.

What flags, environment or configuration name; else the system's socket if its *file* exists (not answering is
then an error, never a silent change of store); else the user's own store. A store's folder that is in use leads
to the socket that its lock names.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import trio

from ..protocol.api import Store
from ..protocol.errors import DeadlineExceeded, StoreFailed, Unavailable
from ..protocol.identifiers import DEFAULT_NAMESPACE
from ..storage.lock import StoreInUse
from .embed import connect, open_store
from .logs import setup_logging

__all__ = ["SYSTEM_SOCKET", "Session"]

T = TypeVar("T")
MEET_S = 10.0  # how long a command waits for one other to open or close the store
SYSTEM_SOCKET = "/run/orlop/orlop.sock"


@dataclass(frozen=True)
class Session:
    """One command's store and namespace."""

    address: str | None
    folder: str | None
    namespace: str
    lease: str | None
    timeout_s: float | None
    debug: bool

    @classmethod
    def find(
        cls,
        address: str | None,
        store: str | None,
        namespace: str | None,
        lease: str | None,
        timeout_s: float | None,
        debug: bool,
        environment: Mapping[str, str],
    ) -> Session:
        name = namespace or environment.get("ORLOP_NAMESPACE") or environment.get("CONTAINERD_NAMESPACE")
        if address is None and store is None:
            address, store = environment.get("ORLOP_ADDRESS") or None, environment.get("ORLOP_STORE") or None
            if address is None and store is None:
                if os.path.exists(SYSTEM_SOCKET):
                    address = f"unix:{SYSTEM_SOCKET}"
                else:
                    store = _own_store(environment)
        folder = None if address else os.path.abspath(store or "")
        return cls(address, folder, name or DEFAULT_NAMESPACE, lease, timeout_s, debug)

    def run(self, command: Callable[[Store], Awaitable[T]]) -> T:
        """Run a command against the store. Raises OrlopError; Ctrl-C leaves nothing behind."""
        result: T = trio.run(self._run, command, restrict_keyboard_interrupt_to_checkpoints=True)
        return result

    async def _run(self, command: Callable[[Store], Awaitable[T]]) -> T:
        try:
            with trio.move_on_after(float("inf") if self.timeout_s is None else self.timeout_s):
                if self.address is not None:
                    async with connect(self.address, namespace=self.namespace) as store:
                        return await command(self._leased(store))
                return await self._in_folder(command)
        except StoreFailed as failure:
            cause = failure.__cause__
            if isinstance(cause, BaseExceptionGroup):
                raise cause.exceptions[0] from failure
            raise
        raise DeadlineExceeded(f"not done within {self.timeout_s} s")

    def _leased(self, store: Store) -> Store:
        return store if self.lease is None else store.with_lease(self.lease)

    async def _in_folder(self, command: Callable[[Store], Awaitable[T]]) -> T:
        """Open the folder's store, or meet whoever has it. A holder that is about to end lets us try again."""
        assert self.folder is not None
        setup_logging("debug" if self.debug else "error")
        patience = trio.current_time() + MEET_S
        known = 0
        while True:
            try:
                async with open_store(self.folder, namespace=self.namespace) as store:
                    return await command(self._leased(store))
            except StoreInUse as in_use:
                holder = in_use.holder
                socket = holder.socket if holder else ""
                if holder and holder.pid != known:  # others had their turn: it is worth waiting on
                    known, patience = holder.pid, trio.current_time() + MEET_S
                # A daemon that listens elsewhere will not go away; a command that opens or closes will.
                if not socket and (trio.current_time() > patience or (holder and holder.program == "orlopd")):
                    raise
            if socket:
                try:
                    async with connect(f"unix:{socket}", namespace=self.namespace) as store:
                        patience = trio.current_time() + MEET_S
                        return await command(self._leased(store))
                except Unavailable:  # certainly not done: the holder ended, or is ending
                    if trio.current_time() > patience:
                        raise
            await trio.sleep(0.02)


def _own_store(environment: Mapping[str, str]) -> str:
    base = environment.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "orlop")
