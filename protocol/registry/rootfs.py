"""An image's root file system by its config: diff IDs, chain IDs, and its platform. Source: spec unpack 1, 2.2."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ..errors import FailedPrecondition, InvalidArgument
from ..identifiers import check_digest
from ..records import Descriptor
from .documents import is_layer
from .platforms import Platform

__all__ = ["Layer", "RootFs", "chain_ids", "layers_of", "read_rootfs"]


MAX_LAYERS: Final = 1000
"""Twice as many as an overlay takes."""


class _RootFs(msgspec.Struct, frozen=True):
    type: str = ""
    diff_ids: list[str] = []


class _Config(msgspec.Struct, frozen=True, rename={"os_version": "os.version", "os_features": "os.features"}):
    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: list[str] = []
    rootfs: _RootFs = _RootFs()


_DECODE = msgspec.json.Decoder(_Config).decode


class RootFs(NamedTuple):
    platform: Platform
    kind: str
    diff_ids: list[str]


class Layer(NamedTuple):
    """`chain_id` names the snapshot that this layer and all below it make."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str


def read_rootfs(data: bytes, digest: str) -> RootFs:
    """Raises InvalidArgument for what is no image config."""
    try:
        config = _DECODE(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"config {digest} is not an image config: {error}") from None
    for diff_id in config.rootfs.diff_ids:
        check_digest(diff_id, f"diff ID of config {digest}")
    platform = Platform(config.os, config.architecture, config.variant, config.os_version, tuple(config.os_features))
    return RootFs(platform, config.rootfs.type, config.rootfs.diff_ids)


def layers_of(children: Sequence[Descriptor], rootfs: RootFs, digest: str) -> list[Layer]:
    """A manifest's layers with what the config says of them. Raises FailedPrecondition when their numbers differ."""
    found = [child for child in children if is_layer(child.media_type)]
    if len(found) > MAX_LAYERS:
        raise FailedPrecondition(f"manifest {digest} has {len(found)} layers; the limit is {MAX_LAYERS}")
    if len(found) != len(rootfs.diff_ids):
        others = sorted({child.media_type for child in children[1:] if not is_layer(child.media_type)})
        not_layers = f"; not layers: {', '.join(others)}" if others else ""
        raise FailedPrecondition(
            f"manifest {digest} has {len(found)} layers, its config {len(rootfs.diff_ids)} diff IDs{not_layers}"
        )
    chains = chain_ids(rootfs.diff_ids)
    return [Layer(*each) for each in zip(found, rootfs.diff_ids, chains, strict=True)]


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    chains: list[str] = []
    for diff_id in diff_ids:
        if not chains:
            chains.append(diff_id)
        else:
            chains.append(f"sha256:{hashlib.sha256(f'{chains[-1]} {diff_id}'.encode()).hexdigest()}")
    return chains
