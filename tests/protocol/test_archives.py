"""Tar streams as imports read and exports write them. Source: POSIX pax and ustar; GNU tar's long names; spec registry
11 and 12.

Archives are made by hand, header by header, where they are to be odd; foreign programs read what orlop writes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.archives.entries import EntryKind, clean_name, read_small
from orlop.protocol.archives.tar import TarSink, tar_entries
from orlop.protocol.errors import FailedPrecondition, InvalidArgument
from tests.support.layers import block, device, end, entry, fifo, file, folder, hardlink, layer, pax_header, symlink

FILE, LINK, OTHER = EntryKind.FILE, EntryKind.LINK, EntryKind.OTHER
BLOCK = 512
GIB = 1 << 30
TIMEOUT_S = 10.0
Seen = tuple[str, EntryKind, bytes | str]
relaxed = settings(deadline=None, max_examples=60)
gnu_tar = pytest.mark.skipif(
    shutil.which("tar") is None or b"GNU" not in subprocess.run(["tar", "--version"], capture_output=True).stdout,
    reason="needs GNU tar",
)


def reader(data: bytes, most: int = 1 << 20) -> Callable[[int], Awaitable[bytes]]:
    """Reads as a pipe does: never more than `most` bytes at a time."""
    stream = io.BytesIO(data)

    async def read(count: int) -> bytes:
        assert count > 0
        return stream.read(min(count, most))

    return read


async def seen(data: bytes, most: int = 1 << 20) -> list[Seen]:
    """Every entry: its name, its kind, and its bytes or its target."""
    found: list[Seen] = []
    with trio.fail_after(TIMEOUT_S):
        async with aclosing(tar_entries(reader(data, most))) as entries:
            async for each in entries:
                content = b"".join([piece async for piece in each.chunks()])
                assert len(content) == each.size
                found.append((each.name, each.kind, each.target if each.kind is LINK else content))
    return found


def resealed(header: bytes) -> bytes:
    """With the checksum that it has now."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def with_size(header: bytes, size: bytes) -> bytes:
    return resealed(header[:124] + size.ljust(12, b"\0") + header[136:])


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def gnu_name(name: str, data: bytes = b"") -> bytes:
    text = name.encode() + b"\0"
    long = block("././@LongLink", b"L", size=len(text), magic=b"ustar  \0") + padded(text)
    return long + block(name[:100], size=len(data), magic=b"ustar  \0") + padded(data)


def gnu_target(name: str, target: str) -> bytes:
    text = target.encode() + b"\0"
    long = block("././@LongLink", b"K", size=len(text), magic=b"ustar  \0") + padded(text)
    return long + block(name, b"2", target=target[:100], magic=b"ustar  \0")


DEEP = "/".join(["folder"] * 20) + "/name"
KIB = bytes(range(256)) * 4

