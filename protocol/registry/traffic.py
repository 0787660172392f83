"""How much all who speak to a registry's host ask of it together: connections, pace, and how often they try again.

Source: spec registry 4; DESIGN, transfer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

__all__ = ["HostTraffic", "Traffic", "TrafficLimits"]

_EARNED: Final = 0.2  # of a retry, by an answer that was none
_MOST_HOSTS: Final = 1024


class TrafficLimits(msgspec.Struct, frozen=True):
    """For each host: requests at a time (and as many that send something), requests per second (0: any number), and
    retries that may be saved up."""

    connections: int = 32
    requests_per_s: float = 0.0
    retries: int = 60


_DEFAULT_LIMITS: Final = TrafficLimits()


class Traffic:
    """What is under way to which host. One for all pulls and pushes of a store."""

    def __init__(self, limits: TrafficLimits = _DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._hosts: dict[str, HostTraffic] = {}

    @property
    def hosts(self) -> Mapping[str, HostTraffic]:
        return self._hosts

    def to(self, authority: str) -> HostTraffic:
        known = self._hosts.get(authority)
        if known is None:
            if len(self._hosts) >= _MOST_HOSTS:
                self._hosts = {name: host for name, host in self._hosts.items() if host.busy}
            known = self._hosts[authority] = HostTraffic(self._limits)
        return known


class HostTraffic:
    """One host's share, and what went over it: requests, retries, bytes of blobs."""

    def __init__(self, limits: TrafficLimits) -> None:
        self._limits = limits
        # A copy sends what it reads: were there one limit, senders could take it all and wait for readers for ever.
        self._readers = trio.CapacityLimiter(limits.connections)
        self._senders = trio.CapacityLimiter(limits.connections)
        self._next_s = 0.0
        self.requests = self.retries = self.received = self.sent = 0
        self._retries = float(limits.retries)

    @property
    def busy(self) -> bool:
        return self._readers.borrowed_tokens + self._senders.borrowed_tokens > 0

    @asynccontextmanager
    async def slot(self, *, sends: bool = False) -> AsyncIterator[None]:
        """Room for one request and its answer. `sends`: it has a body."""
        me = object()  # one task may have several
        limiter = self._senders if sends else self._readers
        await limiter.acquire_on_behalf_of(me)
        try:
            await self._pace()
            self.requests += 1
            yield
        finally:
            limiter.release_on_behalf_of(me)

    async def _pace(self) -> None:
        if self._limits.requests_per_s:
            now = trio.current_time()
            at = max(now, self._next_s)
            self._next_s = at + 1 / self._limits.requests_per_s
            await trio.sleep(at - now)

    def answered(self) -> None:
        """A request that needed no retry earns some of one."""
        self._retries = min(self._limits.retries, self._retries + _EARNED)

    def may_retry(self) -> bool:
        """Takes one of the retries that all share: a host that fails everybody is not asked ever more."""
        if self._retries < 1:
            return False
        self._retries -= 1
        self.retries += 1
        return True
