from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.digest import Digest
from edgectl.errors import ConfigError
from edgectl.oci.reference import Reference, RegistryLocation

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "base", "prefix", "is_layout"),
    [
        ("registry.example.com/edge", "registry.example.com", "edge", False),
        ("registry.example.com", "registry.example.com", "", False),
        ("localhost:5000/a/b-c", "localhost:5000", "a/b-c", False),
        ("[::1]:5000/a", "[::1]:5000", "a", False),
        ("registry.example.com/edge/", "registry.example.com", "edge", False),
        ("oci-layout:./registry", "./registry", "", True),
        ("oci-layout:/media/stick", "/media/stick", "", True),
    ],
)
def test_registry_settings(text: str, base: str, prefix: str, is_layout: bool) -> None:
    location = RegistryLocation.parse(text)
    assert location == RegistryLocation(base, prefix, is_layout)
    assert RegistryLocation.parse(str(location)) == location


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edge",
        "https://registry.example.com",
        "oci-layout:",
        "host:x/a",
        "h.example/UPPER",
        "a b.c/d",
    ],
)
def test_wrong_registry_settings_say_what_is_right(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RegistryLocation.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "base", "name", "tag", "digest"),
    [
        ("h.example/models/d:1.0.0", "h.example", "models/d", "1.0.0", None),
        (f"h.example:5000/d@{DIGEST}", "h.example:5000", "d", None, DIGEST),
        (f"h.example/d:1@{DIGEST}", "h.example", "d", "1", DIGEST),
        ("h.example/d", "h.example", "d", None, None),
        ("oci-layout:./reg/models/d:1.0.0", "./reg/models", "d", "1.0.0", None),
        ("oci-layout:/d", "/", "d", None, None),
        (f"oci-layout:d@{DIGEST}", ".", "d", None, DIGEST),
    ],
)
def test_references(
    text: str, base: str, name: str, tag: str | None, digest: Digest | None
) -> None:
    reference = Reference.parse(text)
    found = (reference.location.base, reference.name, reference.tag, reference.digest)
    assert found == (base, name, tag, digest)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d:1",
        "h.example/",
        "h.example/D:1",
        "h.example/d:-",
        "h.example/d@sha256:1",
        "h.example/d@md5:1",
        "oci-layout:",
        "oci-layout:..",
        "h.example/../d",
    ],
)
def test_wrong_references_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Reference.parse(text)


def test_the_target_is_the_digest_before_the_tag() -> None:
    assert Reference.parse(f"h.example/d:1@{DIGEST}").target == str(DIGEST)
    assert Reference.parse("h.example/d:1").target == "1"
    assert Reference.parse("h.example/d:1").at(DIGEST).target == str(DIGEST)
    with pytest.raises(ConfigError, match="neither tag nor digest"):
        _ = Reference.parse("h.example/d").target


@given(st.text(max_size=60) | st.text("ab.:/@-", max_size=30))
def test_any_text_is_a_reference_or_one_clear_error(text: str) -> None:
    for parse in (Reference.parse, RegistryLocation.parse):
        try:
            parsed = parse(text)
        except ConfigError:
            continue
        assert parse(str(parsed)) == parsed
