"""The worked graphs in which snapshots matter. Source: spec gc 16. The others: test_worked_graphs.py."""

from __future__ import annotations

import pytest

from orlop.protocol import errors

from ..support.graphs import Graph

FLAT = """
    c:k
    c:q
    c:z
    c:m ref.content=c:k
    c:p ref.content=c:q
    c:back bref.content=c:p
    s:s1
    s:s2 parent=s1 ref.content=c:z
    i:im target=c:m expire=past
    L:L {label} holds=i:im,c:p,s:s2
"""


async def test_graph_04_only_a_slash_starts_a_free_name_after_the_snapshotter(graph: Graph) -> None:
    ref = "ref.snapshot.native"
    await graph.check(
        f"""
        s:a
        s:b
        s:c
        s:d/e
        c:x root=r {ref}=a {ref}/n=b {ref}.n=c {ref}/z=d/e
        """,
        "c:x s:a s:b s:d/e",
    )


async def test_graph_07_back_references_lead_from_their_target(graph: Graph) -> None:
    await graph.check(
        """
        c:p root=r
        c:q bref.content.x=c:p
        c:q2 bref.content/x=c:p
        c:q3 bref.contentx=c:p
        c:r bref.container=C
        c:r2 bref.container=D
        k:C
        s:s bref.content=c:p
        c:t bref.snapshot.native=s
        c:t2 bref.snapshot.native/any=s
        c:t3 bref.snapshot.native.any=s
        """,
        "c:p c:q c:q2 c:r s:s c:t c:t2 k:C",
    )


async def test_graph_08_a_container_keeps_its_snapshot_and_not_its_image(graph: Graph) -> None:
    await graph.check(
        """
        c:x
        i:img target=c:x expire=past
        s:s
        k:C image=img snapshot=s
        """,
        "s:s k:C",
    )


async def test_graph_09_a_container_keeps_what_its_labels_name(graph: Graph) -> None:
    await graph.check(
        """
        c:x
        s:p
        s:q parent=p
        s:o
        k:C snapshot=q ref.content.0=c:x ref.snapshot.native/foo=o
        """,
        "s:p s:q s:o c:x k:C",
    )


async def test_graph_11_a_flat_lease_keeps_its_entries_targets_and_parents(graph: Graph) -> None:
    await graph.check(FLAT.format(label="flat=any"), "i:im c:m c:p s:s1 s:s2 L:L")


async def test_graph_12_a_lease_that_is_not_flat_keeps_all(graph: Graph) -> None:
    await graph.check(FLAT.format(label=""), "i:im c:m c:k c:p c:q c:back s:s1 s:s2 c:z L:L")


async def test_graph_15_conditions_keep_what_was_used_when_they_say(graph: Graph) -> None:
    cond = "cond.snapshot.native"
    await graph.check(
        f"""
        s:young cond.value-usedat=1h-ago
        s:old cond.value-usedat=3h-ago
        s:noval
        s:gt cond.value-usedat=3h-ago
        s:eq cond.value-usedat=3h-ago
        s:or cond.value-usedat=3h-ago
        s:u cond.value-usedat=1h-ago
        c:c root=r {cond}/1=usedat<2h|young {cond}/2=usedat<2h|old {cond}/3=usedat<2h|noval {cond}/4=usedat>2h|gt \
            {cond}/5=usedat<=4h|eq {cond}/6=usedat<2h,usedat>1h|or
        c:d {cond}=usedat<2h|u
        """,
        "c:c s:young s:gt s:or",
    )


async def test_graph_16_a_condition_of_an_image_that_another_keeps(graph: Graph) -> None:
    await graph.build(
        """
        s:s cond.value-usedat=1h-ago
        c:x
        i:main target=c:x
        i:sub target=c:x expire=past bref.image=main cond.snapshot.native=usedat<2h|s
        """
    )
    assert await graph.survivors() == {"i:main", "i:sub", "c:x", "s:s"}
    await graph.store.images.delete("main")
    assert await graph.survivors() == set()


async def test_graph_19_a_child_goes_and_its_parent_can_be_removed(graph: Graph) -> None:
    await graph.build(
        """
        s:p root=r
        s:c parent=p
        """
    )
    assert await graph.survivors() == {"s:p"}
    snapshots = graph.store.snapshots.using("native")
    await snapshots.remove("p")
    with pytest.raises(errors.NotFound):
        await snapshots.get("p")


async def test_graph_20_a_child_keeps_its_parent_and_not_its_sibling(graph: Graph) -> None:
    await graph.check(
        """
        s:p
        s:c parent=p root=r
        s:sib parent=p
        """,
        "s:c s:p",
    )


async def test_graph_21_an_active_is_no_root(graph: Graph) -> None:
    await graph.check(
        """
        s:b
        v:v parent=b root=r
        a:a parent=b
        """,
        "s:b s:v",
    )


async def test_graph_22_snapshots_and_content_by_turns(graph: Graph) -> None:
    await graph.check(
        """
        s:s2
        s:s3 parent=s2
        c:q ref.snapshot.native=s2
        s:s0
        s:s1 parent=s0 ref.content.q=c:q
        c:t ref.snapshot.native=s1
        i:i target=c:t
        """,
        "i:i c:t s:s0 s:s1 c:q s:s2",
    )
