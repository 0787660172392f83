"""Whether overlayfs works here is found out by mounting one. Source: spec snapshots 8.2."""

from __future__ import annotations

from ...protocol.world import Files, Mounts

__all__ = ["knows_index", "overlay_refusal"]

_INDEX_PARAMETER = "/sys/module/overlay/parameters/index"


def overlay_refusal(root: str, name: str, files: Files, mounts: Mounts, *, userxattr: bool) -> str:
    """Why not, in the system's words; empty when it does. Blocks. Nothing stays behind. Raises OSError: the disk."""
    folder = f"{root}/{name}"
    lower, upper, work, merged = (f"{folder}/{part}" for part in ("lower", "upper", "work", "merged"))
    options = [f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", *(["userxattr"] if userxattr else [])]
    try:
        for path in (lower, upper, work, merged):
            files.make_folder(path)
        try:
            mounts.mount("overlay", "overlay", merged, options)
        except OSError as error:
            return error.strerror or str(error)
        mounts.unmount(merged)
    finally:
        files.remove_tree(folder)
    return ""


def knows_index(files: Files) -> bool:
    return files.status(_INDEX_PARAMETER) is not None
