"""Edge cases of what lives and what goes. Source: spec gc 17; the number of a test is that of its row.

Rows about clocks, settings and disks: test_gc_edges_running.py. Rows that others test:

2, 3, 4, 11, 18, 20, 37, 43, 49 in tests/conformance/test_collection.py (`a_lease_keeps_what_was_committed_under_it`,
`a_blob_committed_without_the_lease_of_its_open_goes`, `files_go_when_the_last_namespace_lets_go`,
`an_open_ingest_whose_lease_goes_ends_in_a_clear_way`, `a_replaced_reference_label_lets_the_old_blob_go`,
`a_reference_may_come_before_its_target`, `a_blob_that_comes_back_while_its_bytes_go_is_never_without_them`,
`a_dangling_lease_entry_protects_what_comes_later`, `nothing_to_collect_is_no_error_and_no_event`); 9, 10 there too
(`an_ingest_without_lease_lives_for_a_day`, `a_reopened_ingest_lives_for_another_day`). 15, 19, 23: graphs 6, 1, 19.
24: tests/conformance/test_snapshots_collection.py (`what_a_lease_made_goes_with_the_lease_and_so_do_its_folders`).

Left out: 34, there is no pause threshold (`share` is checked when the settings are read); 36, a mark holds up no
write; 44 and 45, resources of others do not plug in; 50, events are written with the change, and nobody publishes.
"""

from __future__ import annotations

import os

import pytest

import orlop

from ..conftest import StoreMaker
from ..support.graphs import Graph, digest_of

LARGE = b"more than is kept in a record" * 2000
EXPIRE = "containerd.io/gc.expire"
UNPACKED = """
    s:base
    s:top parent=base
    c:layer
    c:cfg ref.snapshot.native=top
    c:man ref.content.config=c:cfg ref.content.l.0=c:layer
    i:app target=c:man
"""
IMAGE = {"i:app", "c:man", "c:cfg", "c:layer", "s:top", "s:base"}

SOAK = bool(os.environ.get("ORLOP_SOAK"))
DEPTH, CYCLE = (1000, 10_000) if SOAK else (150, 2_000)


def blob_files(stores: StoreMaker) -> list[str]:
    return os.listdir(stores.folder / "store" / "blobs" / "sha256")


async def test_17_01_a_blob_without_label_and_lease_goes_with_its_file(stores: StoreMaker) -> None:
    async with stores.open() as store:
        await store.content.write("ref", LARGE)
        await store.content.put(b"small")
        assert len(blob_files(stores)) == 1
        await store.collect()
        assert [info async for info in store.content.list()] == []
        assert blob_files(stores) == []


async def test_17_16_an_image_whose_expiry_is_emptied_is_a_root_again(graph: Graph) -> None:
    await graph.build(
        """
        c:x
        c:y
        i:a target=c:x expire=past
        i:b target=c:y expire=past
        """
    )
    await graph.store.images.update("a", labels={EXPIRE: ""}, mask=[f"labels.{EXPIRE}"])
    assert await graph.survivors() == {"i:a", "c:x"}


@pytest.mark.slow
async def test_17_21_a_long_chain_of_snapshots_is_kept_by_its_top(tmp_path) -> None:
    async with StoreMaker("embedded", "memory", tmp_path).open() as store:
        graph = Graph(store)
        lines = [f"s:s{n} parent=s{n - 1}" if n else "s:s0" for n in range(DEPTH)]
        await graph.build("\n".join([*lines, f"k:C snapshot=s{DEPTH - 1}"]))
        assert await graph.survivors() == {f"s:s{n}" for n in range(DEPTH)} | {"k:C"}
        await store.containers.delete("C")
        assert await graph.survivors() == set()


@pytest.mark.slow
async def test_17_22_a_long_cycle_goes_at_once(tmp_path) -> None:
    count, batch = CYCLE, 100
    async with StoreMaker("embedded", "memory", tmp_path).open() as store:
        await store.leases.create("scaffold")
        for first in range(0, count, batch):
            async with store.with_lease("scaffold").transaction() as tx:
                for n in range(first, first + batch):
                    following = digest_of(f"{(n + 1) % count}")
                    tx.content.put(str(n).encode(), labels={"containerd.io/gc.ref.content": following})
        await store.images.create("app", orlop.Descriptor("type", digest_of("7"), 1))
        await store.leases.delete("scaffold")
        await store.collect()
        assert len([info async for info in store.content.list()]) == count
        await store.images.delete("app")
        await store.collect()
        assert [info async for info in store.content.list()] == []


