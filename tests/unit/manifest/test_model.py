from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.engine.signature import ModelSignature
from edgectl.manifest.collection import newest
from edgectl.manifest.model import Model, version_order
from edgectl.manifest.problem import closest, suggest
from edgectl.manifest.yaml import read_documents

VECTORS = Path(__file__).parents[3] / "tests/vectors/manifests/good"

# semver.org, item 11, and shorter forms.
ORDER = [
    "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10.0", "2",
]  # fmt: skip


@given(st.permutations(ORDER))
def test_versions_order_as_semver_says(versions: list[str]) -> None:
    assert sorted(versions, key=version_order) == ORDER
    assert newest(versions) == "2"


def test_the_signature_has_transforms_in_full_and_survives_json() -> None:
    (node,), _ = read_documents(VECTORS / "model-full.yaml")
    signature = Model.model_validate(node.value).signature()
    assert signature.outputs[0].transforms == ({"softmax": {}}, {"topk": {"k": 1}})
    assert signature.inputs[0].transforms[-1] == {"layout": {"order": "NCHW"}}
    assert signature.golden_tolerance == {"absolute": 1e-3, "relative": 0, "top1": 0.99}
    assert ModelSignature.from_json(str_json(signature)) == signature


def str_json(signature: ModelSignature) -> bytes:
    from edgectl.digest import canonical_json

    return canonical_json(signature.to_json())


@pytest.mark.parametrize(
    ("wrong", "known", "said"),
    [
        ("Datatype", ["datatype", "shape"], "did you mean 'datatype'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], None),
        (None, ["a"], "known: a"),
        ("x", map(str, range(10, 40)), f"known: {', '.join(map(str, range(10, 30)))}, …"),
    ],
)
def test_suggestions(wrong: object, known: list[str], said: str | None) -> None:
    assert suggest(wrong, known) == said


def test_a_long_text_is_not_compared() -> None:
    assert closest("datatype" * 20, ["datatype" * 20]) is None
