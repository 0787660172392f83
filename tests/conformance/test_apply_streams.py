"""From a blob to the entries of its archive: compression, framing, formats, limits, and giving up.

Source: spec unpack 3, 4, 5.9, 5.10; a number such as 9.11 is that of its list of edge cases.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    NotImplemented,  # noqa: A004  the field's name for it
    OrlopError,
    ResourceExhausted,
)

from ..support.layers import (
    GZIP,
    MTIME,
    TAR,
    ZSTD,
    Stack,
    block,
    brief,
    digest_of,
    end,
    file,
    folder,
    layer,
    pax_header,
    put_blob,
    quick_store,
    read_tree,
    zstd_repeated,
    zstd_stored,
)

DAMAGED = (InvalidArgument, DataLoss)
DOCKER = "application/vnd.docker.image.rootfs."
HELD_BACK = "application/vnd.oci.image.layer.nondistributable.v1.tar"
AS_IS = [TAR, HELD_BACK]
SNIFFED = [
    GZIP,
    ZSTD,
    HELD_BACK + "+gzip",
    HELD_BACK + "+zstd",
    DOCKER + "diff.tar",
    DOCKER + "diff.tar.gzip",
    DOCKER + "diff.tar.zstd",
    DOCKER + "foreign.diff.tar",
    DOCKER + "foreign.diff.tar.gzip",
]
NOT_READ = [
    TAR + "+encrypted",
    GZIP + "+encrypted",
    TAR + "+lz4",
    "application/vnd.oci.image.layer.v2.tar",
    DOCKER + "diff.tar.gzip+encrypted",
    "application/vnd.erofs.layer.v1",
    "application/vnd.oci.image.config.v1+json",
    "application/octet-stream",
    "",
]
NOISE = random.Random(1).randbytes(1 << 19)  # cannot be packed
PLAIN = layer(folder("d"), file("d/f", b"x" * 3000), file("g", "g"))
SHOWN = {"d": "dir", "d/f": f"file:3000 bytes {digest_of(b'x' * 3000)}", "g": "file:g"}
PACKED = {
    "plain": PLAIN,
    "gzip": gzip.compress(PLAIN, mtime=0),
    "zstd": zstd_stored(PLAIN),
    "zstd behind a skippable frame": b"\x5a\x2a\x4d\x18\x03\0\0\0abc" + zstd_stored(PLAIN),
}
gnu_tar = pytest.mark.skipif(
    b"GNU tar"
    not in (subprocess.run(["tar", "--version"], capture_output=True).stdout if shutil.which("tar") else b""),
    reason="needs GNU tar",
)


async def laid(store: orlop.Store, snapshotter: str, data: bytes, media_type: str = TAR) -> dict[str, str]:
    """The tree of this one layer, once the answer was found right."""
    stack = Stack(store, snapshotter)
    await stack.add(data, media_type)
    return brief(await stack.tree())


async def answered(store: orlop.Store, snapshotter: str, data: bytes, media_type: str, raw: bytes) -> dict[str, str]:
    """The same where what the stream holds is known: the answer tells it."""
    stack = Stack(store, snapshotter)
    applied = await stack.add(data, media_type)
    assert (applied.media_type, applied.digest, applied.size) == (TAR, digest_of(raw), len(raw))
    return brief(await stack.tree())


def output_of(command: list[str], data: bytes = b"") -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


async def refused(
    store: orlop.Store, data: bytes, media_type: str, kinds: type[OrlopError] | tuple[type[OrlopError], ...]
) -> OrlopError:
    with pytest.raises(kinds) as caught:
        await Stack(store, "overlayfs").add(data, media_type)
    return caught.value


# Media types and compression (3)


@pytest.mark.parametrize("media_type", SNIFFED)
async def test_what_is_packed_is_found_out_from_its_first_bytes(leased: orlop.Store, media_type: str) -> None:  # 9.12
    for packed, data in PACKED.items():
        assert await answered(leased, "overlayfs", data, media_type, PLAIN) == SHOWN, packed


@pytest.mark.parametrize("media_type", AS_IS)
async def test_a_plain_type_is_read_as_it_is(leased: orlop.Store, media_type: str) -> None:
    assert await answered(leased, "overlayfs", PLAIN, media_type, PLAIN) == SHOWN
    for packed in set(PACKED) - {"plain"}:
        await refused(leased, PACKED[packed], media_type, DAMAGED)
    large = gzip.compress(layer(file("f", NOISE)))
    await refused(leased, large, media_type, DAMAGED)  # 9.12


@pytest.mark.parametrize("media_type", NOT_READ)
async def test_a_type_that_nothing_reads_is_not_implemented(leased: orlop.Store, media_type: str) -> None:
    error = await refused(leased, PLAIN, media_type, NotImplemented)
    assert media_type in str(error)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bzip2", "xz"])
async def test_other_compressions_are_no_archives(leased: orlop.Store, pack) -> None:
    for media_type in (GZIP, ZSTD, DOCKER + "diff.tar"):
        await refused(leased, pack(layer(file("f", NOISE))), media_type, DAMAGED)


async def test_several_members_or_frames_are_one_stream(leased: orlop.Store) -> None:  # 9.11
    for cut in (1, 512, 513, 1000, 4096):
        parts = [PLAIN[:cut], b"", PLAIN[cut:]]
        members = b"".join(gzip.compress(part, mtime=0) for part in parts)
        frames = b"".join(zstd_stored(part) for part in parts)
        skipped = b"\x50\x2a\x4d\x18\0\0\0\0".join(zstd_stored(part) for part in parts)
        for data in (members, frames, skipped):
            assert await answered(leased, "overlayfs", data, GZIP, PLAIN) == SHOWN, cut


async def test_zstandard_as_its_own_program_writes_it(leased: orlop.Store) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd")
    raw = layer(*(file(f"f{n}", NOISE * 2) for n in range(3)))
    for option in ("-1", "-19", "--no-check", "--long=27"):
        data = output_of(["zstd", "-q", "-c", option], raw)
        stack = Stack(leased, "overlayfs")
        applied = await stack.add(data, ZSTD)
        assert (applied.digest, applied.size) == (digest_of(raw), len(raw))


async def test_gzip_with_every_optional_field_is_read(leased: orlop.Store) -> None:
    plain = gzip.compress(PLAIN, mtime=0)
    flags = b"\x1f\x8b\x08\x1e" + plain[4:10] + b"\x03\x00abc" + b"name\0" + b"comment\0"
    crc = (zlib.crc32(flags) & 0xFFFF).to_bytes(2, "little")
    assert await answered(leased, "overlayfs", flags + crc + plain[10:], GZIP, PLAIN) == SHOWN


GZ = PACKED["gzip"]
BROKEN = {
    "gzip without its end": GZ[:-1],
    "gzip without its trailer": GZ[:-8],
    "gzip cut in the middle": GZ[: len(GZ) // 2],
    "gzip of a header alone": GZ[:10],
    "gzip with another checksum": GZ[:-8] + bytes([GZ[-8] ^ 1]) + GZ[-7:],
    "gzip with another length": GZ[:-1] + bytes([GZ[-1] ^ 1]),
    "gzip with something behind it": GZ + b"garbage",
    "gzip with half a member behind it": GZ + GZ[:20],
    "zstd cut in the middle": PACKED["zstd"][:1000],
    "zstd without its end": PACKED["zstd"][:-1],
    "zstd with something behind it": PACKED["zstd"] + b"garbage",
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_damaged_stream_is_refused(leased: orlop.Store, what: str) -> None:  # 9.13
    await refused(leased, BROKEN[what], GZIP, DAMAGED)


async def test_no_bytes_at_all_are_an_empty_layer(leased: orlop.Store, snapshotter: str) -> None:
    for media_type in (*AS_IS, *SNIFFED):
        assert await answered(leased, snapshotter, b"", media_type, b"") == {}, media_type


# Apply as a service (4)


async def test_a_blob_that_is_not_here_is_not_found_and_changes_nothing(leased: orlop.Store, snapshotter: str) -> None:
    snapshots = leased.snapshots.using(snapshotter)  # 9.42
    mounts = await snapshots.prepare("active")
    async with orlop.mounted(mounts) as path:
        Path(path, "f").write_text("kept")
        before = read_tree(path)
    with pytest.raises(NotFound):
        await snapshots.apply("active", orlop.Descriptor(TAR, digest_of(PLAIN), len(PLAIN)))
    async with orlop.mounted(mounts) as path:
        assert read_tree(path) == before


async def test_only_an_active_snapshot_is_applied_to(leased: orlop.Store, snapshotter: str) -> None:
    stack = Stack(leased, snapshotter)
    await stack.add(PLAIN)
    blob = await put_blob(leased, layer(file("more")))
    await stack.snapshots.view("view", stack.top)
    for key in ("view", stack.top):
        with pytest.raises(OrlopError):
            await stack.snapshots.apply(key, blob)
    with pytest.raises(NotFound):
        await stack.snapshots.apply("absent", blob)
    assert brief(await stack.tree()) == SHOWN


async def test_layers_are_laid_over_what_is_there(leased: orlop.Store, snapshotter: str) -> None:
    """Several on one snapshot, and over what was written by hand."""
    snapshots = leased.snapshots.using(snapshotter)
    mounts = await snapshots.prepare("active")
    async with orlop.mounted(mounts) as path:
        Path(path, "g").write_text("by hand")
        Path(path, "h").mkdir()
    await snapshots.apply("active", await put_blob(leased, PLAIN))
    await snapshots.apply("active", await put_blob(leased, layer(file("h/i", "i"), file("d/.wh.f"))))
    async with orlop.mounted(mounts) as path:
        tree = read_tree(path)
    assert {name: e.content for name, e in tree.items() if name != "."} == {"d": "", "g": "g", "h": "", "h/i": "i"}


async def test_every_way_in_applies_alike(mounts: None, store: orlop.Store) -> None:
    async with store.lease() as leased:
        for snapshotter in ("overlayfs", "native"):
            assert await answered(leased, snapshotter, PACKED["gzip"], GZIP, PLAIN) == SHOWN


# Framing and formats (5.10)

ENTRIES = folder("d") + file("d/f", b"x" * 3000) + file("g", "g")
FRAMED = {
    "no end marker": ENTRIES,
    "one zero block": ENTRIES + bytes(512),
    "more zero blocks": ENTRIES + bytes(10240),
    "the last padding cut": ENTRIES[:-511],
    "a byte behind the end": PLAIN + b"x",  # 9.10
    "garbage behind the end": PLAIN + b"garbage" * 1000,
    "another archive behind the end": PLAIN + layer(file("not", "seen")),
}


@pytest.mark.parametrize("how", FRAMED)
async def test_an_archive_may_end_so(leased: orlop.Store, snapshotter: str, how: str) -> None:
    for data, media_type in [(FRAMED[how], TAR), (gzip.compress(FRAMED[how]), GZIP), (zstd_stored(FRAMED[how]), ZSTD)]:
        assert await answered(leased, snapshotter, data, media_type, FRAMED[how]) == SHOWN


@pytest.mark.parametrize("data", [bytes(1024), bytes(512 * 20), bytes(512)], ids=len)
async def test_zeros_are_an_empty_layer(leased: orlop.Store, snapshotter: str, data: bytes) -> None:
    assert await answered(leased, snapshotter, data, TAR, data) == {}


def with_size(size: bytes) -> bytes:
    """A header with such a field, and the right checksum."""
    header = block("f")
    header = header[:124] + size + header[136:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


F = file("f", b"x" * 1000)
NO_ARCHIVE = {
    "a cut header": F[:511],
    "a byte": b"x",
    "cut content": F[:1500],
    "no content": F[:512],
    "a cut second header": F + block("g")[:100],
    "a wrong checksum": F[:148] + b"000001\0 " + F[156:] + end,
    "another mode than summed": F[:100] + b"0000777" + F[107:] + end,
    "more behind a single block of zeros": F + bytes(512) + F + end,
    "text": b"This is not an archive.\n" * 100,
    "a size that is no number": with_size(b"nonsense!!!\0") + end,
    "a negative size": block("f", size=-512) + end,
    "a huge size": block("f", size=2**62) + bytes(512),
    "records without a length": pax_header({"a": "b"})[:512] + b"nonsense".ljust(512, b"\0") + F + end,
    "a record longer than its header": pax_header({"a": "b"})[:512] + b"999 a=b\n".ljust(512, b"\0") + F + end,
    "records cut": pax_header({"a": "b" * 1000})[:1000],
    "a size in the records beyond the end": pax_header({"size": "5000"}) + F,
}


@pytest.mark.parametrize("what", NO_ARCHIVE)
async def test_what_is_no_archive_is_refused(leased: orlop.Store, what: str) -> None:
    await refused(leased, NO_ARCHIVE[what], TAR, DAMAGED)
    await refused(leased, gzip.compress(NO_ARCHIVE[what]), GZIP, DAMAGED)


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "pax"])
async def test_every_form_of_header_is_read(leased: orlop.Store, snapshotter: str, form: str) -> None:
    name = {"v7": "d/" + "n" * 98, "ustar": "d" * 60 + "/" + "n" * 100}.get(form, "d" * 200 + "/" + "n" * 250)
    target = "t" * (100 if form in ("v7", "ustar") else 300)
    if form == "v7":
        data = block(name, b"\0", size=1, magic=bytes(8)) + b"x".ljust(512, b"\0")
        data = layer(data, block("s", b"2", target=target, magic=bytes(8)))
    else:
        buffer = io.BytesIO()
        forms = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
        with tarfile.open(fileobj=buffer, mode="w", format=forms[form]) as archive:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 1, MTIME
            archive.addfile(info, io.BytesIO(b"x"))
            link = tarfile.TarInfo("s")
            link.type, link.linkname, link.mtime = tarfile.SYMTYPE, target, MTIME
            archive.addfile(link)
        data = buffer.getvalue()
    folder_name = name.partition("/")[0]
    assert await answered(leased, snapshotter, data, TAR, data) == {
        folder_name: "dir",
        name: "file:x",
        "s": f"-> {target}",
    }


async def test_a_size_in_base_256_and_one_in_records_are_read(leased: orlop.Store) -> None:
    header = with_size(b"\x80" + (3).to_bytes(11, "big"))
    recorded = pax_header({"size": "3"}) + block("g", size=0)
    data = layer(header + b"abc".ljust(512, b"\0"), recorded + b"def".ljust(512, b"\0"))
    assert await answered(leased, "overlayfs", data, TAR, data) == {"f": "file:abc", "g": "file:def"}


async def test_records_hold_for_one_entry(leased: orlop.Store) -> None:
    records = pax_header({"path": "long/name", "uid": "7", "linkpath": "ignored"})
    data = layer(records, file("short", "x"), file("after", "y"))
    assert await answered(leased, "overlayfs", data, TAR, data) == {
        "after": "file:y", "long": "dir", "long/name": "file:x 0644 7:0",
    }  # fmt: skip


def write_sparse(path: Path, pieces: int) -> bytes:
    """A file of 1 MiB with pieces of 4 KiB, and holes between them and at its end; its content."""
    content = bytearray(1 << 20)
    with open(path, "wb") as file:
        file.truncate(len(content))
        for piece in range(pieces):
            at = piece * 20480 + 4096
            content[at : at + 4096] = bytes([piece + 1]) * 4096
            os.pwrite(file.fileno(), content[at : at + 4096], at)
    return bytes(content)


@gnu_tar
@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("pieces", [0, 3, 40])
async def test_sparse_files_have_their_whole_content(
    leased: orlop.Store, snapshotter: str, tmp_path: Path, form: str, pieces: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = write_sparse(source / "f", pieces)
    (source / "g").write_text("after it")
    options = ["--format=gnu"] if form == "gnu" else ["--format=posix", f"--sparse-version={form}"]
    command = ["tar", "--sparse", "--hole-detection=raw", *options, "-C", str(source), "-cf", "-", "f", "g"]
    data = output_of(command)
    assert len(data) < len(content)
    stack = Stack(leased, snapshotter)
    applied = await stack.add(data)
    assert applied.digest == digest_of(data)
    tree = await stack.tree()
    assert set(tree) == {".", "f", "g"}
    assert tree["f"].content == f"{len(content)} bytes {digest_of(content)}"
    assert tree["g"].content == "after it"


# Limits, and giving up (5.9)

MIB = 1 << 20
GIANT = zstd_repeated(block("f", size=1 << 30), 1 << 30)  # 33 KB
LIMITED = {
    "max_bytes": (
        2 * MIB,
        (gzip.compress(layer(file("f", bytes(MIB)))), GZIP),
        (gzip.compress(layer(file("f", bytes(MIB)), file("g", bytes(MIB)))), GZIP),
    ),
    "max_entries": (
        3,
        (layer(*(file(f"f{n}") for n in range(3))), TAR),
        (layer(*(file(f"f{n}") for n in range(4))), TAR),
    ),
    # Of no interest in what is small.
    "max_ratio": (100, (gzip.compress(layer(file("f", NOISE)), 1), GZIP), (GIANT, ZSTD)),
    "max_depth": (
        3,
        (layer(file("a/b/c", "x")), TAR),
        (layer(file("a/b/d/e/f", "x")), TAR),
    ),
}


@pytest.mark.parametrize("limit", LIMITED)
async def test_a_layer_beyond_a_limit_is_refused(tmp_path: Path, snapshotter: str, limit: str) -> None:
    most, fits, too_much = LIMITED[limit]
    async with quick_store(tmp_path / "store", unpack=orlop.UnpackConfig(**{limit: most})) as store:
        stack = Stack(store, snapshotter)
        await stack.add(*fits)
        before = brief(await stack.tree())
        with pytest.raises((ResourceExhausted, InvalidArgument)) as caught:
            await stack.add(*too_much)
        assert str(most) in str(caught.value)
        assert brief(await stack.tree()) == before


async def test_the_bytes_behind_the_archive_count_as_well(mounts: None, tmp_path: Path) -> None:
    async with quick_store(tmp_path / "store", unpack=orlop.UnpackConfig(max_bytes=MIB)) as store:
        await Stack(store, "overlayfs").add(gzip.compress(PLAIN + bytes(MIB // 2)), GZIP)
        with pytest.raises(ResourceExhausted):
            await Stack(store, "overlayfs").add(gzip.compress(PLAIN + bytes(2 * MIB)), GZIP)


async def test_a_layer_that_takes_too_long_is_given_up(mounts: None, tmp_path: Path) -> None:
    unpack = orlop.UnpackConfig(time_s=0.01, max_ratio=10**6)
    async with quick_store(tmp_path / "store", unpack=unpack) as store:
        with pytest.raises(ResourceExhausted):
            await Stack(store, "overlayfs").add(GIANT, ZSTD)


async def test_a_cancelled_apply_ends_in_the_middle_of_a_file(tmp_path: Path, snapshotter: str) -> None:  # 9.28
    async with quick_store(tmp_path / "store", unpack=orlop.UnpackConfig(max_ratio=10**6)) as store:
        snapshots = store.snapshots.using(snapshotter)
        mounts = await snapshots.prepare("active")
        blob = await put_blob(store, GIANT, ZSTD)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery, orlop.mounted(mounts) as path:
                nursery.start_soon(snapshots.apply, "active", blob)
                while not (os.path.exists(f"{path}/f") and os.stat(f"{path}/f").st_size):
                    await trio.sleep(0.001)
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 5
            async with orlop.mounted(mounts) as path:
                assert os.stat(f"{path}/f").st_blocks * 512 < 1 << 30
            await snapshots.remove("active")
