"""Names of images as people write them."""

from __future__ import annotations

from ...protocol.api import Store
from ...protocol.errors import NotFound, OrlopError
from ...protocol.registry.references import normalize

__all__ = ["resolve_name", "spellings"]


async def resolve_name(store: Store, name: str) -> str:
    """The name as it stands in the store: as given, else as `pull` would have stored it."""
    try:
        return (await store.images.get(name)).name
    except NotFound as missing:
        try:
            full = normalize(name)
        except OrlopError:
            raise missing from None
        if full == name:
            raise
        return (await store.images.get(full)).name


def spellings(name: str) -> list[str]:
    """As given, and as `pull` would have stored it."""
    try:
        full = normalize(name)
    except OrlopError:
        return [name]
    return [name] if full == name else [name, full]