READ: dict[str, tuple[bytes, list[Seen]]] = {
    "nothing but the end": (end, []),
    "a file": (layer(file("a", b"1")), [("a", FILE, b"1")]),
    "no bytes": (layer(file("a"), file("b", b"2")), [("a", FILE, b""), ("b", FILE, b"2")]),
    "exactly one block": (layer(file("a", b"x" * 512), file("b")), [("a", FILE, b"x" * 512), ("b", FILE, b"")]),
    "one byte more than a block": (
        layer(file("a", b"x" * 513), file("b")),
        [("a", FILE, b"x" * 513), ("b", FILE, b"")],
    ),
    "the prefix of ustar": (
        layer(block("name", size=1, rest=b"some/folder") + padded(b"1")),
        [("some/folder/name", FILE, b"1")],
    ),
    "before ustar": (layer(block("a", b"\0", magic=b"", size=1) + padded(b"1")), [("a", FILE, b"1")]),
    "a contiguous file": (layer(entry("a", b"7", b"1")), [("a", FILE, b"1")]),
    "a long name of GNU": (layer(gnu_name(DEEP, b"1"), file("b")), [(DEEP, FILE, b"1"), ("b", FILE, b"")]),
    "a long target of GNU": (layer(gnu_target("a", DEEP)), [("a", LINK, DEEP)]),
    "a long name of pax": (layer(file(DEEP, b"1"), file("b")), [(DEEP, FILE, b"1"), ("b", FILE, b"")]),
    "a long target of pax": (layer(symlink("a", DEEP)), [("a", LINK, DEEP)]),
    "a name in pax that is not ASCII": (layer(file("x", pax={"path": "ä/ß"})), [("ä/ß", FILE, b"")]),
    "a size in pax": (
        layer(pax_header({"size": "600"}) + block("a", b"0", size=0) + b"x" * 600 + bytes(424), file("b")),
        [("a", FILE, b"x" * 600), ("b", FILE, b"")],
    ),
    "pax for all that follow": (
        layer(pax_header({"comment": "for all"}, b"g"), file("a", b"1")),
        [("a", FILE, b"1")],
    ),
    "pax that says nothing of names": (layer(file("a", b"1", pax={"mtime": "1.5"})), [("a", FILE, b"1")]),
    "a size in base 256": (
        layer(with_size(block("a"), b"\x80" + bytes(10) + b"\x01") + padded(b"1")),
        [("a", FILE, b"1")],
    ),
    "a name with a dot": (layer(file("./index.json", b"1")), [("index.json", FILE, b"1")]),
    "a name from the root": (layer(file("/index.json", b"1")), [("index.json", FILE, b"1")]),
    "a name with needless parts": (layer(file("a//b/./c", b"1")), [("a/b/c", FILE, b"1")]),
    "a name outside": (layer(file("../evil", b"1"), file("b")), [("", FILE, b"1"), ("b", FILE, b"")]),
    "a link": (layer(symlink("a", "b")), [("a", LINK, "b")]),
    "a link to a neighbour": (layer(symlink("one/a", "b")), [("one/a", LINK, "one/b")]),
    "a link that climbs": (layer(symlink("one/a", "../two/a")), [("one/a", LINK, "two/a")]),
    "a link that climbs and comes back": (layer(symlink("one/a", "../one/../two/b")), [("one/a", LINK, "two/b")]),
    "a link that climbs out": (layer(symlink("one/a", "../../two/a")), [("one/a", LINK, "")]),
    "a link from the root": (layer(symlink("one/a", "/two/a")), [("one/a", LINK, "two/a")]),
    "a hard link is from the root": (layer(file("two/a"), hardlink("one/a", "two/a")), [
        ("two/a", FILE, b""), ("one/a", LINK, "two/a"),
    ]),
    "a hard link whose size is that of the file": (
        layer(hardlink("a", "b", size=700), file("c", b"1")),
        [("a", LINK, "b"), ("c", FILE, b"1")],
    ),
    "folders, devices, pipes": (
        layer(folder("f"), device("c", "char", 1, 3), device("d", "block", 8, 0), fifo("p"), file("a", b"1")),
        [("f", OTHER, b""), ("c", OTHER, b""), ("d", OTHER, b""), ("p", OTHER, b""), ("a", FILE, b"1")],
    ),
    "a folder that has a size, and no bytes": (
        layer(folder("f", size=4096), file("a", b"1")),
        [("f", OTHER, b""), ("a", FILE, b"1")],
    ),
    "an unknown kind with bytes": (
        layer(entry("v", b"V"), entry("n", b"N", KIB), file("a", b"1")),
        [("v", OTHER, b""), ("n", OTHER, b""), ("a", FILE, b"1")],
    ),
    "what follows the end": (layer(file("a", b"1")) + layer(file("b", b"2")), [("a", FILE, b"1")]),
}  # fmt: skip


@pytest.mark.parametrize("most", [1 << 20, 700, 7])
@pytest.mark.parametrize("case", READ)
async def test_entries_are_read(case: str, most: int) -> None:
    data, expected = READ[case]
    assert await seen(data, most) == expected


