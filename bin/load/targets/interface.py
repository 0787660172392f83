"""What a target is asked: the operations of a scenario, each until it is durable and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol

from ....protocol.messages import Metrics
from ..steps.blobs import Blob

__all__ = ["MADE_LABEL", "ROOT_LABEL", "VALUE_LABEL", "Seen", "Target", "TargetMaker"]

VALUE_LABEL: Final = "load.orlop.dev/value"
"""The label of an image that says what was written last."""
MADE_LABEL: Final = "load.orlop.dev/made"
"""Of a namespace that a run has made: what may be removed with all that is in it."""
ROOT_LABEL: Final = "containerd.io/gc.root"


class Seen(NamedTuple):
    """An image as it was read; `value`: of its label, empty if it has none."""

    name: str
    value: str


class Target(Protocol):
    """One connection. Its methods raise OrlopError, by whoever answers: Unavailable (certainly not done), Unknown
    (nobody knows), and what the answer says. Cancellation: the connection may be unusable."""

    async def ensure_namespace(self, namespace: str) -> None:
        """It is there, and labelled as made for a run if it was not there before."""

    async def get_image(self, namespace: str, name: str) -> Seen:
        """Raises NotFound."""

    async def list_images(self, namespace: str, filters: Sequence[str]) -> int:
        """How many there are; all of them are read."""

    async def create_image(self, namespace: str, name: str, value: str) -> None:
        """A record of a target that need not be there."""

    async def update_image(self, namespace: str, name: str, value: str) -> None:
        """Only the label, by mask."""

    async def delete_image(self, namespace: str, name: str, *, sync: bool) -> None: ...

    async def publish_image(self, namespace: str, name: str, value: str, layers: Sequence[Blob]) -> None:
        """Layers and a manifest that refers to them, under a lease; the image; the lease ends."""

    async def ingest(self, namespace: str, blob: Blob, labels: Mapping[str, str]) -> None:
        """Its digest is known beforehand, as to everybody who brings blobs."""

    async def read(self, namespace: str, blob: Blob, offset: int, length: int, each: Callable[[bytes], None]) -> None:
        """Those bytes, piece by piece, in their order; `each` may be called in another thread. Raises DataLoss: fewer
        came."""

    async def has_blob(self, namespace: str, blob: Blob) -> bool: ...

    async def delete_blob(self, namespace: str, blob: Blob) -> None: ...

    async def prepare_snapshot(self, namespace: str, key: str, parent: str) -> None: ...

    async def commit_snapshot(self, namespace: str, name: str, key: str) -> None: ...

    async def has_snapshot(self, namespace: str, name: str) -> bool: ...

    async def remove_snapshot(self, namespace: str, key: str) -> None: ...

    async def pull(self, namespace: str, reference: str, *, unpack: bool, plain_http: bool) -> None: ...

    async def drop_images(self, namespace: str) -> None:
        """All images of a namespace, and what only they held is gone."""

    async def collect(self) -> None: ...

    async def server_pid(self) -> int:
        """Of who answers; 0: nobody knows, or it is on another machine."""

    async def metrics(self) -> Metrics | None:
        """What it tells of itself; None: nothing."""


class TargetMaker(Protocol):
    """Connects. `async with maker() as target`; raises Unavailable when nobody answers."""

    def __call__(self) -> AbstractAsyncContextManager[Target]: ...
