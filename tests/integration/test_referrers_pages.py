"""A list of referrers that comes in pages. Source: OCI distribution-spec, listing referrers; RFC 8288."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import orlop
from tests.support.faulty_registry import FaultyRegistry, Status
from tests.support.registries import make_layout

PLAIN = orlop.RegistryAccess(plain_http=True)


def page(*names: str) -> bytes:
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": f"sha256:{name * 64}",
                    "size": 10,
                    "artifactType": f"type/{name}",
                }
                for name in names
            ],
        }
    )


@pytest.fixture
def registry(tmp_path: Path) -> FaultyRegistry:  # type: ignore[misc]
    made = make_layout(tmp_path / "layout", "--layers", "1", "--tag", "latest")
    with FaultyRegistry({"app": tmp_path / "layout"}) as registry:
        registry.digest = made["digest"]  # type: ignore[attr-defined]
        yield registry


async def listed(store: orlop.Store, registry: FaultyRegistry, kind: str = "") -> list[str]:
    request = orlop.ListReferrers(f"{registry.address}/app:latest", kind, PLAIN)
    return [each.artifact_type for each in (await store.referrers(request)).items]


async def test_every_page_is_asked_for(registry: FaultyRegistry, tmp_path: Path) -> None:
    first = f"/v2/app/referrers/{registry.digest}"  # type: ignore[attr-defined]
    link = {"Link": f'<{first}?n=2&last=b>; rel="next"'}
    registry.fault(f"GET {first}?n=2", Status(200, {}, page("c")), times=None)
    registry.fault(f"GET {first}", Status(200, link, page("a", "b")), times=None)
    async with orlop.open_store(tmp_path / "store") as store:
        assert await listed(store, registry) == ["type/a", "type/b", "type/c"]
        assert await listed(store, registry, "type/c") == ["type/c"]


async def test_a_list_without_an_end_ends(registry: FaultyRegistry, tmp_path: Path) -> None:
    first = f"/v2/app/referrers/{registry.digest}"  # type: ignore[attr-defined]
    registry.fault(f"GET {first}", Status(200, {"Link": f"<{first}>; rel=next"}, page("a")), times=None)
    async with orlop.open_store(tmp_path / "store") as store:
        assert len(await listed(store, registry)) == 100


@pytest.mark.parametrize("link", ["", "nonsense", '</x>; rel="prev"', '<>; rel="nothing"'])
async def test_other_links_are_left_alone(registry: FaultyRegistry, tmp_path: Path, link: str) -> None:
    first = f"/v2/app/referrers/{registry.digest}"  # type: ignore[attr-defined]
    registry.fault(f"GET {first}", Status(200, {"Link": link} if link else {}, page("a")), times=None)
    async with orlop.open_store(tmp_path / "store") as store:
        assert await listed(store, registry) == ["type/a"]
