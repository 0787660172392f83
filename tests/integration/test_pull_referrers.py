"""What describes an image lives as long as that, and no longer. Source: OCI image-spec, manifest, `subject`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import orlop
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def add(layout: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}"


def sign(layout: Path) -> tuple[str, str]:
    """A manifest that describes the layout's image, tagged `sig`; digests of the image and of the manifest."""
    index = json.loads((layout / "index.json").read_text())
    subject = {key: index["manifests"][0][key] for key in ("mediaType", "digest", "size")}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": add(layout, b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty], "subject": subject}
    data = json.dumps(manifest).encode()
    tagged = {"org.opencontainers.image.ref.name": "sig"}
    digest = add(layout, data)
    index["manifests"].append({"mediaType": MANIFEST, "digest": digest, "size": len(data), "annotations": tagged})
    (layout / "index.json").write_text(json.dumps(index))
    return subject["digest"], digest


async def test_a_referrer_lives_and_dies_with_its_subject(store: orlop.Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    make_layout(layout, "--layers", "1", "--files", "2", "--size", "10K", "--tag", "latest")
    subject, referrer = sign(layout)
    with LayoutRegistry({"x": layout}) as registry:
        image, signature = f"{registry.address}/x:latest", f"{registry.address}/x:sig"
        for name in (image, signature):
            await store.pull(orlop.PullImage(name, access=orlop.RegistryAccess(plain_http=True), unpack=False))
        assert (await store.content.info(referrer)).labels["containerd.io/gc.bref.content.subject"] == subject
        await store.images.delete(signature, sync=True)
        assert (await store.content.info(referrer)).digest == referrer
        [found] = await store.why(referrer)
        assert [step.name for step in found.paths[0]] == [image, subject, referrer]
        await store.images.delete(image, sync=True)
        assert [info.digest async for info in store.content.list()] == []