async def test_17_26_a_container_goes_and_takes_its_own_snapshot_only(graph: Graph) -> None:
    await graph.build(UNPACKED + "    a:own parent=top\n    k:C snapshot=own image=app\n")
    assert await graph.survivors() == IMAGE | {"s:own", "k:C"}
    await graph.store.containers.delete("C")
    assert await graph.survivors() == IMAGE


async def test_17_27_a_container_keeps_its_chain_and_not_its_images_layers(graph: Graph) -> None:
    await graph.build(UNPACKED + "    a:own parent=top\n    k:C snapshot=own image=app\n")
    assert await graph.survivors() == IMAGE | {"s:own", "k:C"}
    await graph.store.images.delete("app")
    assert await graph.survivors() == {"s:own", "s:top", "s:base", "k:C"}


async def test_17_28_an_image_deleted_with_sync_is_off_the_disk(stores: StoreMaker) -> None:
    async with stores.open() as store:
        await store.leases.create("scaffold")
        scaffold = store.with_lease("scaffold")
        snapshots = scaffold.snapshots.using("native")
        await snapshots.prepare("active")
        await snapshots.commit("top", "active")
        layer = await scaffold.content.write("ref", LARGE)
        labels = {"containerd.io/gc.ref.content": layer.digest, "containerd.io/gc.ref.snapshot.native": "top"}
        manifest = await scaffold.content.put(b"manifest", labels=labels)
        await store.images.create("app", orlop.Descriptor("type", manifest.digest, manifest.size))
        await store.leases.delete("scaffold", sync=True)
        folders = stores.folder / "store" / "snapshots" / "native"
        assert (len(blob_files(stores)), len(os.listdir(folders))) == (1, 1)
        await store.images.delete("app", sync=True)
        assert (blob_files(stores), os.listdir(folders)) == ([], [])
        assert [info async for info in store.content.list()] == []
        assert [info async for info in store.snapshots.using("native").list()] == []


async def test_17_41_a_root_label_on_a_lease_or_image_has_no_effect(graph: Graph) -> None:
    await graph.check(
        """
        c:x
        c:y
        c:z
        i:i target=c:x expire=past root=r
        L:L expire=past root=r holds=c:y
        k:C root=r
        """,
        "k:C",
    )


async def test_17_46_an_equation_keeps_nothing_and_spoils_no_alternative(graph: Graph) -> None:
    await graph.check(
        """
        s:equal cond.value-usedat=1h-ago
        s:second cond.value-usedat=1h-ago
        c:c root=r cond.snapshot.native/1=usedat=2h|equal cond.snapshot.native/2=bogus,usedat<2h|second
        """,
        "c:c s:second",
    )


async def test_17_48_a_namespace_with_only_leases_and_ingests_can_be_deleted(stores: StoreMaker) -> None:
    async with stores.open(namespace="tenant") as tenant:
        await tenant.leases.create("lease")
        for there, ref in ((tenant, "loose"), (tenant.with_lease("lease"), "leased")):
            async with there.content.ingest(ref) as writer:
                await writer.write(LARGE)
        ingests = stores.folder / "store" / "ingests"
        assert len(os.listdir(ingests)) == 2
        await tenant.namespaces.delete("tenant")
        await tenant.collect()
        assert os.listdir(ingests) == []
        assert [lease async for lease in tenant.leases.list()] == []
        assert [status async for status in tenant.content.ingests()] == []


async def test_17_51_a_flat_and_a_normal_lease_on_one_image_keep_its_children(graph: Graph) -> None:
    await graph.build(
        """
        c:layer
        c:man ref.content=c:layer
        c:more
        i:im target=c:man expire=past ref.content=c:more
        L:flat flat=1 holds=i:im
        L:normal holds=i:im
        """
    )
    both = {"i:im", "c:man", "c:layer", "c:more"}
    assert await graph.survivors() == both | {"L:flat", "L:normal"}
    await graph.store.leases.delete("normal")
    assert await graph.survivors() == {"i:im", "c:man", "L:flat"}


async def test_17_52_a_sandbox_keeps_the_snapshots_that_its_labels_name(graph: Graph) -> None:
    await graph.build(
        """
        c:x
        s:base
        s:top parent=base ref.content=c:x
        s:other parent=base
        i:im target=c:x expire=past
        b:B ref.snapshot.native/any=top ref.image=im
        """
    )
    assert await graph.survivors() == {"s:base", "s:top", "c:x", "i:im"}
    await graph.store.sandboxes.delete("B")
    assert await graph.survivors() == set()


async def test_any_label_that_begins_as_the_root_label_is_one(graph: Graph) -> None:
    """spec gc 3"""
    await graph.build(
        """
        c:a root.of.something=x
        c:b roo=x
        s:one root.of.something=x
        s:two rooted=x
        s:three roo=x
        """
    )
    assert await graph.survivors() == {"c:a", "s:one", "s:two"}
