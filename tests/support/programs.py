"""Programs that a test writes, and whether the processes that they told us of still run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

__all__ = ["Programs", "all_ended", "is_running", "written"]

_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True)
class Programs:
    """A folder of programs, and one that they write to."""

    folder: Path
    notes: Path

    @classmethod
    def below(cls, path: Path) -> Programs:
        """Both made below this path."""
        made = cls(path / "programs", path / "notes")
        made.folder.mkdir()
        made.notes.mkdir()
        return made

    def add(self, name: str, body: str, *, interpreter: str = "/bin/sh", mode: int = 0o755) -> str:
        """A script, and its path. $NOTES in it is the folder to write to, which must not have blanks in its name."""
        path = self.folder / name
        path.write_text(f"#!{interpreter}\n{body}\n".replace("$NOTES", str(self.notes)))
        path.chmod(mode)
        return str(path)

    def noted(self, name: str) -> str:
        return (self.notes / name).read_text()

    def lines(self, name: str = "asked") -> list[str]:
        path = self.notes / name
        return path.read_text().splitlines() if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether it may still do something. One that nobody has reaped yet may not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def written(path: Path) -> str:
    """Its first line, once it is there and whole."""
    with trio.fail_after(_TIMEOUT_S):
        while not path.exists() or not path.read_text().endswith("\n"):
            await trio.sleep(0.005)
    return path.read_text().splitlines()[0]


async def all_ended(pids: Sequence[int]) -> None:
    """For what is ended at the other end of a socket, a moment after the call."""
    with trio.fail_after(_TIMEOUT_S):
        while any(is_running(pid) for pid in pids):
            await trio.sleep(0.005)
