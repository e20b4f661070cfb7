"""What edgectl makes of the same inputs, held still: a change needs a new revision.

A step's key stands for its result. Where edgectl's own code gives another result for the same key,
a registry's cache would go on giving the old one, and two machines would build different digests
of one commit. So: raise REVISION of that kind, and write the new digest here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgectl.build import attestations, modelpack
from edgectl.build.card import model_card
from edgectl.digest import Digest, canonical_json
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.oci import image
from edgectl.oci.descriptor import Descriptor, Platform
from edgectl.plan.step import REVISION, StepKind

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = {
    StepKind.PACKAGE: (2, "a48f8c2a906c1caa56b9fe1edc630b5b79ce703f1176cde431bbbc74758dbe3e"),
    StepKind.INDEX: (2, "bb487ad655f181433c5a34ecd35506219eafcb81d46fdc8988c9c2472944ad49"),
    StepKind.IMAGE: (1, "50c121c2db299e045093275a546e1e4a456c7cc3f459b26908a07adf5e1f3a9f"),
    StepKind.ATTEST: (2, "a9e043a4441cae82ccaf515694d2b1a819053a9b64674f5e2dd246757706f352"),
}
TEMPLATE = (
    "{{ name }} {{ version }} {{ task }} {{ description }} {{ license }} {{ engine.name }}"
    "{% for t in inputs + outputs %}\n{{ t.name }} {{ t.datatype }} {{ t.shape }} "
    "{{ t.transforms }} {{ t.labels }}{% endfor %}\n"
)
SIGNATURE = ModelSignature(
    name="toy",
    version="1.0.0",
    task="classification",
    inputs=(TensorSpec("x", "FP32", (-1, 1, 2, 2), ({"decode": {"mode": "L"}},)),),
    outputs=(TensorSpec("y", "FP32", (-1, 2), ({"softmax": {}},), ("no", "yes")),),
    engine={"name": "onnxruntime", "version": ">=1.20", "providers": ["CPUExecutionProvider"]},
    golden_tolerance={"absolute": 0.5, "relative": 0.1, "top1": 1.0},
)
PLATFORM = Platform("linux", "arm64", "v8")


def package(tmp_path: Path) -> modelpack.Package:
    template = tmp_path / "card.md.j2"
    template.write_text(TEMPLATE)
    return modelpack.pack(
        modelpack.Variant(
            SIGNATURE,
            "raspberry-pi-5",
            PLATFORM,
            "int8",
            {"family": "raspberry-pi", "latency": 0.05},
            description="A toy",
            license="Apache-2.0",
        ),
        model=Descriptor.of(b"weights", "application/octet-stream"),
        golden=Descriptor.of(b"golden", "application/octet-stream"),
        card=model_card(template, SIGNATURE, "A toy", "Apache-2.0"),
    )


def make(kind: StepKind, tmp_path: Path) -> bytes:
    packed = package(tmp_path)
    if kind is StepKind.PACKAGE:
        return packed.manifest.to_bytes()
    if kind is StepKind.INDEX:
        entry = modelpack.Entry(packed.manifest, PLATFORM)
        return modelpack.model_index("toy", "1.0.0", [entry]).index
    if kind is StepKind.IMAGE:
        weights = tmp_path / "model.onnx"
        weights.write_bytes(b"weights")
        variants = [image.Variant("raspberry-pi-5", PLATFORM, {"model.onnx": weights})]
        return image.assemble_model_image("toy", variants, tmp_path).index
    built = attestations.Built(
        signature=SIGNATURE,
        target="raspberry-pi-5",
        precision="int8",
        license="Apache-2.0",
        model=Digest.of(b"weights"),
        materials={"source": Digest.of(b"source"), "golden": Digest.of(b"golden")},
        builders=(attestations.BuiltBy("onnx", Digest.of(b"onnx"), "numpy==2.0.0 \\\n"),),
        params={"precision": "int8"},
        edgectl_version="0",
    )
    return canonical_json([attestations.provenance(built), attestations.bill_of_materials(built)])


@pytest.mark.parametrize("kind", GOLDEN)
def test_what_is_made_changes_only_with_its_revision(
    kind: StepKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    found = (REVISION[kind], Digest.of(make(kind, tmp_path)).hex)
    assert found == GOLDEN[kind], f"raise REVISION[{kind}] in edgectl/plan/step.py, see above"
