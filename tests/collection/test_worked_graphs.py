"""The worked graphs of content, images, leases and containers. Source: spec gc 16.

Those in which snapshots matter most: test_worked_graphs_snapshots.py. Graphs that are deleted from or span
namespaces are checked by hand; all others by `Graph.check`, which in the end also takes their roots away.
"""

from __future__ import annotations

import os

import pytest

import orlop
from orlop.protocol import errors

from ..conftest import StoreMaker
from ..support.graphs import Graph

LARGE = b"more than is kept in a record" * 2000


async def test_graph_01_an_image_keeps_all_that_its_index_leads_to(graph: Graph) -> None:
    await graph.build(
        """
        s:base
        s:top parent=base
        c:l0
        c:cfg ref.snapshot.native=top
        c:man ref.content.config=c:cfg ref.content.l.0=c:l0
        c:idx ref.content.m.0=c:man ref.content.m.1=c:absent
        i:app target=c:idx
        """
    )
    assert await graph.survivors() == {"i:app", "c:idx", "c:man", "c:cfg", "c:l0", "s:top", "s:base"}
    await graph.store.images.delete("app")
    assert await graph.survivors() == set()


async def test_graph_02_a_cycle_keeps_nothing(graph: Graph) -> None:
    await graph.check(
        """
        c:a ref.content=c:b
        c:b ref.content=c:a
        c:c ref.content=c:c
        """,
        "",
    )


async def test_graph_03_a_reference_label_ends_or_goes_on_with_dot_or_slash(graph: Graph) -> None:
    await graph.check(
        """
        c:a
        c:b
        c:c
        c:d
        c:e
        c:x root=r ref.content=c:a ref.content.b=c:b ref.content/c=c:c ref.contentd=c:d ref.content-e=c:e
        """,
        "c:x c:a c:b c:c",
    )


async def test_graph_05_images_live_until_they_expire(graph: Graph) -> None:
    await graph.check(
        """
        i:p expire=past
        i:f expire=future
        i:inv expire=tomorrow
        i:now expire=now
        """,
        "i:f i:inv",
    )


async def test_graph_06_expired_images_live_by_who_refers_to_them(graph: Graph) -> None:
    await graph.build(
        """
        c:x
        c:y
        c:z
        c:w
        c:v
        i:main target=c:x ref.image.a=child
        i:child target=c:y expire=past
        i:brefd target=c:z expire=past bref.image=main
        i:chain target=c:w expire=past bref.image=brefd
        i:lost target=c:v expire=past bref.image=gone
        i:leased target=c:w expire=past
        L:L holds=i:leased
        """
    )
    images = {"i:main", "i:child", "i:brefd", "i:chain", "i:leased"}
    assert await graph.survivors() == images | {"c:x", "c:y", "c:z", "c:w", "L:L"}
    await graph.store.images.delete("main")
    assert await graph.survivors() == {"i:leased", "c:w", "L:L"}
    await graph.store.leases.delete("L")
    assert await graph.survivors() == set()


async def test_graph_10_the_other_namespaces_record_and_file_stay(stores: StoreMaker) -> None:
    async with stores.open() as opened:
        one, two = opened.in_namespace("ns1"), opened.in_namespace("ns2")
        digest = ""
        for there in (one, two):
            await there.leases.create("scaffold")
            async with there.with_lease("scaffold").content.ingest("ref") as writer:
                await writer.write(LARGE)
                digest = (await writer.commit()).digest
        await two.images.create("i", orlop.Descriptor("type", digest, len(LARGE)))
        for there in (one, two):
            await there.leases.delete("scaffold")
        await opened.collect()
        assert [info async for info in one.content.list()] == []
        assert [info.digest async for info in two.content.list()] == [digest]
        assert [image.name async for image in two.images.list()] == ["i"]
        assert await two.content.read(digest) == LARGE
        assert len(files(stores)) == 1
        await two.images.delete("i", sync=True)
        assert [info async for info in two.content.list()] == []
        assert files(stores) == []


async def test_graph_13_a_blob_reached_flat_and_normally_is_followed(graph: Graph) -> None:
    await graph.check(
        """
        c:q
        c:p ref.content=c:q
        i:i target=c:p
        L:L flat=yes holds=c:p
        """,
        "i:i c:p c:q L:L",
    )


async def test_graph_14_which_leases_count(graph: Graph) -> None:
    await graph.check(
        """
        c:ak
        c:bk
        c:ck
        c:a ref.content=c:ak
        c:b ref.content=c:bk
        c:c ref.content=c:ck
        L:a expire=past holds=c:a
        L:b expire=garbage holds=c:b
        L:c flat= holds=c:c
        """,
        "c:b c:bk c:c c:ck L:b L:c",
    )


async def test_graph_17_a_missing_target_still_leads_back(graph: Graph) -> None:
    await graph.check(
        """
        c:a root=r ref.content=c:absent
        c:b bref.content=c:absent
        c:c bref.image=noimage
        """,
        "c:a c:b",
    )


async def test_graph_18_a_missing_entry_of_a_lease_leads_back_unless_flat(graph: Graph) -> None:
    await graph.check(
        """
        c:b bref.content=c:absent
        c:c bref.content=c:absent2
        L:L holds=c:absent
        L:F flat=1 holds=c:absent2
        """,
        "c:b L:L L:F",
    )


async def test_graph_23_expiry_on_content_and_root_on_images_mean_nothing(graph: Graph) -> None:
    await graph.check(
        """
        c:a expire=future
        s:s expire=future
        i:e expire=past root=r
        """,
        "",
    )


async def test_graph_24_a_container_is_not_kept_and_keeps_nothing_by_a_back_reference(graph: Graph) -> None:
    await graph.check(
        """
        c:x
        k:C bref.content=c:x
        """,
        "k:C",
    )


async def test_graph_25_a_flat_image_keeps_its_target_only(graph: Graph) -> None:
    await graph.check(
        """
        c:y
        c:x ref.content=c:y
        i:im target=c:x expire=past ref.image=im2
        i:im2 target=c:y expire=past
        i:im3 expire=past bref.image=im
        L:F flat=1 holds=i:im
        """,
        "i:im c:x L:F",
    )


@pytest.mark.parametrize("size", [len(LARGE), 100])
async def test_graph_26_an_adopting_ingest_keeps_the_bytes(stores: StoreMaker, size: int) -> None:
    data = LARGE[:size]
    async with stores.open() as opened:
        one, two = opened.in_namespace("ns1"), opened.in_namespace("ns2")
        async with one.content.ingest("ref") as writer:
            await writer.write(data)
            digest = (await writer.commit()).digest
        await two.leases.create("lease")
        async with two.with_lease("lease").content.ingest("ref", expected=digest) as adopting:
            assert adopting.offset == size
            await opened.collect()
            assert [info async for info in one.content.list()] == []
            assert len(files(stores)) == (size > 16 * 1024)
            with pytest.raises(errors.NotFound):
                await one.content.read(digest)
            await two.leases.delete("lease")
            await opened.collect()
            assert files(stores) == []
            with pytest.raises(errors.NotFound):
                await adopting.commit()


def files(stores: StoreMaker) -> list[str]:
    """Those of blobs."""
    return os.listdir(stores.folder / "store" / "blobs" / "sha256")
