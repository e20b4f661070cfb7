"""Model cards: ours, the user's own, and templates that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.build.card import TEMPLATE, find_template, model_card
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = ModelSignature(
    "digits",
    "1.0.0",
    "classification",
    (TensorSpec("image", "FP32", (-1, 1, 8, 8), ({"decode": {"mode": "L"}}, {"layout": "NCHW"})),),
    (TensorSpec("logits", "FP32", (-1, 2), ({"softmax": {}},), ("0", "1")),),
    {"name": "onnxruntime", "version": ">=1.20", "providers": []},
)


def test_the_card_says_what_goes_in_and_out() -> None:
    card = model_card(find_template(), SIGNATURE, "Reads digits.", "")
    assert card == (
        "# digits 1.0.0\n\nReads digits.\n\n- Task: classification\n- License: not stated\n"
        "- Engine: onnxruntime >=1.20\n\n## Inputs\n\n"
        "- `image`: FP32, any x 1 x 8 x 8, through decode, layout\n\n## Outputs\n\n"
        "- `logits`: FP32, any x 2, through softmax; classes 0, 1\n\n"
        "How accurate and how fast it is: the evaluation attestation of this artifact.\n"
    )


def test_a_model_without_description_is_described_by_its_task() -> None:
    assert "A model for classification." in model_card(find_template(), SIGNATURE, "", "MIT")


def test_the_repository_s_own_template_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "templates" / TEMPLATE
    own.parent.mkdir()
    own.write_text("{{ name }} by us")
    assert find_template(tmp_path) == own
    assert model_card(own, SIGNATURE, "", "") == "digits by us"


@pytest.mark.parametrize(
    "text",
    [
        "{{ nothing }}",
        "{% if %}",
        "{{ name.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_a_faulty_or_hostile_template_is_refused(tmp_path: Path, text: str) -> None:
    template = tmp_path / TEMPLATE
    template.write_text(text)
    with pytest.raises(SourceError, match="cannot be rendered"):
        model_card(template, SIGNATURE, "", "")


def test_a_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    template = tmp_path / TEMPLATE
    template.write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="cannot be rendered"):
        model_card(template, SIGNATURE, "", "")
