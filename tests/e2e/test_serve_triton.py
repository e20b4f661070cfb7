"""Triton's own client, unchanged, against a real `edgectl serve`."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from edgectl import __version__
from edgectl.engine.modeldir import ModelDirectory
from tests.support.server import running
from tests.support.slots import SAMPLES, make_digits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("model") / "digits")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[Any]:
    with running("--model", str(model)) as server:
        server.wait_ready()
        with triton.InferenceServerClient(server.address, concurrency=2) as client:
            yield client


@pytest.fixture(scope="module")
def batch() -> Any:
    images = [Image.open(path) for path in sorted(SAMPLES.glob("*.png"))[:4]]
    return np.stack([np.asarray(image, np.float32)[None] for image in images]) / np.float32(255)


@pytest.fixture(scope="module")
def expected(model: Path, batch: Any) -> Any:
    session = ModelDirectory.open(model).load()
    return session.run({"image": batch})["logits"]


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1.0.0")
    assert not client.is_model_ready("digits", "9")
    assert not client.is_model_ready("letters")
    assert client.get_server_metadata()["version"] == __version__
    metadata = client.get_model_metadata("digits", "1.0.0")
    assert metadata["versions"] == ["1.0.0"]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    assert client.get_model_config("digits")["input"][0]["data_type"] == "TYPE_FP32"
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary_input", [False, True])
@pytest.mark.parametrize("binary_output", [False, True])
def test_tensors(
    client: Any, batch: Any, expected: Any, binary_input: bool, binary_output: bool
) -> None:
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch, binary_data=binary_input)
    output = triton.InferRequestedOutput("logits", binary_data=binary_output)
    result = client.infer("digits", [tensor], outputs=[output], request_id="abc")
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)
    assert result.get_response()["id"] == "abc"
    assert result.get_response()["model_version"] == "1.0.0"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests(client: Any, batch: Any, expected: Any, coding: str) -> None:
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch)
    result = client.infer(
        "digits",
        [tensor],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)


def test_no_outputs_named(client: Any, batch: Any, expected: Any) -> None:
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch)
    result = client.infer("digits", [tensor], model_version="1.0.0", timeout=5_000_000)
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)


def test_encoded_images_and_classes(client: Any, expected: Any) -> None:
    encoded = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))[:4]]
    images = np.array(encoded, dtype=object)
    tensor = triton.InferInput("image", [4], "BYTES")
    tensor.set_data_from_numpy(images)
    result = client.infer("digits", [tensor])
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-4, atol=1e-3)
    output = triton.InferRequestedOutput("logits", class_count=2)
    classes = client.infer("digits", [tensor], outputs=[output]).as_numpy("logits")
    assert classes.shape == (4, 2)
    best = [int(row[0].decode().split(":")[1]) for row in classes]
    assert best == expected.argmax(axis=1).tolist()


def test_jpeg(client: Any) -> None:
    buffer = BytesIO()
    Image.open(SAMPLES / "digit-00.png").resize((64, 64)).save(buffer, "JPEG")
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([buffer.getvalue()], dtype=object))
    assert client.infer("digits", [tensor]).as_numpy("logits").shape == (1, 10)


def test_asynchronous_requests(client: Any, batch: Any, expected: Any) -> None:
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch)
    pending = [client.async_infer("digits", [tensor]) for _ in range(8)]
    for request in pending:
        answer = request.get_result().as_numpy("logits")
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def test_errors_reach_the_client(client: Any) -> None:
    tensor = triton.InferInput("image", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match="the model takes") as refused:
        client.infer("digits", [tensor])
    assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException, match="unknown model"):
        client.infer("letters", [tensor])
