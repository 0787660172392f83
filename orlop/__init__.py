"""orlop: a store for container images and artefacts.

async with orlop.open_store(path) as store:          # in this process, in your nursery
async with orlop.connect(address) as store:          # behind a socket; the same typed interface
await nursery.start(orlop.serve, config)             # a whole daemon inside your nursery
"""

from __future__ import annotations

from .actors.config import (
    JournalConfig,
    MetricsConfig,
    RegistryConfig,
    SnapshotConfig,
    StoreConfig,
    TransferConfig,
    UnpackConfig,
    VerifierConfig,
)
from .bin.archives import OnMissing, export_archive, import_archive
from .bin.compression import Compression
from .bin.conversion import Conversion, convert_image
from .bin.embed import connect, host_platform, open_store, serve
from .bin.mounting import mounted
from .protocol import errors
from .protocol.api import BlobReader, IngestWriter, Snapshots, Store, Transaction
from .protocol.archives.exporting import ExportOptions
from .protocol.archives.importing import ImportOptions
from .protocol.archives.layout import Naming
from .protocol.messages import (
    Collection,
    Context,
    CopyImage,
    Credentials,
    EventsPage,
    FetchBlobs,
    ListReferrers,
    PullImage,
    PullPolicy,
    Pushed,
    PushImage,
    RegistryAccess,
    Resource,
    TransferProgress,
    TransferState,
    Unpacked,
    Welcome,
)
from .protocol.records import (
    Any_ as Any,
)
from .protocol.records import (
    Container,
    ContentInfo,
    Descriptor,
    Event,
    Image,
    IngestStatus,
    Lease,
    LeaseResource,
    Mount,
    Namespace,
    Opaque,
    Runtime,
    Sandbox,
    SnapshotInfo,
    SnapshotKind,
    Usage,
)
from .protocol.registry.references import normalize as normalize_reference
from .protocol.version import __version__
from .protocol.world import Address, World

__all__ = [
    "__version__",
    "Address",
    "Any",
    "BlobReader",
    "Collection",
    "Compression",
    "Container",
    "ContentInfo",
    "Conversion",
    "Context",
    "CopyImage",
    "Credentials",
    "Descriptor",
    "Event",
    "EventsPage",
    "ExportOptions",
    "FetchBlobs",
    "Image",
    "ImportOptions",
    "IngestStatus",
    "IngestWriter",
    "JournalConfig",
    "Lease",
    "LeaseResource",
    "ListReferrers",
    "MetricsConfig",
    "Mount",
    "Namespace",
    "Naming",
    "OnMissing",
    "Opaque",
    "PullImage",
    "PullPolicy",
    "PushImage",
    "Pushed",
    "RegistryAccess",
    "RegistryConfig",
    "Resource",
    "Runtime",
    "Sandbox",
    "SnapshotConfig",
    "SnapshotInfo",
    "SnapshotKind",
    "Snapshots",
    "Store",
    "StoreConfig",
    "Transaction",
    "TransferConfig",
    "TransferProgress",
    "TransferState",
    "UnpackConfig",
    "Unpacked",
    "Usage",
    "VerifierConfig",
    "Welcome",
    "World",
    "connect",
    "convert_image",
    "errors",
    "export_archive",
    "host_platform",
    "import_archive",
    "mounted",
    "normalize_reference",
    "open_store",
    "serve",
]
