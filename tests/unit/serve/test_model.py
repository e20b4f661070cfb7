from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgectl.engine.errors import EngineError, InputError
from edgectl.serve.model import Limits, ServedModel
from edgectl.serve.protocol import InferRequest, InputTensor, RequestedOutput, parse_request
from tests.support.images import png_bomb
from tests.support.slots import SAMPLES, make_digits

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    path = make_digits(tmp_path_factory.mktemp("model") / "digits")
    return ServedModel.load(path, threads=1, limits=Limits(batch=8, tensor_bytes=2048))


def _images(*encoded: bytes, shape: tuple[int, ...] | None = None) -> InputTensor:
    wire = b"".join(len(image).to_bytes(4, "little") + image for image in encoded)
    return InputTensor("image", "BYTES", shape or (len(encoded),), memoryview(wire))


def _tensor(array: Any, name: str = "image", datatype: str = "FP32") -> InputTensor:
    return InputTensor(name, datatype, array.shape, memoryview(array.tobytes()))


def _samples() -> list[bytes]:
    return [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))[:8]]


def _logits(model: ServedModel, tensor: InputTensor) -> Any:
    [output], seconds = model.infer(InferRequest((tensor,)))
    assert seconds > 0
    return output.array


def test_encoded_images_are_what_their_pixels_are(digits: ServedModel) -> None:
    samples = _samples()
    pixels = np.stack([np.asarray(Image.open(BytesIO(data)), np.float32) for data in samples])
    plain = _logits(digits, _tensor(pixels[:, None] / np.float32(255)))
    np.testing.assert_allclose(_logits(digits, _images(*samples)), plain, atol=1e-4)
    nested = _images(*samples, shape=(len(samples), 1))
    np.testing.assert_allclose(_logits(digits, nested), plain, atol=1e-4)
    one_by_one = np.concatenate([_logits(digits, _images(sample)) for sample in samples])
    np.testing.assert_allclose(one_by_one, plain, atol=1e-4)


def test_classification_answers_the_best_classes_after_softmax(digits: ServedModel) -> None:
    tensor = _images(*_samples()[:2])
    logits = _logits(digits, tensor)
    requested = (RequestedOutput("logits", binary=True, classification=2),)
    [output], _ = digits.infer(InferRequest((tensor,), requested))
    assert output.array.shape == (2, 2)
    for row, answer in zip(logits, output.array, strict=True):
        score, index, label = answer[0].decode().split(":")
        assert int(index) == row.argmax() == int(label)
        odds = np.exp(row - row.max())
        assert float(score) == pytest.approx(odds.max() / odds.sum(), abs=1e-5)


def test_postprocess_answers_what_the_output_declares(digits: ServedModel) -> None:
    requested = (RequestedOutput("logits", binary=False, postprocess=True),)
    [output], _ = digits.infer(InferRequest((_images(_samples()[0]),), requested))
    assert output.array.shape == (1, 3)


_ZEROS = np.zeros((1, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_tensor(_ZEROS, "picture"), "unknown input 'picture'; the model takes 'image'"),
        (_tensor(_ZEROS[0]), r"shape \[1, 8, 8\]"),
        (_tensor(np.zeros((1, 1, 8, 9), np.float32)), r"shape \[1, 1, 8, 9\]"),
        (_tensor(np.zeros((0, 1, 8, 8), np.float32)), "empty"),
        (_tensor(np.zeros((9, 1, 8, 8), np.float32)), "batch of 9 is over the limit of 8"),
        (_tensor(_ZEROS.astype(np.float64), datatype="FP64"), "FP64, but the model takes FP32"),
        (_tensor(_ZEROS * np.nan), "NaN"),
        (_tensor(_ZEROS + np.inf), "infinite"),
        (InputTensor("image", "FP32", (1, 1, 8, 8), [0.0] * 63), "63 were sent"),
        (_images(), "empty"),
        (_images(b""), "image"),
        (_images(b"not an image"), "image"),
        (_images((SAMPLES / "digit-00.png").read_bytes()[:60]), "image"),
        (_images(*[b""] * 9), "batch of 9"),
        (_images(b"x", shape=(2,)), "2 elements declared"),
        (_images(png_bomb(30_000, 30_000)), "pixels"),
    ],
)
def test_wrong_input_is_refused(digits: ServedModel, tensor: InputTensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        digits.infer(InferRequest((tensor,)))


def test_a_model_of_bare_tensors_says_so_of_encoded_data(tmp_path: Path) -> None:
    path = make_digits(tmp_path / "m")
    signature = json.loads((path / "signature.json").read_bytes())
    signature["inputs"][0]["transforms"] = []
    (path / "signature.json").write_text(json.dumps(signature))
    model = ServedModel.load(path, threads=1, limits=Limits())
    with pytest.raises(InputError, match="but the model takes FP32: its manifest declares no pre"):
        model.infer(InferRequest((_images(_samples()[0]),)))


def test_a_batch_of_large_images_is_refused_before_any_is_decoded(digits: ServedModel) -> None:
    """Each would do alone; together they would keep everybody else waiting for a minute."""
    image = png_bomb(5000, 5000)  # its pixels are missing: decoding any would say so
    with pytest.raises(InputError, match="2 images have more than 33554432 pixels together"):
        digits.infer(InferRequest((_images(image, image),)))


def test_images_cannot_become_more_than_a_tensor_may_be(tmp_path: Path) -> None:
    model = ServedModel.load(
        make_digits(tmp_path / "m"), threads=1, limits=Limits(batch=100, tensor_bytes=255)
    )
    with pytest.raises(InputError, match="limit of 255 bytes"):
        model.infer(InferRequest((_images(_samples()[0]),)))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (RequestedOutput("scores", binary=False), "unknown output 'scores'; the model gives"),
    ],
)
def test_wrong_output_is_refused(
    digits: ServedModel, output: RequestedOutput, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        digits.infer(InferRequest((_tensor(_ZEROS),), (output,)))


def test_missing_input_is_named(digits: ServedModel) -> None:
    with pytest.raises(InputError, match="missing input 'image'"):
        digits.infer(InferRequest(()))


def test_time_is_expected_only_of_what_was_measured(tmp_path: Path) -> None:
    model = ServedModel.load(make_digits(tmp_path / "m"), threads=1, limits=Limits())
    one = InferRequest((_tensor(_ZEROS),))
    many = InferRequest((_tensor(np.repeat(_ZEROS, 50, 0)),))
    assert model.expected_seconds(one) == float("inf")
    model.infer(one)
    assert model.expected_seconds(many) == pytest.approx(50 * model.expected_seconds(one))
    assert model.expected_seconds(InferRequest((_images(b""),))) == float("inf")


def test_model_with_wrong_golden_outputs_is_not_served(tmp_path: Path) -> None:
    path = make_digits(tmp_path / "m")
    with np.load(path / "golden.npz") as golden:
        arrays = dict(golden)
    np.savez(path / "golden.npz", image=arrays["image"], logits=arrays["logits"] + 5)
    with pytest.raises(EngineError, match="golden outputs differ"):
        ServedModel.load(path, threads=1, limits=Limits())


def test_json_request_end_to_end(digits: ServedModel) -> None:
    data = _ZEROS.tolist()
    value = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}]}
    [output], _ = digits.infer(parse_request(json.dumps(value).encode(), None))
    np.testing.assert_array_equal(output.array, _logits(digits, _tensor(_ZEROS)))
