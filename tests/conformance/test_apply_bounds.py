"""Layers that try to cost more than they may, or to say what nobody can say: one clear error each."""

from __future__ import annotations

from contextlib import suppress

import pytest

import orlop
from orlop.protocol.errors import InvalidArgument, OrlopError, ResourceExhausted

from ..support.layers import Stack, brief, entry, file, folder, hardlink, layer, pax_header

MIB = 1024 * 1024


async def refused(store: orlop.Store, snapshotter: str, data: bytes, *kinds: type[OrlopError]) -> None:
    with pytest.raises(kinds or InvalidArgument):
        await Stack(store, snapshotter).add(data)


async def test_headers_of_one_entry_do_not_pile_up(leased: orlop.Store, snapshotter: str) -> None:
    headers = [pax_header({f"SCHILY.xattr.user.{n}": b"x" * 200_000}) for n in range(8)]
    await refused(leased, snapshotter, layer(*headers, file("f")))


@pytest.mark.parametrize(
    "name", ["user." + "x" * 300_000, "trusted." + "y" * 5000, "bogus.\udcff\udcfe", "user.a\0b"], ids=str.__len__
)
async def test_names_of_attributes_may_be_anything(leased: orlop.Store, snapshotter: str, name: str) -> None:
    raw = name.encode(errors="surrogateescape")
    header = b" SCHILY.xattr." + raw + b"=v\n"
    length = len(header) + len(str(len(header) + 6))
    record = str(length).encode() + header
    data = layer(entry("pax", b"x", record), file("f", "1"))
    with suppress(InvalidArgument, ResourceExhausted):
        await Stack(leased, snapshotter).add(data)
    await Stack(leased, snapshotter).add(layer(file("f", "1")))


async def test_a_sparse_file_counts_with_its_holes(leased: orlop.Store, snapshotter: str) -> None:
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big"}
    for size, kinds in ((2**62, (ResourceExhausted, InvalidArgument)), (2**64, (InvalidArgument,))):
        data = file("big", "0\n".ljust(512, "\0"), pax={**records, "GNU.sparse.realsize": str(size)})
        await refused(leased, snapshotter, layer(data), *kinds)


async def test_links_between_deep_folders_stand_where_they_should(leased: orlop.Store, snapshotter: str) -> None:
    """More folders than are kept open."""
    one, other = "/".join("a" * 450), "/".join("b" * 450)
    stack = Stack(leased, snapshotter)
    await stack.add(layer(file(f"{one}/source", "x"), folder(other), hardlink(f"{other}/link", f"{one}/source")))
    seen = brief(await stack.tree())
    assert f"{other}/link" in seen
    assert f"{one}/link" not in seen


async def test_folders_with_many_slashes_are_folders(leased: orlop.Store, snapshotter: str) -> None:
    stack = Stack(leased, snapshotter)
    await stack.add(layer(folder("d//"), file("d//f", "1")))
    assert brief(await stack.tree()) == {"d": "dir", "d/f": "file:1"}