REFUSED: dict[str, bytes] = {
    "no tar": b"this is a letter and not an archive".ljust(1024),
    "a header with a wrong checksum": resealed(block("a"))[:148] + b"000001\0 " + block("a")[156:] + end,
    "a broken second header": file("a") + b"x" * 512 + end,
    "a negative size": with_size(block("a"), b"\xff" * 12) + end,
    "a negative size of what follows": with_size(block("a", b"x"), b"\xff" * 12) + file("b") + end,
    "a negative size of an unknown kind": with_size(block("a", b"N"), b"\xff" * 12) + file("b") + end,
    "a long name of more than a megabyte": block("a", b"L", size=2 << 20) + bytes(2 << 20) + end,
    "pax of more than a megabyte": block("a", b"x", size=2 << 20) + bytes(2 << 20) + end,
    "pax without lengths": block("a", b"x", size=9) + padded(b"path=name") + file("b") + end,
    "pax with a length beyond its end": block("a", b"x", size=9) + padded(b"99 path=a") + file("b") + end,
    "pax with a length of nothing": block("a", b"x", size=7) + padded(b"0 x=yy\n") + file("b") + end,
    "pax with a length of five thousand digits": (
        block("a", b"x", size=5010) + padded(b"9" * 5000 + b" path=a\n") + file("b") + end
    ),
    "a size in pax of five thousand digits": layer(file("a", pax={"size": "9" * 5000})),
    "a size in pax that is no decimal number": layer(file("a", pax={"size": "²"})),
    "a size in pax that is negative": layer(file("a", pax={"size": "-1"})),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_archive_is_refused(case: str) -> None:
    with pytest.raises(InvalidArgument):
        await seen(REFUSED[case])


def everything() -> bytes:
    """An archive with every kind of header, and without its end."""
    return b"".join(
        [file("a", b"x" * 700), file(DEEP, b"1"), gnu_name(DEEP, b"2"), symlink("l", DEEP), folder("f"), file("b")]
    )


HEADERS = [at for at in range(0, len(everything()), BLOCK) if everything()[at + 257 :].startswith(b"ustar")]


@pytest.mark.parametrize("beyond", [0, 1, 257, 511])
async def test_an_archive_that_is_cut_short_is_refused(beyond: int) -> None:
    """Wherever that is: without its end marker nobody knows whether it is whole."""
    whole = everything()
    for at in range(beyond, len(whole) + 1, BLOCK):
        with pytest.raises(InvalidArgument, match=r"cut short|ends in the middle"):
            await seen(whole[:at])
    assert len(await seen(whole + end)) == 6


async def test_what_nobody_read_of_an_entry_is_skipped() -> None:
    names, read_of_it = [], 0
    async with aclosing(
        tar_entries(reader(layer(file("a", b"x" * 5000), file("b", b"y" * 600), file("c")), 512))
    ) as each:
        async for one in each:
            names.append(one.name)
            if one.name == "a":
                async with aclosing(one.chunks()) as chunks:
                    read_of_it = len(await anext(chunks))
    assert names == ["a", "b", "c"]
    assert 0 < read_of_it < 5000


async def test_a_document_that_is_too_large_is_not_read() -> None:
    async with aclosing(tar_entries(reader(layer(file("a", b"x" * 100))))) as entries:
        one = await anext(entries)
        with pytest.raises(InvalidArgument, match="100 bytes"):
            await read_small(one, 99)
        assert await read_small(one, 100) == b"x" * 100


@pytest.mark.parametrize(
    "name, clean",
    [
        ("a", "a"), ("./a", "a"), ("/a", "a"), ("//a", "a"), ("a/", "a"), ("a//b", "a/b"), ("./", ""), (".", ""),
        ("..", ""), ("../a", ""), ("a/../../b", ""), ("..a", "..a"), ("a..b/c..", "a..b/c.."),
    ],
)  # fmt: skip
def test_names_are_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@relaxed
@given(st.binary(max_size=3000))
def test_garbage_is_refused_or_read_but_never_anything_else(data: bytes) -> None:
    trio.run(survives, data)


@settings(deadline=None, max_examples=300)
@given(
    header=st.sampled_from(HEADERS),
    at=st.integers(0, 500),
    wrong=st.binary(min_size=1, max_size=12),
)
def test_any_field_may_hold_anything(header: int, at: int, wrong: bytes) -> None:
    """Its checksum is right, so it is taken at its word."""
    data = bytearray(everything() + end)
    data[header + at : header + at + len(wrong)] = wrong
    data[header : header + BLOCK] = resealed(bytes(data[header : header + BLOCK]))
    trio.run(survives, bytes(data))


async def survives(data: bytes) -> None:
    """Names stay inside, and what cannot be read is said so."""
    with contextlib.suppress(InvalidArgument):
        for name, _, _ in await seen(data):
            assert not name.startswith("/")
            assert ".." not in name.split("/")


# Writing

Wanted = tuple[str, bytes | None]  # None: a folder


async def written(wanted: Sequence[Wanted], mode: int = 0o644) -> bytes:
    out = io.BytesIO()

    async def write(data: bytes) -> None:
        out.write(data)

    sink = TarSink(write)
    for name, data in wanted:
        if data is None:
            await sink.folder(name)
        else:
            await sink.file(name, len(data), mode, pieces(data))
    await sink.end()
    return out.getvalue()


async def pieces(data: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


TREE: list[Wanted] = [
    ("blobs", None),
    ("blobs/sha256", None),
    ("blobs/sha256/" + "a" * 64, b"x" * 1000),
    ("blobs/sha512/" + "b" * 128, b""),
    (DEEP, b"1" * 512),
    ("index.json", b"{}"),
]


async def test_what_is_written_is_the_same_for_everybody() -> None:
    """Times are the epoch and owners 0, without names; so the same entries make the same bytes. Spec registry 12."""
    data = await written(TREE, 0o444)
    assert data == await written(TREE, 0o444)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        members = archive.getmembers()
        files = [archive.extractfile(one) for one in members]
        assert [(one.name, file and file.read()) for one, file in zip(members, files, strict=True)] == TREE
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in members} == {(0, 0, 0, "", "")}
    assert [oct(one.mode) for one in members] == ["0o755"] * 2 + ["0o444"] * 4


@gnu_tar
async def test_gnu_tar_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(await written(TREE))
    done = await trio.run_process(["tar", "-xvf", path, "-C", tmp_path], capture_stdout=True, capture_stderr=True)
    assert done.stderr == b""
    assert [line.rstrip("/") for line in done.stdout.decode().splitlines()] == [name for name, _ in TREE]
    for name, data in TREE:
        assert (tmp_path / name).is_dir() if data is None else (tmp_path / name).read_bytes() == data


@gnu_tar
@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "pax"])
async def test_what_gnu_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    name = "n" * 90 if form == "v7" else f"{'folder/' * 15}{'n' * 90}"
    tree = tmp_path / "tree"
    (tree / name).parent.mkdir(parents=True)
    (tree / name).write_bytes(KIB)
    (tree / "link").symlink_to("n")
    made = await trio.run_process(["tar", f"--format={form}", "-C", tree, "-c", "."], capture_stdout=True)
    assert {entry for entry in await seen(made.stdout) if entry[1] is not OTHER} == {
        (name, FILE, KIB),
        ("link", LINK, "n"),
    }


