"""Laying a layer onto a tree.

Three kinds of target, one outcome: an empty folder; a folder that already holds the layers below (`native`: what a
whiteout hides is removed); the upper folder of an overlay (what is hidden is marked). Whiteouts and opaque markers
hide what comes from below and nothing of this layer, whatever their order (hiding.py). What lies below is only asked
for when an entry needs it: a folder that the layer does not bring itself, a hard link out of the layer, a whiteout. So
layers can be laid down side by side.

Source: spec unpack 5 and 6 (required outcomes).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from typing import Final

import msgspec

from ...protocol.errors import InvalidArgument, PermissionDenied, ResourceExhausted
from .attributes import ACL_DEFAULT, check_owner, copy_attributes, drop_xattrs, entry_times, set_xattrs
from .copying import copy_bytes
from .folders import Place, Places, Unknown
from .hiding import Count, Hider
from .limits import LayerLimits
from .names import OPAQUE_MARKER, WHITEOUT, clean, shown, split, whiteout_name
from .refusals import refused
from .tar import Entry, TarReader
from .tree import Folder, Found, opaque_name

__all__ = ["Applied", "LayerApplier", "TargetKind"]

_SPECIAL: Final = 0o7000
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES: Final = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}
_KINDS: Final = frozenset((b"0", b"2", b"3", b"4", b"5", b"6"))
_MAX_NUMBER: Final = 2**32 - 1
_MOST_WARNINGS: Final = 20
_CHECK_ENTRIES: Final = 512


class TargetKind(msgspec.Struct, frozen=True):
    """`overlay`: the target is an upper folder. `fresh`: nothing lies below. `userxattr`: the overlay keeps its marks
    in `user.*`. `owners`: files can be given away. `devices`: they can be made."""

    overlay: bool
    fresh: bool
    userxattr: bool = False
    owners: bool = True
    devices: bool = True


class Applied(msgspec.Struct, frozen=True):
    """What came of it. `blocks` of 512 bytes and `inodes` of what the target holds; -1: to be counted."""

    entries: int
    blocks: int
    inodes: int
    warnings: list[str] = []


class LayerApplier:
    """Applies one archive to `target`, an open folder that it does not close. Used once, by one thread.

    `lower` gives the tree below, and may wait for it. Changes the process's umask and current folder.
    """

    def __init__(
        self,
        target: int,
        kind: TargetKind,
        limits: LayerLimits,
        lower: Callable[[], Folder | None],
    ) -> None:
        self._kind = kind
        self._limits = limits
        self._mixed = not kind.fresh and (not kind.overlay or bool(os.listdir(target)))
        marks = opaque_name(kind.userxattr)
        self._places = Places(
            target,
            lower if kind.overlay and not kind.fresh else _nothing,
            self._make_implicit,
            depth=limits.depth,
            marks=marks if kind.overlay and self._mixed else "",
        )
        self._count = Count(exact=not self._mixed)
        self._hider = Hider(self._places, self._count, marks, overlay=kind.overlay, mixed=self._mixed)
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._folders: list[Place] = []  # whose attributes wait for the end
        self._warnings: list[str] = []
        self._entries = 0

    def apply(self, reader: TarReader) -> Applied:
        """Raises InvalidArgument (archive), DataLoss (cut short), ResourceExhausted (limits, disk full),
        PermissionDenied, Unavailable (disk). The target is then half done."""
        before = os.umask(0)
        entry: Entry | None = None
        try:
            while (entry := reader.next()) is not None:
                self._entries += 1
                if self._entries % _CHECK_ENTRIES == 0:
                    self._check_entries()
                self._put(entry, reader)
            self._check_entries()
            entry = None
            self._hider.mark()
            self._finish_folders()
        except OSError as error:
            raise refused(error, entry.name if entry is not None else None) from error
        except (ValueError, OverflowError) as error:  # a name with a NUL, a number that no system takes
            what = "the layer" if entry is None else f"entry {shown(entry.name)}"
            raise InvalidArgument(f"{what}: {error}") from None
        finally:
            os.umask(before)
            self._places.close()
        return Applied(
            self._entries,
            self._count.blocks if self._count.exact else -1,
            self._count.inodes if self._count.exact else -1,
            self._warnings,
        )

    def _check_entries(self) -> None:
        if self._entries > self._limits.entries:
            raise ResourceExhausted(
                f"the layer has more than {self._limits.entries} entries", hint="raise unpack.max_entries"
            )

    # one entry

    def _put(self, entry: Entry, reader: TarReader) -> None:
        folder, base = split(entry.name)
        if not base or entry.kind == b"g":
            return
        if base.startswith(WHITEOUT):
            self._note_hidden(folder, base, entry)
            return
        kind = entry.kind
        check_owner(entry)
        if kind == b"0":
            place = self._places.parent(folder, entry.name)
            self._file(place, base, entry, reader)
        elif kind == b"1":
            place = self._hard_link(folder, base, entry)
        else:
            device = self._device_number(entry)
            if device is None:
                return
            place = self._places.parent(folder, entry.name)
            if kind == b"5":
                self._folder(place, base, entry, folder)
            elif kind == b"2":
                self._symlink(place, base, entry)
            else:
                self._device(place, base, entry, device)
        if kind != b"5":
            self._places.shadowed(place, base, by_folder=False)
            if self._mixed:
                self._mark_made(place, base)

    def _note_hidden(self, folder: bytes, base: bytes, entry: Entry) -> None:
        name = b"" if base == OPAQUE_MARKER else whiteout_name(base, entry.name)
        if not self._kind.fresh and (name or base == OPAQUE_MARKER):
            self._hider.hide(folder, name, entry.name)

    def _file(self, place: Place, base: bytes, entry: Entry, reader: TarReader) -> None:
        mode = entry.mode & 0o777
        try:
            fd = os.open(base, _NEW_FILE, mode, dir_fd=place.fd)
        except FileExistsError:
            self._clear(place, base)
            fd = os.open(base, _NEW_FILE, mode, dir_fd=place.fd)
        try:
            if entry.sparse is not None:
                self._write_sparse(fd, entry, reader)
            elif entry.size:
                data = reader.whole()
                if data is None or os.write(fd, data) != entry.size:
                    self._write_pieces(fd, data, reader)
            special = entry.mode & _SPECIAL or place.acl is not None
            if entry.uid != self._uid or entry.gid != self._gid or place.setgid:
                self._own(fd, entry)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs, entry.name, self._warn, userxattr=self._kind.userxattr, regular=True)
            if special:
                os.fchmod(fd, entry.mode & 0o7777)
            os.utime(fd, ns=entry_times(entry))
            if entry.size:
                self._count.blocks += os.fstat(fd).st_blocks
            self._count.inodes += 1
        finally:
            os.close(fd)

    def _write_pieces(self, fd: int, begun: memoryview | None, reader: TarReader) -> None:
        """What is not at hand at once, or was not taken at once."""
        if begun is not None:
            os.lseek(fd, 0, os.SEEK_SET)
        for piece in (begun,) if begun is not None else reader.pieces():
            written = 0
            while written < len(piece):
                written += os.write(fd, piece[written:])

    def _write_sparse(self, fd: int, entry: Entry, reader: TarReader) -> None:
        assert entry.sparse is not None
        if entry.size > self._limits.bytes:
            raise ResourceExhausted(
                f"entry {shown(entry.name)}: a file of {entry.size} bytes", hint="raise unpack.max_bytes"
            )
        for offset, length in entry.sparse:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                data = reader.take(min(left, 1024 * 1024))
                left -= len(data)
                while data:
                    data = data[os.write(fd, data) :]
        os.ftruncate(fd, entry.size)

    def _folder(self, parent: Place, base: bytes, entry: Entry, path: bytes) -> None:
        mode = entry.mode & 0o7777
        first = mode & 0o777 if self._kind.owners else mode & 0o777 | 0o700
        hides = False  # something of this layer stood here, which hid what lies below
        made = True
        try:
            os.mkdir(base, first, dir_fd=parent.fd)
        except FileExistsError:
            made = not self._clear(parent, base, for_folder=True)
            if made:
                hides = self._kind.overlay
                os.mkdir(base, first, dir_fd=parent.fd)
        self._places.shadowed(parent, base, by_folder=True)
        place = parent.children.get(base)
        if place is None:
            below = None if self._kind.fresh or hides or parent.lower is None else Unknown
            place = parent.children[base] = Place(parent, base, below)
        place.exists = True
        self._places.remember(b"%b/%b" % (path, base) if path else base, place)
        if made:
            self._count.inodes += 1
            if self._mixed:
                self._mark_made(parent, base)
                place.lower = None
        if not place.explicit:
            place.explicit = True
            self._folders.append(place)
        if hides:
            self._hider.make_opaque(place)
        place.times = entry_times(entry)
        fd = -1
        if entry.uid != self._uid or entry.gid != self._gid or parent.setgid or not made:
            fd = self._places.open(place)
            self._own(fd, entry)
        # Bits and lists that what is made inside would inherit come at the end.
        place.mode = mode if not made or mode & _SPECIAL or first != mode or parent.acl else None
        if not made:
            drop_xattrs(fd, entry.xattrs or {})
            place.acl = None
        if entry.xattrs:
            fd = self._places.open(place)
            xattrs = dict(entry.xattrs)
            place.acl = xattrs.pop(ACL_DEFAULT, None)
            set_xattrs(fd, xattrs, entry.name, self._warn, userxattr=self._kind.userxattr, regular=True)

    def _symlink(self, place: Place, base: bytes, entry: Entry) -> None:
        try:
            os.symlink(entry.link, base, dir_fd=place.fd)
        except FileExistsError:
            self._clear(place, base)
            os.symlink(entry.link, base, dir_fd=place.fd)
        self._name_attributes(place, base, entry)
        self._count.inodes += 1
        if len(entry.link) > 59:
            self._count.blocks += os.stat(base, dir_fd=place.fd, follow_symlinks=False).st_blocks

    def _device_number(self, entry: Entry) -> int | None:
        """What a device is told by; 0 for all that is none. None: it cannot be made here, and is left out."""
        kind = entry.kind
        if kind == b"2" and not entry.link:
            raise InvalidArgument(f"entry {shown(entry.name)}: a symlink to nothing")
        if kind not in _KINDS:
            raise InvalidArgument(f"entry {shown(entry.name)}: unhandled tar header type {kind!r}")
        if kind not in b"34":
            return 0
        text = f"entry {shown(entry.name)}: device {entry.major}:{entry.minor}"
        if not (0 <= entry.major <= _MAX_NUMBER and 0 <= entry.minor <= _MAX_NUMBER):
            raise InvalidArgument(f"{text} is out of range")
        if kind == b"3" and entry.major == entry.minor == 0:
            raise InvalidArgument(f"{text} is what overlays mark whiteouts with")
        if not self._kind.devices:
            self._warn("devices are left out: they need privileges")
            return None
        try:
            return os.makedev(entry.major, entry.minor)
        except OverflowError:
            raise InvalidArgument(f"{text} is out of range") from None

    def _device(self, place: Place, base: bytes, entry: Entry, device: int) -> None:
        mode = _DEVICES[entry.kind] | entry.mode & 0o7777
        try:
            os.mknod(base, mode, device, dir_fd=place.fd)
        except FileExistsError:
            self._clear(place, base)
            os.mknod(base, mode, device, dir_fd=place.fd)
        self._name_attributes(place, base, entry)
        self._count.inodes += 1

    def _name_attributes(self, place: Place, base: bytes, entry: Entry, *, shared: bool = False) -> None:
        """Of what is not opened: links, devices, pipes. Their mode was right from the start. `shared`: it has another
        name, and may belong to anybody."""
        if shared or entry.uid != self._uid or entry.gid != self._gid or place.setgid:
            try:
                os.chown(base, entry.uid, entry.gid, dir_fd=place.fd, follow_symlinks=False)
            except OSError as error:
                self._cannot_own(entry, error)
        if entry.xattrs:
            os.fchdir(place.fd)
            set_xattrs(base, entry.xattrs, entry.name, self._warn, userxattr=self._kind.userxattr, regular=False)
        os.utime(base, ns=entry_times(entry), dir_fd=place.fd, follow_symlinks=False)

    def _hard_link(self, folder: bytes, base: bytes, entry: Entry) -> Place:
        what = f"entry {shown(entry.name)}: hard link to {shown(entry.link)}"
        source_folder, _, source = clean(entry.link).rpartition(b"/")
        origin = self._places.find(source_folder, entry.name) if source else None
        if origin is None:
            raise InvalidArgument(what, text="no such file in the layer or below")
        place = self._places.parent(folder, entry.name)
        if origin is place and source == base:
            raise InvalidArgument(what, text="it is the entry itself")
        status = self._places.status(origin, source)
        if status is None:
            found = self._places.below(origin, source)
            if found is None:
                raise InvalidArgument(what, text="no such file in the layer or below")
            status = found.status
            if found.folder is None:
                self._copy_up(origin, source, found)
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArgument(what, text="it is a folder")
        at = os.dup(self._places.open(origin))  # opening the one place may close the other
        try:
            into = self._places.open(place)
            try:
                os.link(source, base, src_dir_fd=at, dst_dir_fd=into, follow_symlinks=False)
            except FileExistsError:
                self._clear(place, base)
                if origin.gone:
                    raise InvalidArgument(what, text="it is inside the folder that the entry replaces") from None
                os.link(source, base, src_dir_fd=at, dst_dir_fd=into, follow_symlinks=False)
        finally:
            os.close(at)
        if not stat.S_ISREG(status.st_mode):
            self._name_attributes(place, base, entry, shared=True)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(base, entry.mode & 0o7777, dir_fd=into)
            return place
        fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=into)
        try:
            if (entry.uid, entry.gid) != (status.st_uid, status.st_gid):
                self._own(fd, entry)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs, entry.name, self._warn, userxattr=self._kind.userxattr, regular=True)
            os.fchmod(fd, entry.mode & 0o7777)
            os.utime(fd, ns=entry_times(entry))
        finally:
            os.close(fd)
        return place

    # what is there already

    def _clear(self, place: Place, base: bytes, *, for_folder: bool = False) -> bool:
        """Make room for an entry. True: a folder stands there, and stays for the folder that comes."""
        status = os.stat(base, dir_fd=place.fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if for_folder:
                return True
            shutil.rmtree(base, dir_fd=place.fd)
            self._places.replaced(place, base)
        else:
            os.unlink(base, dir_fd=place.fd)
            if stat.S_ISLNK(status.st_mode):
                self._places.replaced(place, base)
        if place.copied is not None:
            place.copied.discard(base)
        self._count.exact = False
        return False

    def _mark_made(self, place: Place, base: bytes) -> None:
        if place.made is None:
            place.made = set()
        place.made.add(base)

    def _make_implicit(self, place: Place, found: Found | None) -> None:
        """A folder that no entry brought: with the attributes of the one below, else 0755."""
        parent = place.parent
        assert parent is not None
        try:
            os.mkdir(place.name, 0o755, dir_fd=parent.fd)
        except FileExistsError:  # an older mark, which hides what lies below: so does the folder
            self._clear(parent, place.name)
            os.mkdir(place.name, 0o755, dir_fd=parent.fd)
            place.exists = True
            self._hider.make_opaque(place)
        self._count.inodes += 1
        self._folders.append(place)
        if self._mixed:
            self._mark_made(parent, place.name)
        if found is None or found.folder is None:
            return
        status = found.status
        fd = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
        try:
            copy_attributes(found.folder.fds[0], fd, status, self._warn, own=self._kind.owners)
        finally:
            os.close(fd)
        place.setgid = bool(status.st_mode & stat.S_ISGID)
        place.times = (status.st_atime_ns, status.st_mtime_ns)

    def _copy_up(self, place: Place, name: bytes, found: Found) -> None:
        """A file of the layers below, of which a hard link is made, becomes one of this layer."""
        at = self._places.open(place)
        found = self._places.below(place, name) or found  # opening may have closed where it was found
        status = found.status
        times = (status.st_atime_ns, status.st_mtime_ns)
        if stat.S_ISREG(status.st_mode):
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.at)
            try:
                target = os.open(name, _NEW_FILE, 0o600, dir_fd=at)
                try:
                    copy_bytes(source, target, status)
                    copy_attributes(source, target, status, self._warn, own=self._kind.owners)
                    os.utime(target, ns=times)
                    self._count.blocks += os.fstat(target).st_blocks
                finally:
                    os.close(target)
            finally:
                os.close(source)
        else:
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(name, dir_fd=found.at), name, dir_fd=at)
            else:
                os.mknod(name, status.st_mode, status.st_rdev, dir_fd=at)
            if self._kind.owners:
                os.chown(name, status.st_uid, status.st_gid, dir_fd=at, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=at, follow_symlinks=False)
        self._count.inodes += 1
        if place.copied is None:
            place.copied = set()
        place.copied.add(name)

    # the end

    def _finish_folders(self) -> None:
        """Modes, lists and times that what was put inside would have disturbed, or inherited."""
        seen = set(map(id, self._folders))
        waiting = [place for place in self._places.every() if id(place) not in seen and place.exists and place.times]
        for place in [*waiting, *reversed(self._folders)]:
            if place.gone:
                continue
            if place.acl is None and place.mode is None and place.times is None:
                continue
            fd = self._places.open(place)
            if place.acl is not None:
                xattrs = {ACL_DEFAULT: place.acl}
                set_xattrs(fd, xattrs, place.name, self._warn, userxattr=self._kind.userxattr, regular=True)
            if place.mode is not None:
                os.fchmod(fd, place.mode)
            if place.times is not None:
                os.utime(fd, ns=place.times)
            if self._count.exact:
                self._count.blocks += os.fstat(fd).st_blocks
        if self._count.exact:
            self._count.blocks += os.fstat(self._places.root.fd).st_blocks

    def _own(self, fd: int, entry: Entry) -> None:
        try:
            os.fchown(fd, entry.uid, entry.gid)
        except OSError as error:
            self._cannot_own(entry, error)

    def _cannot_own(self, entry: Entry, error: OSError) -> None:
        """EINVAL: the user namespace does not know that owner."""
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise error
        if self._kind.owners:
            raise PermissionDenied(
                f"entry {shown(entry.name)}: owner {entry.uid}:{entry.gid}", hint="unpacking it needs privileges"
            ) from None
        self._warn("owners are not kept: that needs privileges")

    def _warn(self, text: str) -> None:
        if len(self._warnings) < _MOST_WARNINGS and text not in self._warnings:
            self._warnings.append(text)


def _nothing() -> Folder | None:
    return None
