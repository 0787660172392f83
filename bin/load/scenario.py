"""What a scenario says: which operations, on what, by whom, how long. Read from TOML.

Sizes are bytes, times seconds. Everything has a default except the name and the operations.
"""

from __future__ import annotations

import importlib.resources
import os
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...protocol.errors import InvalidArgument, NotFound

__all__ = [
    "Choice",
    "Collect",
    "CommitSnapshot",
    "CreateImage",
    "DeleteImage",
    "Even",
    "GetImage",
    "Ingest",
    "Keys",
    "ListImages",
    "Load",
    "Lognormal",
    "Operation",
    "Population",
    "PrepareSnapshot",
    "PublishImage",
    "Pull",
    "ReadBlob",
    "ReadBlobAt",
    "Scenario",
    "Sizes",
    "Tenants",
    "UpdateImage",
    "Zipf",
    "find_scenario",
    "find_text",
    "parse_scenario",
    "ready_scenarios",
]

Count = Annotated[int, Meta(ge=0, le=10_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=64 * 1024**3)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 24 * 3600)]


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not known is a mistake, and not passed over."""


# distributions -----------------------------------------------------------------------------------------------


class Zipf(_Said, frozen=True, tag_field="kind", tag="zipf"):
    """The n-th of them is asked for with a weight of 1 / n ** skew."""

    skew: Annotated[float, Meta(ge=0, le=4)] = 1.0


class Uniform(_Said, frozen=True, tag_field="kind", tag="uniform"):
    """All alike."""


class Even(_Said, frozen=True, tag_field="kind", tag="even"):
    """A size between two bounds, all alike."""

    least: Bytes
    most: Bytes


class Lognormal(_Said, frozen=True, tag_field="kind", tag="lognormal"):
    """Half of the sizes are below the median; `sigma` 1 puts one in six above 2.7 times it. Cut at `most`."""

    median: Bytes
    sigma: Annotated[float, Meta(ge=0, le=4)] = 1.0
    most: Bytes = 1024**3


class Choice(_Said, frozen=True, tag_field="kind", tag="choice"):
    """One of these sizes, by weight."""

    of: Annotated[list[tuple[Annotated[float, Meta(gt=0)], Bytes]], Meta(min_length=1)]


Keys = Zipf | Uniform
Sizes = int | Even | Lognormal | Choice


# operations --------------------------------------------------------------------------------------------------


class _Operation(_Said, frozen=True, tag_field="do"):
    weight: Annotated[float, Meta(gt=0)] = 1.0


class GetImage(_Operation, frozen=True, tag="image-get"):
    """One image of the population by its key."""


class ListImages(_Operation, frozen=True, tag="image-list"):
    """All images that a filter matches; none: all."""

    filters: list[str] = []


class CreateImage(_Operation, frozen=True, tag="image-create"):
    """A new record, whose content need not be there."""


class UpdateImage(_Operation, frozen=True, tag="image-update"):
    """One label, by mask, of an image that is the client's own."""


class DeleteImage(_Operation, frozen=True, tag="image-delete"):
    """The oldest image that the client made. `sync`: until what only it held is gone."""

    sync: bool = False


class PublishImage(_Operation, frozen=True, tag="image-publish"):
    """Layers and a manifest under a lease, then the image: what a build or a pull leaves in a store."""

    layers: Annotated[int, Meta(ge=1, le=128)] = 3
    size: Sizes = 16384


class Ingest(_Operation, frozen=True, tag="blob-ingest"):
    """A new blob, kept by a root label, the oldest of which goes when the client has more than `keep`."""

    size: Sizes = 4096
    keep: Count = 100


class ReadBlob(_Operation, frozen=True, tag="blob-read"):
    """A blob of the population, whole."""


class ReadBlobAt(_Operation, frozen=True, tag="blob-read-at"):
    """So many bytes anywhere in a blob of the population."""

    length: Bytes = 4096


class PrepareSnapshot(_Operation, frozen=True, tag="snapshot-prepare"):
    """A new active snapshot on one of the population."""


