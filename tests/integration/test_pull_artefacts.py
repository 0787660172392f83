"""What is no file system is pulled all the same: signatures with an image's config, artefacts with their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

import orlop
from tests.support.transfers import PLAIN
from tests.support.writable_registry import WritableRegistry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:' + b"0" * 64 + b'"]}}'


def entry(media_type: str, data: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


async def made(store: orlop.Store, config_type: str, config: bytes, layer_type: str) -> str:
    payload = b'{"critical":{}}'
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": entry(config_type, config),
            "layers": [entry(layer_type, payload)],
        }
    )
    for data in (config, payload, manifest):
        await store.content.put(data, labels={"containerd.io/gc.root": "test"})
    return str(entry(MANIFEST, manifest)["digest"])


@pytest.mark.parametrize(
    ("config_type", "config", "layer_type"),
    [
        (IMAGE_CONFIG, EMPTY, "application/vnd.dev.cosign.simplesigning.v1+json"),
        ("application/vnd.oci.empty.v1+json", b"{}", "application/spdx+json"),
        ("application/vnd.example.model.v1+json", b'{"weights":1}', "application/vnd.oci.image.layer.v1.tar"),
    ],
    ids=["signature", "bill of materials", "model"],
)
async def test_an_artefact_is_pulled_as_it_is(tmp_path: Path, config_type: str, config: bytes, layer_type: str) -> None:
    with WritableRegistry() as registry:
        reference = f"{registry.address}/app:sha256-0.sig"
        async with orlop.open_store(tmp_path / "one") as store:
            digest = await made(store, config_type, config, layer_type)
            await store.push(orlop.PushImage(reference, "", digest, PLAIN))
        async with orlop.open_store(tmp_path / "two") as store:
            image = await store.pull(orlop.PullImage(reference, access=PLAIN, unpack=True))
            assert image.target.digest == digest
            await store.collect()
            assert len([info async for info in store.content.list()]) == 3
            assert [each async for each in store.snapshots.using("native").list()] == []