@pytest.mark.parametrize("came", [b"", b"123", b"12345"])
async def test_a_file_that_is_not_as_long_as_announced_is_an_error(came: bytes) -> None:
    sink = TarSink(ignored)
    with pytest.raises(FailedPrecondition, match=f"{len(came)} bytes"):
        await sink.file("a", 4, 0o644, pieces(came))


async def test_files_may_be_larger_than_octal_digits_can_say() -> None:
    headers: list[bytes] = []

    async def write(data: bytes) -> None:
        headers.append(data)

    with pytest.raises(FailedPrecondition):
        await TarSink(write).file("a", 9 * GIB, 0o644, pieces(b""))
    assert tarfile.TarInfo.frombuf(headers[0], "utf-8", "strict").size == 9 * GIB


async def ignored(_: bytes) -> None:
    pass


name_part = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda part: part not in (".", ".."))
tree_entry = st.tuples(st.lists(name_part, min_size=1, max_size=6).map("/".join), st.none() | st.binary(max_size=1500))


@settings(deadline=None, max_examples=100)
@given(st.lists(tree_entry, max_size=6), st.integers(1, 2000))
def test_what_is_written_is_read(wanted: list[Wanted], most: int) -> None:
    async def check() -> None:
        data = await written(wanted)
        expected = [(name, OTHER if data is None else FILE, data or b"") for name, data in wanted]
        assert await seen(data, most) == expected
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            assert [member.name for member in archive] == [name for name, _ in wanted]

    trio.run(check)
