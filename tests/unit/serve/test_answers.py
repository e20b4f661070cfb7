"""What a client gets of encoded data of every kind, and of a detector."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from scipy.io import wavfile

from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.serve import metadata
from edgectl.serve.model import Limits, ServedModel
from edgectl.serve.protocol import (
    InferRequest,
    InputTensor,
    RequestedOutput,
    parse_request,
    raw_request,
)
from tests.support.detector import scene, write_detector
from tests.support.models import write_onnx
from tests.unit.engine.transforms.pictures import encode
from tests.unit.engine.transforms.test_text import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDE = encode(scene(640, 320, (160, 0, 320, 160)), "JPEG", quality=95)
"""32 x 16 within the letterbox of 32 x 32: the box is the cell of column 1, row 1."""
TALL = encode(scene(320, 640, (160, 480, 320, 640), (0, 0, 160, 160)), "PNG")


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    path = write_detector(tmp_path_factory.mktemp("model") / "lamps")
    return ServedModel.load(path, threads=1, limits=Limits())


def _encoded(name: str, *data: bytes) -> InputTensor:
    wire = b"".join(len(each).to_bytes(4, "little") + each for each in data)
    return InputTensor(name, "BYTES", (len(data),), memoryview(wire))


def _answers(model: ServedModel, request: InferRequest) -> dict[str, Any]:
    return {output.name: output.array for output in model.infer(request)[0]}


def test_a_jpeg_is_answered_with_boxes_of_the_original(lamps: ServedModel) -> None:
    answers = _answers(lamps, raw_request(lamps.signature.inputs, WIDE, encoded=True))
    assert list(answers) == ["boxes", "scores", "classes", "labels", "rows", "brightness"]
    np.testing.assert_allclose(answers["boxes"], [[160, 0, 320, 160]], atol=1e-3)
    assert answers["scores"].shape == (1,)
    assert answers["scores"][0] > 0.9
    assert answers["classes"].tolist() == [0]
    assert answers["labels"].tolist() == [b"lamp"]
    assert answers["rows"].tolist() == [0]
    kinds = {name: array.dtype for name, array in answers.items()}
    assert (kinds["boxes"], kinds["classes"], kinds["rows"]) == (np.float32, np.int64, np.int64)


def test_each_picture_of_a_batch_has_its_own_boxes(lamps: ServedModel) -> None:
    dark = encode(scene(50, 50))
    answers = _answers(lamps, InferRequest((_encoded("image", WIDE, dark, TALL),)))
    assert answers["rows"].tolist() == [0, 2, 2]
    boxes = answers["boxes"].round().tolist()
    assert boxes[0] == [160, 0, 320, 160]
    assert sorted(boxes[1:]) == [[0, 0, 160, 160], [160, 480, 320, 640]]


def test_nothing_found_is_no_boxes(lamps: ServedModel) -> None:
    answers = _answers(lamps, InferRequest((_encoded("image", encode(scene(50, 50))),)))
    assert answers["boxes"].shape == (0, 4)
    assert answers["labels"].shape == (0,)
    assert {answers[name].size for name in ("scores", "classes", "rows")} == {0}


def test_boxes_of_a_tensor_are_in_pixels_of_the_input(lamps: ServedModel) -> None:
    tensor = np.full((1, 1, 32, 32), 0.25, np.float32)
    tensor[0, 0, 8:16, 24:] = 1
    request = InferRequest(
        (InputTensor("image", "FP32", tensor.shape, memoryview(tensor.data).cast("B")),)
    )
    np.testing.assert_allclose(_answers(lamps, request)["boxes"], [[24, 8, 32, 16]], atol=1e-4)


def test_the_tensors_behind_the_boxes_can_be_had(lamps: ServedModel) -> None:
    wanted = (
        RequestedOutput("boxes", binary=False, postprocess=False),
        RequestedOutput("confidence", binary=False),
        RequestedOutput("labels", binary=False),
    )
    answers = _answers(lamps, InferRequest((_encoded("image", WIDE),), wanted))
    assert answers["boxes"].shape == (1, 16, 4)
    assert answers["confidence"].shape == (1, 16, 2)
    assert answers["labels"].tolist() == [b"lamp"]


def test_only_what_is_there_can_be_asked_for(lamps: ServedModel) -> None:
    tensor = _encoded("image", WIDE)
    with pytest.raises(
        InputError, match="gives 'boxes', 'scores', 'classes', 'labels', 'rows', 'b"
    ):
        lamps.infer(InferRequest((tensor,), (RequestedOutput("box", binary=False),)))
    with pytest.raises(InputError, match="'scores' has no classes to choose from"):
        lamps.infer(InferRequest((tensor,), (RequestedOutput("scores", False, 3),)))
    with pytest.raises(InputError, match="the data is not a PNG"):
        lamps.infer(raw_request(lamps.signature.inputs, b"RIFF????WAVE", encoded=True))


def test_a_detector_is_never_quick(lamps: ServedModel) -> None:
    """Comparing boxes takes longer than the engine, and would keep everybody else waiting."""
    tensor = np.zeros((1, 1, 32, 32), np.float32)
    request = InferRequest(
        (InputTensor("image", "FP32", tensor.shape, memoryview(tensor.data).cast("B")),)
    )
    lamps.infer(request)
    assert lamps.expected_seconds(request) == float("inf")


def test_metadata_names_what_is_answered(lamps: ServedModel) -> None:
    described = metadata.model(lamps.signature)
    assert described["inputs"][0]["parameters"] == {"encoded": "image"}
    assert described["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "scores", "datatype": "FP32", "shape": [-1]},
        {"name": "classes", "datatype": "INT64", "shape": [-1]},
        {"name": "labels", "datatype": "BYTES", "shape": [-1]},
        {"name": "rows", "datatype": "INT64", "shape": [-1]},
        {"name": "brightness", "datatype": "FP32", "shape": [-1, 1, 4, 4]},
    ]
    assert metadata.config(lamps.signature)["output"][3]["data_type"] == "TYPE_STRING"


def _served(
    path: Path, inputs: tuple[TensorSpec, ...], output: TensorSpec, nodes: Any,
    element: int = TensorProto.FLOAT, constants: Mapping[str, Any] | None = None,
) -> ServedModel:  # fmt: skip
    path.mkdir(exist_ok=True)

    def shape(spec: TensorSpec) -> list[Any]:
        return ["N", *spec.shape[1:]]

    write_onnx(
        path / "model.onnx", nodes, inputs={spec.name: shape(spec) for spec in inputs},
        outputs={output.name: shape(output)}, element=element, constants=constants,
    )  # fmt: skip
    signature = ModelSignature("m", "1", "t", inputs, (output,), {"name": "onnxruntime"})
    (path / "signature.json").write_text(json.dumps(signature.to_json()))
    return ServedModel.load(path, threads=1, limits=Limits())


def _text_model(path: Path) -> ServedModel:
    step = {"vocabulary": "tokenizer.json", "length": 4}
    ids = TensorSpec("ids", "INT64", (-1, 4), ({"tokenize": step},))
    mask = TensorSpec("mask", "INT64", (-1, 4), ({"tokenize": {**step, "give": "mask"}},))
    output = TensorSpec("both", "INT64", (-1, 4))
    shift = {"thousand": np.array([1000], np.int64)}
    nodes = [
        helper.make_node("Mul", ["mask", "thousand"], ["shifted"]),
        helper.make_node("Add", ["ids", "shifted"], ["both"]),
    ]
    return _served(path, (ids, mask), output, nodes, TensorProto.INT64, shift)


def test_one_text_feeds_its_ids_and_their_mask(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")
    model = _text_model(tmp_path)
    raw = raw_request(model.signature.inputs, b"pump", encoded=True)
    assert _answers(model, raw)["both"].tolist() == [[1001, 1006, 1002, 0]]
    body = {"inputs": [{"name": "mask", "datatype": "BYTES", "shape": [2], "data": ["pump", ""]}]}
    answers = _answers(model, parse_request(json.dumps(body).encode(), None))
    assert answers["both"].tolist() == [[1001, 1006, 1002, 0], [1001, 1002, 0, 0]]
    ones = InputTensor("mask", "INT64", (1, 4), [[1, 1, 1, 1]])
    answers = _answers(model, InferRequest((_encoded("ids", b"pump"), ones)))
    assert answers["both"].tolist() == [[1001, 1006, 1002, 1000]]


def test_a_model_without_its_tokenizer_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"input 'ids': cannot read the tokenizer .*json"):
        _text_model(tmp_path)


def test_a_detector_that_names_what_is_not_there_is_not_served(tmp_path: Path) -> None:
    spec = TensorSpec("x", "FP32", (-1, 9, 4))
    output = TensorSpec("y", "FP32", (-1, 9, 4), ({"nms": {"scores": "z"}},))
    with pytest.raises(EngineError, match="output 'y': 'nms' names the output 'z'"):
        _served(tmp_path, (spec,), output, [helper.make_node("Identity", ["x"], ["y"])])


def test_a_model_with_a_transform_from_the_future_is_not_served(tmp_path: Path) -> None:
    spec = TensorSpec("x", "FP32", (-1, 3), ({"hologram": {}},))
    same = [helper.make_node("Identity", ["x"], ["y"])]
    with pytest.raises(EngineError, match="unknown transform 'hologram'"):
        _served(tmp_path, (spec,), TensorSpec("y", "FP32", (-1, 3)), same)


def test_a_recording_and_a_row_are_inputs_as_images_are(tmp_path: Path) -> None:
    sound = TensorSpec("sound", "FP32", (-1, 4), ({"audio": 8000}, {"window": 4}))
    output = TensorSpec("y", "FP32", (-1, 4))
    same = [helper.make_node("Identity", ["sound"], ["y"])]
    model = _served(tmp_path / "sound", (sound,), output, same)
    buffer = io.BytesIO()
    wavfile.write(buffer, 8000, np.array([16384, -16384], np.int16))
    raw = raw_request(model.signature.inputs, buffer.getvalue(), encoded=True)
    assert _answers(model, raw)["y"].tolist() == [[0.5, -0.5, 0, 0]]
    with pytest.raises(InputError, match=r"takes FP32 \(or encoded recordings as BYTES\)"):
        model.infer(InferRequest((InputTensor("sound", "FP64", (1, 4), [0.0] * 4),)))

    row = TensorSpec(
        "row", "FP32", (-1, 2), ({"row": ["a", "b"]}, {"minmax": {"min": 0, "max": 4}})
    )
    output = TensorSpec("y", "FP32", (-1, 2), ({"reconstruction_error": {}},))
    halves = [helper.make_node("Mul", ["row", "half"], ["y"])]
    half = {"half": np.array([0.5], np.float32)}
    model = _served(tmp_path / "row", (row,), output, halves, constants=half)
    asked = (RequestedOutput("y", binary=False, postprocess=True),)
    rows = _encoded("row", b'{"a": 4, "b": 0}', b"2,2")
    assert _answers(model, InferRequest((rows,), asked))["y"].tolist() == [0.125, 0.0625]
    assert metadata.model(model.signature)["inputs"][0]["parameters"] == {"encoded": "row"}
