"""orlop containers"""

from __future__ import annotations

import time
from typing import Any, BinaryIO

import click
import msgspec
import trio

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.errors import NotFound
from ...protocol.labels import GC_ROOT
from ...protocol.records import Any_, Container, Runtime, SnapshotKind
from ..embed import host_platform
from ..output import print_json
from ..session import Session
from .image_documents import image_config
from .listing import ListOptions, list_options, print_labels, run_list
from .names import resolve_name
from .options import for_each, parse_labels

__all__ = ["containers"]

_GIVE_UP_S = 10.0
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
STOP_SIGNAL = "io.containerd.image.config.stop-signal"
_RESERVED = ("containerd.io/", "io.cri-containerd")  # never taken over from an image: spec metadata 4


@click.group()
def containers() -> None:
    """Containers: records of what runs elsewhere. Creating one runs nothing."""


@containers.command("create")
@click.argument("arguments", nargs=-1, required=True, metavar="[IMAGE] ID")
@click.option("--config", "-c", type=click.File("rb"), help="The runtime spec, as JSON; then IMAGE is not needed.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--runtime", default="io.containerd.runc.v2", show_default=True)
@click.option("--snapshotter", default="", help="Where the container's snapshot lies.")
@click.option("--snapshot-key", default="", help="One that is there. Needs --snapshotter. Default: one is prepared.")
@click.option("--snapshotter-label", "snapshot_labels", multiple=True, metavar="KEY=VALUE", help="Of the one prepared.")
@click.option("--no-snapshot", is_flag=True, help="Only the record; nothing is unpacked.")
@click.pass_obj
def create(
    session: Session,
    arguments: tuple[str, ...],
    config: BinaryIO | None,
    labels: tuple[str, ...],
    runtime: str,
    snapshotter: str,
    snapshot_key: str,
    snapshot_labels: tuple[str, ...],
    no_snapshot: bool,
) -> None:
    """Record a container. Its image is unpacked, and a snapshot of its own prepared, whose key is ID. Labels of the
    image's configuration are taken over, those given here win.

    \b
    orlop containers create docker.io/library/redis:latest cache-1 --label tier=db
    orlop containers create --config spec.json helper
    """
    if len(arguments) != (1 if config else 2):
        raise click.UsageError("give IMAGE and ID, or ID alone with --config")
    spec = config.read() if config is not None else b'{"ociVersion":"1.2.0"}'
    try:
        msgspec.json.decode(spec)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--config is not JSON: {error}") from None

    async def run(store: Store) -> None:
        image, given = "", parse_labels(labels)
        if config is None:
            image = await resolve_name(store, arguments[0])
            settings = (await image_config(store, await store.images.get(image), host_platform())).config
            taken = (settings.labels or {}) if settings else {}
            stop = (settings.stop_signal if settings else "") or "SIGTERM"
            given = {
                **{key: value for key, value in taken.items() if not key.startswith(_RESERVED)},
                STOP_SIGNAL: stop,
                **given,
            }
        container = Container(
            arguments[-1],
            labels=given,
            image=image,
            runtime=Runtime(runtime),
            spec=Any_(SPEC_TYPE, spec),
            snapshotter=snapshotter,
            snapshot_key=snapshot_key,
        )
        if not image or snapshot_key or no_snapshot:
            await store.containers.create(container)
        else:
            await _create_with_snapshot(store, container, parse_labels(snapshot_labels))

    session.run(run)


async def _create_with_snapshot(store: Store, container: Container, labels: dict[str, str]) -> None:
    """Either both are there afterwards or neither."""
    async with store.lease() as leased:
        unpacked = await leased.images.unpack(container.image, snapshotter=container.snapshotter)
        snapshots = leased.snapshots.using(unpacked.snapshotter)
        await snapshots.prepare(container.id, unpacked.chain_id, labels)
        whole = msgspec.structs.replace(container, snapshotter=unpacked.snapshotter, snapshot_key=container.id)
        try:
            await leased.containers.create(whole)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GIVE_UP_S):
                await snapshots.remove(container.id)
            raise


