"""Image verifiers: programs of whoever runs the store, which may deny a pull once it is known what it would bring.

Each is given the reference, the digest and the descriptor, and allows with exit code 0; what it prints is its reason.
Whatever else happens to it is a denial: nothing is brought because a verifier could not say no.

Source: spec registry 9, step 2, and 9.3.
"""

from __future__ import annotations

import stat
from typing import Final

import msgspec
import structlog
import trio

from ..protocol.errors import FailedPrecondition
from ..protocol.identifiers import quote
from ..protocol.records import Descriptor
from ..protocol.registry.references import Reference
from ..protocol.world import Finished, Work, World
from .config import VerifierConfig

__all__ = ["ImageVerifiers"]

log = structlog.get_logger("orlop.verifiers")

_STDIN_TYPE: Final = "application/vnd.oci.descriptor.v1+json"
_OUTPUT_BYTES: Final = 32 * 1024
_REASON_CHARS: Final = 1000  # of it in an error, which is a sentence; the log has all
# Of all pulls. They mostly wait, for a registry or a server of keys, so it is more than there are cores; a guess.
_AT_ONCE: Final = 16
_EXECUTABLE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class _OciDescriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """As the OCI image-spec writes it."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class ImageVerifiers:
    """They run in the tasks of the pulls that ask them."""

    def __init__(self, world: World, config: VerifierConfig) -> None:
        self._world = world
        self._config = config
        self._room = trio.CapacityLimiter(_AT_ONCE)

    @property
    def are_set(self) -> bool:
        """Whether there may be any."""
        return bool(self._config.bin_dir)

    async def ask(self, reference: Reference, target: Descriptor) -> None:
        """Ask one after another, until one denies. A folder that is missing or has none in it allows.

        They are told the reference as it was understood, not as it was written, so that no spelling of it gets past
        them (`a/../b:1` is `b:1`).

        Raises FailedPrecondition: the verifier that denied and why, or the folder cannot be read.
        Cancellation: the one that runs is killed, with what it started.
        """
        for name in await self._names():
            await self._ask_one(name, reference, target)

    async def _names(self) -> list[str]:
        folder, most = self._config.bin_dir, self._config.max_verifiers
        try:
            names = await self._world.workers.run(Work.FILES, self._list)
        except FileNotFoundError:
            log.warning("the folder of image verifiers is not there: every image is allowed", folder=folder)
            return []
        except OSError as error:
            raise FailedPrecondition(f"the folder of image verifiers {quote(folder)}: {error.strerror}") from None
        if 0 <= most < len(names):
            log.warning("there are more image verifiers than may be asked", folder=folder, left_out=names[most:])
            return names[:most]
        return names

    def _list(self) -> list[str]:
        """By name, the executable files, hidden ones too. Blocking."""
        folder, files = self._config.bin_dir, self._world.files
        found = []
        for name in sorted(files.list_folder(folder)):
            status = files.status(f"{folder}/{name}")
            # What cannot be looked at is a link to nowhere: somebody wanted it asked, so it is, and denies. So does one
            # that only others may execute.
            if status is None or (stat.S_ISREG(status.mode) and status.mode & _EXECUTABLE):
                found.append(name)
        return found

    async def _ask_one(self, name: str, reference: Reference, target: Descriptor) -> None:
        """Raises FailedPrecondition."""
        told = log.bind(verifier=name, reference=str(reference), digest=target.digest)
        finished = await self._run(name, reference, target)
        if isinstance(finished, Finished):
            reason = f"{_line(finished.out)}{'… (cut)' if finished.cut else ''}"
            told = told.bind(reason=reason, stderr=_line(finished.error))
            if finished.code == 0:
                told.info("an image verifier allows")
                return
            how = f"exit code {finished.code}" if finished.code > 0 else f"killed by signal {-finished.code}"
            short = reason if len(reason) <= _REASON_CHARS else f"{reason[:_REASON_CHARS]}…"
            denial = f"denies it ({how}): {short or 'it gives no reason'}"
        else:
            denial = finished
        told.warning("an image verifier denies", denial=denial)
        raise FailedPrecondition(f"image {quote(str(reference))}: image verifier {quote(name)} {denial}")

    async def _run(self, name: str, reference: Reference, target: Descriptor) -> Finished | str:
        """How it ended, or why it did not."""
        command = [f"{self._config.bin_dir}/{name}", "-name", str(reference), "-digest", target.digest]
        command += ["-stdin-media-type", _STDIN_TYPE]
        given = _OciDescriptor(target.media_type, target.digest, target.size, target.annotations)
        data = msgspec.json.encode(given) + b"\n"  # a line, which is what shells read
        timeout_s = self._config.per_verifier_timeout_s
        async with self._room:
            with trio.move_on_after(timeout_s):
                try:
                    return await self._world.programs.run(command, data, _OUTPUT_BYTES)
                except FileNotFoundError:
                    return "cannot be run: it, or the interpreter that its first line names, is not there"
                except ChildProcessError:
                    return "has ended, and nobody can tell how"
                except OSError as error:
                    return f"cannot be run: {error.strerror or error}"
        return f"has not answered within {timeout_s:g} s"


def _line(output: bytes) -> str:
    """What it printed as one line."""
    return " ".join(output.decode(errors="replace").split())