class CommitSnapshot(_Operation, frozen=True, tag="snapshot-commit"):
    """The oldest active snapshot of the client; beyond `keep`, the oldest that it committed is removed."""

    keep: Count = 10


class Pull(_Operation, frozen=True, tag="pull"):
    """One of these references, into a namespace of its own that is emptied afterwards: nothing of it is here."""

    references: list[str] = []
    unpack: bool = True
    plain_http: bool = False


class Collect(_Operation, frozen=True, tag="collect"):
    """A garbage collection, until it has ended."""


Operation = (
    GetImage
    | ListImages
    | CreateImage
    | UpdateImage
    | DeleteImage
    | PublishImage
    | Ingest
    | ReadBlob
    | ReadBlobAt
    | PrepareSnapshot
    | CommitSnapshot
    | Pull
    | Collect
)


# who, on what, how -------------------------------------------------------------------------------------------


class Tenants(_Said, frozen=True):
    """Namespaces: each client's operation goes to one of them."""

    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    choose: Keys = Uniform()


class Population(_Said, frozen=True):
    """What is there before it begins, in each namespace."""

    images: Count = 0
    blobs: Count = 0
    blob_size: Sizes = 4096
    snapshots: Count = 0


class Load(_Said, frozen=True):
    """Closed loop: so many clients, each asks when it was answered and has thought. With a `rate`, open loop:
    operations arrive at it, whoever is still busy; a latency counts from the arrival."""

    clients: Annotated[int, Meta(ge=1, le=10_000)] = 64
    think_s: Seconds = 0.0
    rate: Annotated[float, Meta(ge=0, le=10_000_000)] = 0.0
    arrivals: Literal["poisson", "even"] = "poisson"
    connections: Literal["shared", "own"] = "shared"
    """One for all clients of a worker, or one for each client."""


class Scenario(_Said, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    operations: Annotated[list[Operation], Meta(min_length=1, max_length=100)]
    about: str = ""
    seed: int = 1
    warmup_s: Seconds = 2.0
    duration_s: Annotated[float, Meta(gt=0, le=7 * 24 * 3600)] = 30.0
    load: Load = Load()
    tenants: Tenants = Tenants()
    population: Population = Population()
    keys: Keys = Uniform()


_READ_BLOBS = (ReadBlob, ReadBlobAt)


def parse_scenario(text: str | bytes, name: str) -> Scenario:
    """Raises InvalidArgument, which says where it is wrong."""
    try:
        scenario = msgspec.toml.decode(text, type=Scenario)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"scenario {name}: {error}") from None
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"scenario {name} is no TOML: {error}") from None
    population = scenario.population
    for operation in scenario.operations:
        if isinstance(operation, _READ_BLOBS) and not population.blobs:
            raise InvalidArgument(f"scenario {name}: blobs are read and none are there", hint="set population.blobs")
        if isinstance(operation, Pull) and not operation.references:
            raise InvalidArgument(f"scenario {name}: a pull of nothing", hint="set references")
        if isinstance(operation, GetImage | UpdateImage) and not population.images:
            raise InvalidArgument(f"scenario {name}: images are read and none are there", hint="set population.images")
    return scenario


def ready_scenarios() -> dict[str, Scenario]:
    """Those that come with the program, by name."""
    return {name: parse_scenario(text, name) for name, text in _texts().items()}


def find_scenario(name: str) -> Scenario:
    """A file, or one of the ready ones. Raises NotFound, InvalidArgument."""
    return parse_scenario(find_text(name), name)


def find_text(name: str) -> str:
    """What a file, or one of the ready ones, says. Raises NotFound, InvalidArgument."""
    if os.path.exists(name):
        try:
            with open(name, encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"scenario {name}: {error}") from None
    ready = _texts()
    if name not in ready:
        raise NotFound(f"scenario {name}", hint=f"a TOML file, or one of {', '.join(ready)}")
    return ready[name]


def _texts() -> dict[str, str]:
    folder = importlib.resources.files(__package__) / "scenarios"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text() for file in sorted(files, key=lambda file: file.name)}
