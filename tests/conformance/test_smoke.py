"""The shortest way through every resource."""

from __future__ import annotations

import orlop


async def test_an_image_keeps_its_content_until_it_is_removed(store: orlop.Store) -> None:
    info = await store.content.put(b"manifest", labels={"a": "b"})
    target = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", info.digest, info.size)
    await store.images.create("example/app:1", target)
    await store.collect()
    assert await store.content.read(info.digest) == b"manifest"
    await store.images.delete("example/app:1", sync=True)
    assert [i async for i in store.content.list()] == []
