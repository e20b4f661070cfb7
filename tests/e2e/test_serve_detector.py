"""A detector behind a real `edgectl serve`: a picture in, its boxes out, by curl's way and by
Triton's own client."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.support.detector import scene, write_detector
from tests.support.server import Server, running
from tests.unit.engine.transforms.pictures import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE = encode(scene(640, 320, (160, 0, 320, 160), (480, 160, 640, 320)), "JPEG", quality=95)
BOXES = [[160, 0, 320, 160], [480, 160, 640, 320]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = write_detector(tmp_path_factory.mktemp("model") / "lamps")
    with running("--model", str(model)) as server:
        server.wait_ready()
        yield server


def test_a_jpeg_as_the_whole_body(server: Server) -> None:
    with closing(server.connect()) as connection:
        connection.request(
            "POST", "/v2/models/lamps/infer", PICTURE, {"Content-Type": "image/jpeg"}
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
    assert response.status == 200
    outputs = {output["name"]: output for output in answer["outputs"]}
    boxes = np.reshape(outputs["boxes"]["data"], outputs["boxes"]["shape"])
    np.testing.assert_allclose(sorted(boxes.round().tolist()), BOXES)
    assert outputs["labels"]["data"] == ["lamp", "lamp"]
    assert outputs["rows"]["data"] == [0, 0]


@pytest.mark.parametrize("binary", [False, True])
def test_tritons_client(server: Server, binary: bool) -> None:
    with triton.InferenceServerClient(server.address) as client:
        described = client.get_model_metadata("lamps")
        names = [output["name"] for output in described["outputs"]]
        assert names == ["boxes", "scores", "classes", "labels", "rows", "brightness"]
        tensor = triton.InferInput("image", [2], "BYTES")
        tensor.set_data_from_numpy(np.array([PICTURE, PICTURE], dtype=object))
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        result: Any = client.infer("lamps", [tensor], outputs=outputs)
    boxes = result.as_numpy("boxes")
    assert (boxes.dtype, boxes.shape) == (np.float32, (4, 4))
    np.testing.assert_allclose(sorted(boxes[:2].round().tolist()), BOXES)
    assert result.as_numpy("rows").tolist() == [0, 0, 1, 1]
    assert result.as_numpy("labels").tolist() == [b"lamp" if binary else "lamp"] * 4
    assert (result.as_numpy("scores") > 0.9).all()


def test_what_is_no_picture_is_refused(server: Server) -> None:
    with closing(server.connect()) as connection:
        connection.request(
            "POST", "/v2/models/lamps/infer", b"RIFF\0\0\0\0WAVE", {"Content-Type": "audio/wav"}
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
    assert response.status == 400
    assert "input 'image': the data is not a PNG" in answer["error"]
