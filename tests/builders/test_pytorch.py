"""The PyTorch builder, on programs exported by PyTorch itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests.builders.pytorch_sources import PICTURES, ROWS, TWO, imported, refusal, tensor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once


@pytest.mark.parametrize(
    ("file", "inputs", "outputs"),
    [
        ("conv.pt2", PICTURES["inputs"], PICTURES["outputs"]),
        ("mlp.pt2", ROWS["inputs"], ROWS["outputs"]),
        ("mlp.pt2", tensor("x", 3, 4), tensor("y", 3, 3)),
        ("fixed.pt2", tensor("x", 1, 4), tensor("y", 1, 3)),
        ("attention.pt2", tensor("tokens", -1, 5, 8), tensor("mixed", -1, 5, 8)),
        ("recurrent.pt2", tensor("steps", 2, 5, 4), tensor("y", 2, 3)),
        ("steps.pt", tensor("x", -1, 4), tensor("y", -1, 4)),
        ("traced.pt", PICTURES["inputs"], PICTURES["outputs"]),
    ],
    ids=["conv", "mlp", "mlp-static", "fixed", "attention", "lstm", "control-flow", "traced"],
)
def test_a_model_keeps_its_outputs_and_its_bytes(
    build: Build, made: Path, file: str, inputs: Any, outputs: Any
) -> None:
    results = [imported(build, made / file, inputs=inputs, outputs=outputs) for _ in range(2)]
    first, second = (result.outputs["model"].read_bytes() for result in results)
    assert first == second
    agreement = results[0].metadata["agreement"]
    assert agreement["data"] == "random"
    assert agreement["maxDifference"] < 1e-5
    model = onnx.load_from_string(first)
    onnx.checker.check_model(model, full_check=True)
    for declared, value in (
        (inputs[0], model.graph.input[0]),
        (outputs[0], model.graph.output[0]),
    ):
        assert value.name == declared["name"]
        sizes = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
        assert sizes == declared["shape"]
    assert str(made).encode() not in first


def test_control_flow_stays_in_the_graph(build: Build, made: Path) -> None:
    result = imported(
        build, made / "steps.pt", inputs=tensor("x", -1, 4), outputs=tensor("y", -1, 4)
    )
    assert result.metadata["form"] == "script"
    assert {"If", "Loop"} <= set(result.metadata["operators"])


def test_tensors_get_the_declared_names_by_position(
    build: Build, made: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "evaluation.npz", b=rows, a=2 * rows)
    result = build(
        "pytorch",
        "import",
        {"source": made / "two.pt2", "evaluation": tmp_path / "evaluation.npz"},
        TWO,
    )
    agreement = result.metadata["agreement"]
    assert (agreement["data"], agreement["samples"]) == ("evaluation", 6)

    import onnxruntime

    session = onnxruntime.InferenceSession(
        result.outputs["model"], providers=["CPUExecutionProvider"]
    )
    total, rest = session.run(["total", "rest"], {"a": 2 * rows, "b": rows})
    np.testing.assert_allclose(total, 3 * rows, rtol=1e-6)
    np.testing.assert_allclose(rest, rows, rtol=1e-6)


def test_a_fixed_batch_is_compared_row_by_row(build: Build, made: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=rows)
    inputs = {"source": made / "fixed.pt2", "calibration": tmp_path / "calibration.npz"}
    params = {"inputs": tensor("x", 1, 4), "outputs": tensor("y", 1, 3)}
    agreement = build("pytorch", "import", inputs, params).metadata["agreement"]
    assert (agreement["data"], agreement["samples"]) == ("calibration", 5)


@pytest.mark.parametrize(
    ("file", "params", "said"),
    [
        ("svd.pt2", {"inputs": tensor("x", 2, 4), "outputs": tensor("y", 2, 4)},
         "operator aten._linalg_svd.default has no ONNX form (at _linalg_svd)"),
        ("svd.pt", {"outputs": tensor("y", -1, 4)}, "operator aten::linalg_svdvals has no ONNX"),
        ("ill.pt2", {}, "1 of 3 values of '0.bias' are NaN"),
        ("ill.pt", {}, "1 of 3 values of '0.bias' are NaN"),
        ("dropout.pt2", {}, "operator aten.dropout.default is in training mode"),
        ("fixed.pt2", {}, "'x' is float32 [1, 4] in the model, FP32 [-1, 4] in the manifest"),
        ("mlp.pt2", {"outputs": tensor("y", -1, 5)}, "'y' is float32 [-1, 3] in the model"),
        ("two.pt2", {}, "the model has 2 inputs"),
        ("module.pt", {}, "a pickle of a module or of a state dict"),
        ("state.pt", {}, "a pickle of a module or of a state dict"),
        ("old.pt", {}, "a pickle, as torch.save wrote them before PyTorch 1.6"),
    ],
    ids=["operator", "script-operator", "nan", "script-nan", "training", "static", "outputs",
         "inputs", "module", "state-dict", "old-pickle"],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_by_name(
    build: Build, made: Path, file: str, params: dict[str, Any], said: str
) -> None:
    assert said in refusal(build, made / file, **params).message
