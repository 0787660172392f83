"""Names of images as people write them."""

from __future__ import annotations

from ...protocol.api import Store
from ...protocol.errors import NotFound, OrlopError
from ...protocol.registry.references import normalize

__all__ = ["resolve_name", "spellings"]

_MOST_NAMED = 3


async def resolve_name(store: Store, name: str) -> str:
    """The name as it stands in the store: as given, else as `pull` would have stored it."""
    try:
        return (await store.images.get(name)).name
    except NotFound as missing:
        for other in spellings(name)[1:]:
            try:
                return (await store.images.get(other)).name
            except NotFound:
                pass
        missing.hint = missing.hint or await _where_else(store, spellings(name))
        raise


async def _where_else(store: Store, names: list[str]) -> str:
    """In which other namespaces there is such an image."""
    found = []
    async for namespace in store.namespaces.list():
        if namespace.name == store.namespace:
            continue
        for name in names:
            try:
                await store.in_namespace(namespace.name).images.get(name)
            except NotFound:
                continue
            found.append(namespace.name)
            break
        if len(found) == _MOST_NAMED:
            break
    return f"it is in namespace {' and '.join(found)}: use -n {found[0]}" if found else ""


def spellings(name: str) -> list[str]:
    """As given, and as `pull` would have stored it."""
    try:
        full = normalize(name)
    except OrlopError:
        return [name]
    return [name] if full == name else [name, full]
