"""Events: lists, subscriptions, and those of callers."""

from __future__ import annotations

import msgspec

from ..records import Event, EventPayload
from .common import PAGE_LIMIT_DEFAULT, Limit, Size

__all__ = ["EventsPage", "ForwardEvent", "ListEvents", "PublishEvent", "Published", "SubscribeEvents"]


class ListEvents(msgspec.Struct, frozen=True):
    """Events after the sequence number `after` (0: from the beginning), from all namespaces."""

    after: Size = 0
    limit: Limit = PAGE_LIMIT_DEFAULT
    filters: list[str] = []


class EventsPage(msgspec.Struct, frozen=True):
    items: list[Event]
    next: int
    """Give it back as `after`; it is the last sequence number when there is nothing new."""


class SubscribeEvents(msgspec.Struct, frozen=True):
    """Stream of events after the sequence number `after`; None: only what happens from now on."""

    after: Size | None = None
    filters: list[str] = []


class PublishEvent(msgspec.Struct, frozen=True):
    """An event of the caller's own, in the request's namespace, stamped by the store."""

    topic: str
    event: EventPayload


class ForwardEvent(msgspec.Struct, frozen=True):
    """An event that happened elsewhere, passed on with its own namespace and time."""

    timestamp: int
    namespace: str
    topic: str
    event: EventPayload


class Published(msgspec.Struct, frozen=True):
    sequence: int
