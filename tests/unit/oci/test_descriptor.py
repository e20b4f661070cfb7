from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.digest import Digest
from edgectl.errors import IntegrityError
from edgectl.oci.descriptor import (
    DOCKER_MANIFEST,
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_manifest,
)

TEXTS = st.text(max_size=20)
DESCRIPTORS = st.builds(
    Descriptor,
    media_type=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    digest=st.binary(max_size=4).map(Digest.of),
    size=st.integers(0, 2**40),
    annotations=st.dictionaries(TEXTS, TEXTS, max_size=3),
    artifact_type=st.none() | TEXTS,
    platform=st.none() | st.builds(Platform, TEXTS, TEXTS, st.none() | TEXTS),
)
COMMON = {
    "artifact_type": st.none() | TEXTS,
    "subject": st.none() | DESCRIPTORS,
    "annotations": st.dictionaries(TEXTS, TEXTS, max_size=3),
}
MANIFESTS = st.builds(
    Manifest, config=DESCRIPTORS, layers=st.lists(DESCRIPTORS, max_size=3).map(tuple), **COMMON
)
INDEXES = st.builds(Index, manifests=st.lists(DESCRIPTORS, max_size=3).map(tuple), **COMMON)


@given(MANIFESTS | INDEXES)
def test_manifests_survive_a_round_trip(manifest: Manifest | Index) -> None:
    data = manifest.to_bytes()
    assert parse_manifest(data) == manifest
    assert parse_manifest(data).to_bytes() == data


@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "mediaType",
                        "config",
                        "layers",
                        "manifests",
                        "subject",
                        "digest",
                        "size",
                        "annotations",
                        "platform",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_a_manifest_or_one_clear_error(data: bytes) -> None:
    try:
        parsed = parse_manifest(data)
    except IntegrityError:
        return
    assert parse_manifest(parsed.to_bytes()) == parsed


def test_the_empty_config_is_the_specifications() -> None:
    assert str(EMPTY_CONFIG.digest) == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert EMPTY_CONFIG.size == 2


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": "3"},
        {"digest": "sha256:abc"},
        {"digest": "sha512:" + "0" * 128},
        {"mediaType": 3},
        {"mediaType": "application/x\r\nX-Injected: 1"},
        {"mediaType": "application/\u2603"},
        {"annotations": {"a": 1}},
        {"annotations": [1]},
        {"annotations": {"a": "\ud800"}},
        {"annotations": {"\udfff": "a"}},
        {"artifactType": "\ud800"},
        {"platform": {"os": "\ud800", "architecture": "arm64"}},
        {"platform": {"os": "linux", "architecture": "\ud800"}},
        {"platform": {"os": "linux", "architecture": "arm64", "variant": "\ud800"}},
        {"platform": {"os": "linux"}},
        {"platform": "linux/amd64"},
        {"platform": {"os": "linux", "architecture": "arm64", "variant": 8}},
        {"artifactType": 3},
    ],
)
def test_malformed_descriptors_are_refused(change: dict[str, Any]) -> None:
    good = Descriptor.of(b"x", "application/x").to_json()
    assert Descriptor.from_json(good).size == 1
    with pytest.raises(IntegrityError, match="malformed"):
        Descriptor.from_json({**good, **change})


@pytest.mark.parametrize("media_type", [OCI_INDEX, OCI_MANIFEST, None])
def test_what_is_an_index_and_a_manifest_at_once_is_refused(media_type: str | None) -> None:
    """CVE-2021-41190: one digest, and two contents, as whoever reads it likes."""
    config = EMPTY_CONFIG.to_json()
    value = {"mediaType": media_type, "manifests": [config], "config": config, "layers": [config]}
    with pytest.raises(IntegrityError, match="at once"):
        parse_manifest(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "not JSON: .* line 1 column 2"),
        (b"\x80{}", "not UTF-8"),
        (b"{}", "has no 'layers'"),
        (b'{"layers": 3, "config": {}}', "of another type"),
    ],
    ids=["deep", "cut", "binary", "empty", "number"],
)
def test_what_is_no_manifest_is_said_in_words(data: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=f"malformed OCI manifest: .*{words}"):
        parse_manifest(data)


def test_docker_manifests_are_read_as_what_they_are() -> None:
    layer = Descriptor.of(b"x", "application/x").to_json()
    value = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": layer, "layers": [layer]}
    assert parse_manifest(json.dumps(value).encode()).media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("value", "media_type"),
    [({"manifests": []}, OCI_INDEX), ({"config": {}, "layers": []}, OCI_MANIFEST)],
)
def test_the_media_type_may_be_left_out(value: dict[str, Any], media_type: str) -> None:
    if "config" in value:
        value = {**value, "config": EMPTY_CONFIG.to_json()}
    assert parse_manifest(json.dumps(value).encode()).media_type == media_type


def test_platforms_read_like_gos() -> None:
    assert str(Platform("linux", "arm64", "v8")) == "linux/arm64/v8"
    assert str(Platform("linux", "amd64")) == "linux/amd64"