@containers.command("list")
@list_options
@click.pass_obj
def list_(session: Session, options: ListOptions) -> None:
    """List containers. Filters: id, image, runtime.name, labels.<key>.

    \b
    orlop containers ls 'labels.tier==db' 'image~=redis'
    """
    # Of what the table shows, a container's spec is no part: it need not travel.
    fields = () if options.as_json else ("image", "runtime")

    async def row(_: Store, container: Container) -> list[str]:
        return [container.id, container.image or "-", container.runtime.name]

    run_list(
        session,
        options,
        lambda store: store.containers.list(options.filters, fields=fields),
        lambda container: container.id,
        ("CONTAINER", "IMAGE", "RUNTIME"),
        row,
    )


@containers.command("info")
@click.argument("id", metavar="ID")
@click.option("--spec", "spec_only", is_flag=True, help="Only the runtime spec.")
@click.pass_obj
def info(session: Session, id: str, spec_only: bool) -> None:
    """A container's record, as JSON.

    \b
    orlop containers info web --spec
    """

    async def run(store: Store) -> None:
        container = await store.containers.get(id)
        if spec_only:
            print_json(None if container.spec is None else _readable(container.spec)["value"])
            return
        record = msgspec.to_builtins(container)
        if container.spec is not None:
            record["spec"] = _readable(container.spec)
        print_json(record)

    session.run(run)


@containers.command("label")
@click.argument("id", metavar="ID")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def label(session: Session, id: str, labels: tuple[str, ...]) -> None:
    """Set labels and print what came of it; `key=` removes one. Other labels stay.

    \b
    orlop containers label web tier=front owner=
    """

    async def run(store: Store) -> None:
        given = parse_labels(labels)
        if not given:
            print_labels((await store.containers.get(id)).labels)
            return
        mask = [f"labels.{key}" for key in given]
        print_labels((await store.containers.update(Container(id, labels=given), mask)).labels)

    session.run(run)


@containers.command("remove")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--keep-snapshot", is_flag=True, help="It stays until it is removed by its own name.")
@click.pass_obj
def remove(session: Session, ids: tuple[str, ...], keep_snapshot: bool) -> None:
    """Remove containers: their records, and their snapshots unless another container has the same.

    \b
    orlop containers rm web
    orlop containers rm --keep-snapshot web
    """

    async def run(store: Store) -> None:
        async def one(id: str) -> None:
            container = await store.containers.get(id)
            if not container.snapshot_key:
                await store.containers.delete(id)
                return
            snapshots, key = store.snapshots.using(container.snapshotter), container.snapshot_key
            try:
                if keep_snapshot:
                    await snapshots.update(key, {GC_ROOT: rfc3339(time.time_ns())}, [f"labels.{GC_ROOT}"])
                # A committed one is others' as well; what nobody refers to is collected.
                own = (await snapshots.get(key)).kind is not SnapshotKind.COMMITTED
            except NotFound:
                own = False
            await store.containers.delete(id)
            if own and not keep_snapshot and not await _is_used(store, container):
                await snapshots.remove(key)

        await for_each(ids, one)

    session.run(run)


async def _is_used(store: Store, by: Container) -> bool:
    """Whether another container has the snapshot of this one."""
    async with store.containers.stream(fields=["snapshotter", "snapshot_key"]) as others:
        async for other in others:
            if (other.snapshotter, other.snapshot_key) == (by.snapshotter, by.snapshot_key):
                return True
    return False


def _readable(value: Any_) -> dict[str, Any]:
    """JSON as JSON, anything else as base64."""
    try:
        return {"type_url": value.type_url, "value": msgspec.json.decode(value.value)}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"type_url": value.type_url, "value": value.value}


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del"))):
    for alias in aliases:
        containers.add_command(command, alias)
