from __future__ import annotations

import json
from typing import Any

import pytest

from edgectl.digest import Digest
from edgectl.errors import TrustError
from edgectl.trust.release import FleetRelease, ModelRef, Ring, Selector, SoakSettings

MODEL = ModelRef("digits", "1.0.0", "models/digits", Digest.of(b"index"))
RELEASE = FleetRelease(
    "shopfloor", 1, Selector(), (Ring("all", Selector({"a": "b"}, 0.5), SoakSettings(), (MODEL,)),)
)


def changed(place: str, **changes: Any) -> bytes:
    """The release with other values in its model, its soak or its selector."""
    value = json.loads(RELEASE.to_bytes())
    (ring,) = value["rings"]
    (ring["models"][0] if place == "model" else ring[place]).update(changes)
    return json.dumps(value).encode()


def test_round_trip() -> None:
    assert FleetRelease.from_bytes(RELEASE.to_bytes()) == RELEASE


@pytest.mark.parametrize(
    "name", ["../../../etc", "/etc", "a/b", "..", ".hidden", "", "a\0b", "a\\b", "x" * 256, 5, None]
)
def test_model_names_that_could_lead_elsewhere(name: Any) -> None:
    """They become directories on the device: being signed does not make them harmless."""
    with pytest.raises(TrustError, match="model name"):
        FleetRelease.from_bytes(changed("model", name=name))


@pytest.mark.parametrize("repository", ["../x", "/x", "a?b", "a#b", "a//b", "UPPER", "", 5])
def test_repositories_that_are_none(repository: Any) -> None:
    with pytest.raises(TrustError, match="repository"):
        FleetRelease.from_bytes(changed("model", repository=repository))


def test_a_model_twice_in_one_ring() -> None:
    value = json.loads(RELEASE.to_bytes())
    value["rings"][0]["models"] *= 2
    with pytest.raises(TrustError, match="twice"):
        FleetRelease.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("soak", {"duration": float("nan")}),
        ("soak", {"duration": float("inf")}),
        ("soak", {"duration": -1}),
        ("soak", {"maxErrorRate": float("nan")}),
        ("soak", {"minAccuracy": {"digits": float("nan")}}),
        ("selector", {"share": float("nan")}),
        ("selector", {"share": 10**400}),
    ],
)
def test_numbers_that_no_comparison_ends(place: str, changes: dict[str, Any]) -> None:
    """A soak of NaN seconds would never be over."""
    with pytest.raises(TrustError, match="malformed"):
        FleetRelease.from_bytes(changed(place, **changes))
