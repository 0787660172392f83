"""Media types, children of documents, and the labels that keep them. Source: spec metadata 16, registry 8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orlop.protocol.errors import InvalidArgument
from orlop.protocol.registry.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Child,
    children,
    is_layer,
    kind_of,
    reference_labels,
    sniff,
)
from orlop.protocol.registry.platforms import Platform

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "media_types.json").read_text())
OCI_MANIFEST, DOCKER_MANIFEST = MANIFEST_TYPES
OCI_INDEX, DOCKER_INDEX = INDEX_TYPES
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
vectors = pytest.mark.parametrize("vector", VECTORS, ids=[v["media_type"] or "empty" for v in VECTORS])
A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def child(media_type: str, digest: str = A, **annotations: str) -> Child:
    return Child(media_type, digest, 1, annotations)


def document(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def descriptor(media_type: str, digest: str, size: int = 1) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


@vectors
def test_a_media_type_is_of_the_kind_that_containerd_sees(vector) -> None:
    kinds = ("index", "manifest", "known_config", "layer", "attestation")
    expected = next((kind for kind in kinds if vector[kind]), "unknown").removeprefix("known_")
    assert kind_of(vector["media_type"]) == expected


@vectors
def test_a_media_type_is_a_layer_or_not(vector) -> None:
    assert is_layer(vector["media_type"]) is vector["layer"]


@vectors
def test_the_first_child_of_a_type_gets_the_label_that_containerd_gives(vector) -> None:
    prefix = vector["child_gc_label"]
    label = f"{prefix}0" if prefix.endswith(".") else prefix
    assert reference_labels([child(vector["media_type"])]) == {label: A}


def test_labels_count_from_zero_for_each_kind_of_child() -> None:
    found = [child(CONFIG, A), child(LAYER, B), child(LAYER, C), child(LAYER, B), child("text/plain", C)]
    assert reference_labels(found) == {
        "containerd.io/gc.ref.content.config": A,
        "containerd.io/gc.ref.content.l.0": B,
        "containerd.io/gc.ref.content.l.1": C,
        "containerd.io/gc.ref.content.l.2": B,
        "containerd.io/gc.ref.content.0": C,
    }


def test_labels_of_an_index_tell_manifests_from_nested_indexes() -> None:
    found = [child(OCI_MANIFEST, A), child(OCI_INDEX, B), child(DOCKER_MANIFEST, C), child(DOCKER_INDEX, A)]
    assert reference_labels(found) == {
        "containerd.io/gc.ref.content.m.0": A,
        "containerd.io/gc.ref.content.0": B,
        "containerd.io/gc.ref.content.m.1": C,
        "containerd.io/gc.ref.content.1": A,
    }


def test_further_configs_are_numbered_from_one_without_a_dot() -> None:
    assert reference_labels([child(CONFIG, A), child(CONFIG, B), child(CONFIG, C)]) == {
        "containerd.io/gc.ref.content.config": A,
        "containerd.io/gc.ref.content.config1": B,
        "containerd.io/gc.ref.content.config2": C,
    }


def test_a_referrer_is_labelled_by_the_beginning_of_its_digest() -> None:
    found = [child(OCI_MANIFEST, A, **{"io.containerd.manifest.subject": B})]
    assert reference_labels(found) == {"containerd.io/gc.ref.content.referrer.sha256.aaaaaaaaaaaa": A}


@pytest.mark.parametrize("media_type", MANIFEST_TYPES)
def test_children_of_a_manifest_are_its_config_and_then_its_layers(media_type: str) -> None:
    data = document(layers=[descriptor(LAYER, B, 7), descriptor(LAYER, C)], config=descriptor(CONFIG, A))
    found = children(media_type, data, "it")
    assert [(c.media_type, c.digest, c.size) for c in found] == [(CONFIG, A, 1), (LAYER, B, 7), (LAYER, C, 1)]


@pytest.mark.parametrize("media_type", INDEX_TYPES)
def test_children_of_an_index_are_its_manifests_with_their_platforms(media_type: str) -> None:
    arm = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1", "os.features": ["x"]}
    data = document(manifests=[{**descriptor(OCI_MANIFEST, A), "platform": arm}, descriptor(DOCKER_MANIFEST, B)])
    found = children(media_type, data, "it")
    assert [c.digest for c in found] == [A, B]
    assert [c.platform for c in found] == [Platform("linux", "arm", "v7", "1", ("x",)), None]


@pytest.mark.parametrize("media_type", [CONFIG, LAYER, "application/vnd.in-toto+json", "text/plain", ""])
def test_what_is_no_document_has_no_children_and_is_not_read(media_type: str) -> None:
    assert children(media_type, b"not json", "it") == []


def test_annotations_of_a_child_reach_its_descriptor() -> None:
    entry = {**descriptor(OCI_MANIFEST, A, 5), "annotations": {"k": "v"}}
    (found,) = children(OCI_INDEX, document(manifests=[entry]), "it")
    made = found.descriptor
    assert (made.media_type, made.digest, made.size, made.annotations) == (OCI_MANIFEST, A, 5, {"k": "v"})


@pytest.mark.parametrize(
    "media_type, inner", [(OCI_MANIFEST, DOCKER_MANIFEST), (DOCKER_MANIFEST, OCI_MANIFEST), (OCI_INDEX, DOCKER_INDEX)]
)
def test_the_other_flavour_of_the_same_kind_is_accepted(media_type: str, inner: str) -> None:
    assert children(media_type, document(mediaType=inner), "it") == []


REFUSED = {
    "manifest with manifests": (OCI_MANIFEST, document(manifests=[descriptor(OCI_MANIFEST, A)])),
    "both layers and manifests": (
        OCI_MANIFEST,
        document(layers=[descriptor(LAYER, B)], manifests=[descriptor(OCI_MANIFEST, A)]),
    ),
    "manifest that says index": (DOCKER_MANIFEST, document(mediaType=OCI_INDEX)),
    "index with config": (OCI_INDEX, document(config=descriptor(CONFIG, A))),
    "index with layers": (DOCKER_INDEX, document(layers=[descriptor(LAYER, A)])),
    "index that says manifest": (OCI_INDEX, document(mediaType=DOCKER_MANIFEST)),
    "schema 1": (OCI_MANIFEST, document(fsLayers=[{"blobSum": A}])),
    "not json": (OCI_MANIFEST, b"<html></html>"),
    "empty": (OCI_INDEX, b""),
    "not utf-8": (OCI_MANIFEST, b'{"mediaType": "\xff"}'),
    "an array": (OCI_INDEX, b"[]"),
    "layers of text": (OCI_MANIFEST, document(layers=["a"])),
    "a size in text": (OCI_MANIFEST, document(layers=[{"mediaType": LAYER, "digest": A, "size": "1"}])),
    "nested too deep": (OCI_MANIFEST, b'{"layers":' + b"[" * 100_000),
    "unknown field nested too deep": (OCI_MANIFEST, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "data after it": (OCI_MANIFEST, document() + b"{}"),
}


@pytest.mark.parametrize("media_type, data", REFUSED.values(), ids=REFUSED)
def test_a_document_that_is_not_what_its_type_says_is_refused_by_name(media_type: str, data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="the name"):
        children(media_type, data, "the name")


def test_empty_lists_make_no_document_the_other_kind() -> None:
    assert children(OCI_MANIFEST, document(manifests=[], layers=[]), "it") == []
    assert children(OCI_INDEX, document(manifests=[], layers=[]), "it") == []


@pytest.mark.parametrize(
    "data, media_type",
    [
        (document(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
        (document(mediaType=OCI_INDEX), OCI_INDEX),
        (document(manifests=[]), OCI_INDEX),
        (document(config=descriptor(CONFIG, A), layers=[]), OCI_MANIFEST),
    ],
)
def test_a_document_without_a_type_is_known_by_its_fields(data: bytes, media_type: str) -> None:
    assert sniff(data, "it") == media_type


@pytest.mark.parametrize("data", [document(), b"{}", b"hello", document(fsLayers=[{"blobSum": A}])])
def test_what_looks_like_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        sniff(data, "it")
