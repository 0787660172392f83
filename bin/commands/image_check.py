"""orlop images check"""

from __future__ import annotations

from enum import Enum

import click
import msgspec

from ...protocol.api import Store
from ...protocol.errors import NotFound, OrlopError
from ...protocol.records import Image
from ...protocol.registry.documents import CONFIG_TYPES, INDEX_TYPES, Child, children, is_layer
from ...protocol.registry.platforms import Platform, best_first
from ...protocol.registry.rootfs import chain_ids, read_rootfs
from ..embed import host_platform
from ..output import EXIT_FAILED, print_json, print_table, size_text
from ..session import Session
from .options import json_option, snapshotter_option

__all__ = ["check"]


class State(Enum):
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    UNAVAILABLE = "unavailable"
    ERROR = "error"


class Checked(msgspec.Struct, frozen=True):
    """How much of an image is here, for one platform: `present` of `required` blobs and bytes of config and layers.
    `missing`: the digests that are not."""

    name: str
    media_type: str
    digest: str
    platform: str
    state: State
    present: int = 0
    required: int = 0
    present_bytes: int = 0
    required_bytes: int = 0
    unpacked: bool = False
    missing: list[str] = []
    error: str = ""

    @property
    def status(self) -> str:
        required = "?" if self.state is State.UNAVAILABLE else str(self.required)
        return self.state.value if self.state is State.ERROR else f"{self.state.value} ({self.present}/{required})"


@click.command("check")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--all-platforms", is_flag=True, help="A line for every platform, not only for this machine's.")
@snapshotter_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the names of those that are complete and unpacked.")
@json_option
@click.pass_obj
def check(
    session: Session, filters: tuple[str, ...], all_platforms: bool, snapshotter: str, quiet: bool, as_json: bool
) -> None:
    """Say which images are here whole, for which platform, and whether they are unpacked.

    Ends with exit status 1 when something is incomplete.

    \b
    orlop images check
    orlop images check 'name~=redis' --all-platforms
    """

    async def run(store: Store) -> None:
        found: list[Checked] = []
        async for image in store.images.list(filters):
            found += await _check(store, image, snapshotter, all_platforms=all_platforms)
        if as_json:
            print_json(found)
        elif quiet:
            for name in dict.fromkeys(each.name for each in found if each.state is State.COMPLETE and each.unpacked):
                click.echo(name)
        else:
            print_table(("REF", "TYPE", "DIGEST", "PLATFORM", "STATUS", "SIZE", "UNPACKED"), map(_row, found))
        if any(each.state is not State.COMPLETE for each in found):
            raise click.exceptions.Exit(EXIT_FAILED)

    session.run(run)


def _row(each: Checked) -> list[str]:
    size = f"{size_text(each.present_bytes)}/{size_text(each.required_bytes)}" if each.required else "-"
    unpacked = str(each.unpacked).lower()
    return [each.name, each.media_type, each.digest, each.platform or "-", each.status, size, unpacked]


async def _check(store: Store, image: Image, snapshotter: str, *, all_platforms: bool) -> list[Checked]:
    target = image.target
    about = (image.name, target.media_type, target.digest)
    try:
        root = Child(target.media_type, target.digest, target.size)
        manifests = await _manifests(store, root, host_platform(), all_platforms)
        if not manifests:
            return [Checked(*about, str(host_platform()), State.UNAVAILABLE, error="no manifest for this platform")]
        return [await _check_one(store, about, manifest, snapshotter) for manifest in manifests]
    except NotFound:
        return [Checked(*about, "", State.UNAVAILABLE)]
    except OrlopError as error:
        return [Checked(*about, "", State.ERROR, error=error.message)]


async def _manifests(store: Store, child: Child, host: Platform, all_platforms: bool) -> list[Child]:
    if child.media_type not in INDEX_TYPES:
        return [child]
    found = children(child.media_type, await store.content.read(child.digest), child.digest)
    chosen = range(len(found)) if all_platforms else best_first([each.platform for each in found], host)[:1]
    return [each for at in chosen for each in await _manifests(store, found[at], host, all_platforms)]


async def _check_one(store: Store, about: tuple[str, str, str], manifest: Child, snapshotter: str) -> Checked:
    platform = str(manifest.platform or "")
    try:
        data = await store.content.read(manifest.digest)
    except NotFound:
        return Checked(*about, platform, State.UNAVAILABLE, missing=[manifest.digest])
    parts = children(manifest.media_type, data, manifest.digest)
    missing = [each for each in parts if not await store.content.has(each.digest)]
    required, lacking = sum(each.size for each in parts), sum(each.size for each in missing)
    unpacked = False
    if parts and parts[0] not in missing and parts[0].media_type in CONFIG_TYPES[:2]:
        rootfs = read_rootfs(await store.content.read(parts[0].digest), parts[0].digest)
        platform = platform or str(rootfs.platform)
        if rootfs.diff_ids and any(is_layer(each.media_type) for each in parts):
            unpacked = await _is_unpacked(store, chain_ids(rootfs.diff_ids)[-1], snapshotter)
    return Checked(
        *about,
        platform,
        State.INCOMPLETE if missing else State.COMPLETE,
        len(parts) - len(missing),
        len(parts),
        required - lacking,
        required,
        unpacked,
        [each.digest for each in missing],
    )


async def _is_unpacked(store: Store, chain_id: str, snapshotter: str) -> bool:
    try:
        await store.snapshots.using(snapshotter).get(chain_id)
    except NotFound:
        return False
    return True
