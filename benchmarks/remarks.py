"""A plain word on figures that want one: above all where orlop is behind, and what it would take."""

from __future__ import annotations

from typing import Final

__all__ = ["REMARKS", "SECTIONS"]

SECTIONS: Final = {
    "limits": ("What the same machine does with the bare work, in the same run."),
    "records": (
        "Image records: one store each, which grows by what is created. Two processes ask where there are 64 "
        "callers or more; over gRPC the client needs most of the machine's CPU, which containerd then lacks."
    ),
    "content": (
        "Blobs with a digest that is known beforehand, each kept by a root label. containerd gets small ones in "
        "one message, as orlop does with `put`. Reading, orlop passes a file descriptor, whose reads are the "
        "client's own; containerd sends the bytes over gRPC."
    ),
    "builds": (
        "An image is published under a lease: its layers, its manifest, its record. Snapshots are overlayfs, "
        "empty, on one parent."
    ),
    "garbage": (
        "Synchronously, in a store of that many content records, while somebody creates an image every two "
        "milliseconds. containerd is not filled with 100,000 records: that alone would take it minutes, and what "
        "it costs follows from the others."
    ),
    "pulls": (
        "From one docker-registry on the loopback interface, both with overlayfs. redis: 7 layers, 4,600 files, "
        "188 MB; tiny: one layer of 30,000 files, 55 MB. orlop syncs what it unpacked before it says so, "
        "containerd does not. The start of `ctr` is not counted, its CPU is: it fetches, where orlop's daemon "
        "does."
    ),
    "standing": ("From the start of the process to the first answer; memory that is the process's own."),
}
_SYNC: Final = (
    "Snapshots: orlop syncs what is in one before its commit is recorded, and announces a folder before it "
    "makes it, so that a crash leaves nothing half-made: five synced writes and three syncs of folders for a "
    "snapshot that is prepared, committed and removed, where containerd makes three writes and syncs no "
    "files. Announcing several at once, or making folders ahead, would save two."
)
_PUBLISH: Final = (
    "An image of four layers is published in some twenty synced steps, one after another (two for each ingest "
    "and two for its file, the lease, the image), and both sides wait for the disk. A client that sends its "
    "layers side by side, and manifest and image in one transaction, waits for fewer of them."
)
_MEMORY: Final = (
    "The daemon's own memory and that of its worker processes, each with an interpreter of its own; shared "
    "pages are shared out. Some 30 MiB of it are there at rest."
)
_TINY: Final = (
    "One layer of 30,000 files is the kernel's time: it creates one file after another, 0.15 to 0.3 ms each "
    "on this disk, for both. orlop then syncs them; a layer that is laid down by two workers would need "
    "another way to keep its order."
)
_START: Final = (
    "Starting takes as long as Python takes to load some 250 modules and trio. It would take fewer modules, "
    "or a daemon that is forked from one that has loaded them."
)
_ALONE: Final = (
    "Few callers wait for one sync after another, and for the way there and back: a thread's start and four "
    "task switches."
)
_GIB: Final = (
    "One GiB over a socket crosses client, socket, server and hash on two cores; the limit beside it is one "
    "thread that hashes and writes. A descriptor passed for writing, as reads have it, would save two copies."
)
REMARKS: Final[dict[str, str]] = {
    "snapshots-1": _SYNC,
    "snapshots-16": _SYNC,
    "publish-1": _PUBLISH,
    "redis-memory": _MEMORY,
    "tiny-memory": _MEMORY,
    "tiny-pull": _TINY,
    "tiny-unpack only": _TINY,
    "start": _START,
    "start-full": _START,
    "memory-idle": ("Memory at rest is Python's: the interpreter, trio, and the code of all modules."),
    "gib-write": _GIB,
    "ingest-67108864-1": (
        "Large blobs are bound by hashing and by the disk; both sides hash once, here on the same cores as the "
        "client that hashed the bytes before."
    ),
    "synced-1": _ALONE,
    "synced-8": _ALONE,
    "gib-at": (
        "Every piece is a new object: a copy more than reading through the descriptor into memory that is there."
    ),
    "get-1": ("At depth 1 the time is that of waking two processes in turn, as for the bare echo."),
    "list": ("A list costs a checksum and a copy for each record; the frames are as many bytes as the records."),
}
