from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.detection import Nms, suppress
from edgectl.engine.transforms.geometry import Geometry
from edgectl.engine.transforms.image import Resize

GRID = st.integers(0, 12).map(float)


def _overlap(one: Any, other: Any) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - shared
    return shared / union if union else 0.0


def _brute_force(boxes: Any, classes: Any, iou: float, limit: int) -> list[int]:
    """Take the best that is left; throw away what overlaps it; until nothing is left."""
    left = list(range(len(boxes)))
    kept: list[int] = []
    while left and len(kept) < limit:
        best = left.pop(0)
        kept.append(best)
        left = [
            other
            for other in left
            if classes[other] != classes[best] or _overlap(boxes[best], boxes[other]) <= iou
        ]
    return kept


@st.composite
def _boxes(draw: st.DrawFn) -> Any:
    corners = draw(hnp.arrays(np.float64, st.tuples(st.integers(0, 25), st.just(4)), elements=GRID))
    return np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])],
        axis=1,
    )


@given(
    boxes=_boxes(),
    seed=st.integers(0, 99),
    iou=st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.7, 1.0]),
    limit=st.integers(1, 30),
    agnostic=st.booleans(),
)
def test_suppression_is_the_brute_force_one(
    boxes: Any, seed: int, iou: float, limit: int, agnostic: bool
) -> None:
    classes = np.random.default_rng(seed).integers(0, 3, len(boxes))
    compared = np.zeros_like(classes) if agnostic else classes
    wanted = _brute_force(boxes.tolist(), compared.tolist(), iou, limit)
    assert suppress(boxes, None if agnostic else classes, iou, limit).tolist() == wanted


@given(boxes=_boxes(), seed=st.integers(0, 99), multilabel=st.booleans())
def test_whole_pipeline_is_the_naive_one(boxes: Any, seed: int, multilabel: bool) -> None:
    random = np.random.default_rng(seed)
    scores = np.round(random.random((len(boxes), 4)), 2)
    nms = Nms(threshold=0.5, iou=0.4, limit=7, multilabel=multilabel)
    rows = np.concatenate([boxes, scores], axis=1)[None].astype(np.float64)
    [found] = nms.apply(rows)
    pairs = [
        (score, row, kind)
        for row, each in enumerate(scores.tolist())
        for kind, score in enumerate(each)
        if score >= 0.5 and (multilabel or kind == each.index(max(each)))
    ]
    pairs.sort(key=lambda pair: -pair[0])
    kept = _brute_force([boxes[p[1]] for p in pairs], [p[2] for p in pairs], 0.4, 7)
    assert found.classes.tolist() == [pairs[k][2] for k in kept]
    np.testing.assert_allclose(found.scores, [pairs[k][0] for k in kept], rtol=1e-6)
    wanted = np.array([boxes[pairs[k][1]] for k in kept]).reshape(-1, 4)
    np.testing.assert_allclose(found.boxes, wanted)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ONNX's NonMaxSuppression by ONNX Runtime: an implementation that is not ours."""
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["y"])],
        "nms",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, "n", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, "n"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["kept", 3])],
        [
            helper.make_tensor("most", TensorProto.INT64, [1], [1000]),
            helper.make_tensor("iou", TensorProto.FLOAT, [1], [0.443]),
            helper.make_tensor("least", TensorProto.FLOAT, [1], [0.2513]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("nms") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@given(boxes=_boxes(), seed=st.integers(0, 99))
def test_suppression_is_onnx_runtimes(operator: Any, boxes: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = (random.permutation(len(boxes) * 3).reshape(-1, 3) + 1) / (len(boxes) * 3 + 1)
    arrays = {"boxes": boxes[None].astype(np.float32), "scores": scores.T[None].astype(np.float32)}
    kept = operator.run(None, arrays)[0] if len(boxes) else np.zeros((0, 3), np.int64)
    wanted = sorted(((scores[box, kind], kind) for _, kind, box in kept.tolist()), reverse=True)
    rows = np.concatenate([boxes, scores], axis=1)[None].astype(np.float32)
    [found] = Nms(threshold=0.2513, iou=0.443, limit=1000, multilabel=True).apply(rows)
    assert found.classes.tolist() == [kind for _, kind in wanted]
    np.testing.assert_allclose(found.scores, [score for score, _ in wanted], rtol=1e-6)


CORNERS = np.array([[10.0, 20.0, 30.0, 60.0], [40.0, 5.0, 44.0, 9.0]])
FORMS = {
    "xyxy": CORNERS,
    "yxyx": CORNERS[:, [1, 0, 3, 2]],
    "xywh": np.array([[10.0, 20, 20, 40], [40, 5, 4, 4]]),
    "cxcywh": np.array([[20.0, 40, 20, 40], [42, 7, 4, 4]]),
}
SCORES = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("units", ["pixels", "normalized"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_form_of_boxes_is_the_same_detections(
    form: str, units: str, transposed: bool, dtype: Any
) -> None:
    boxes = FORMS[form] / (64 if units == "normalized" else 1)
    rows = np.concatenate([boxes, SCORES], axis=1)[None].astype(dtype)
    rows = rows.swapaxes(1, 2) if transposed else rows
    nms = Nms(form=form, units=units, transposed=transposed)
    [found] = nms.apply(rows, pictures=[Geometry.of(64, 64)], labels=("cat", "dog"))
    np.testing.assert_allclose(found.boxes, CORNERS, atol=0.05)
    assert found.classes.tolist() == [0, 1]
    assert [found.label(0), found.label(1)] == ["cat", "dog"]
    kinds = [array.dtype.name for array in (found.boxes, found.scores, found.classes)]
    assert kinds == ["float32", "float32", "int64"]


def test_scores_apart_classes_apart_and_objectness_say_the_same() -> None:
    together = Nms().apply(np.concatenate([CORNERS, SCORES], axis=1)[None])
    apart = Nms(scores="s").apply(CORNERS[None], SCORES[None])
    best = SCORES.max(axis=1)[None]
    indexed = Nms(scores="s", classes="c").apply(CORNERS[None], best, np.array([[0.0, 1.0]]))
    sure = np.array([[0.5], [1.0]])
    objectness = Nms(columns="objectness").apply(
        np.concatenate([CORNERS, sure, SCORES / sure], axis=1)[None]
    )
    rows = np.concatenate([CORNERS, best.T, np.array([[0.0], [1.0]])], axis=1)
    ended = Nms(columns="class", iou=1).apply(rows[None])
    logits = np.log(SCORES / (1 - SCORES))
    activated = Nms(activation="sigmoid").apply(np.concatenate([CORNERS, logits], axis=1)[None])
    without_batch = Nms(scores="s").apply(CORNERS, SCORES)
    for [found] in (apart, indexed, objectness, ended, activated, without_batch):
        np.testing.assert_allclose(found.boxes, together[0].boxes, rtol=1e-6)
        np.testing.assert_allclose(found.scores, together[0].scores, rtol=1e-6)
        assert found.classes.tolist() == together[0].classes.tolist()


def test_softmax_and_a_background_class() -> None:
    logits = np.array([[9.0, 1.0, 0.0], [0.0, 9.0, 1.0]])
    rows = np.concatenate([CORNERS, logits], axis=1)[None]
    [found] = Nms(activation="softmax", background=0, threshold=0.5).apply(rows)
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.boxes, CORNERS[1:])
    indexed = np.concatenate([CORNERS, [[0.9, 0.0], [0.8, 2.0]]], axis=1)[None]
    [found] = Nms(columns="class", background=0).apply(indexed)
    assert found.classes.tolist() == [2]


def test_what_is_not_finite_is_not_found() -> None:
    rows = np.concatenate([CORNERS, SCORES], axis=1)[None]
    rows[0, 0, 0] = np.inf
    rows[0, 1, 4:] = np.nan
    [found] = Nms().apply(rows)
    assert found.boxes.shape == (0, 4)


def test_boxes_in_the_padding_are_not_found() -> None:
    geometry = Resize(100, 100, "contain").move(Geometry.of(200, 100))
    rows = np.array([[[10, 30, 50, 60, 0.9], [10, 0, 50, 20, 0.8]]])
    [found] = Nms().apply(rows, pictures=[geometry])
    np.testing.assert_allclose(found.boxes, [[20, 10, 100, 70]])


def test_candidates_and_limit_keep_the_best() -> None:
    random = np.random.default_rng(5)
    boxes = random.random((500, 4)) * 10 + np.arange(500)[:, None] * 100
    boxes[:, 2:] = boxes[:, :2] + 5
    scores = random.random(500)
    rows = np.concatenate([boxes, scores[:, None]], axis=1)[None]
    best = np.sort(scores)[::-1]
    [few] = Nms(threshold=0, limit=10).apply(rows)
    np.testing.assert_allclose(few.scores, best[:10], rtol=1e-6)
    [fewer] = Nms(threshold=0, candidates=4).apply(rows)
    np.testing.assert_allclose(fewer.scores, best[:4], rtol=1e-6)


def test_outputs_that_do_not_fit_each_other_are_the_models_fault() -> None:
    with pytest.raises(EngineError, match=r"scores of shape \[1, 2, 2\] do not fit 1 x 1 boxes"):
        Nms(scores="s").apply(CORNERS[None, :1], SCORES[None])
    with pytest.raises(EngineError, match="1 classes for 2 boxes"):
        Nms(scores="s", classes="c").apply(CORNERS[None], SCORES[None, :, 0], np.zeros((1, 1)))


BOXES = TensorSpec("out", "FP32", (-1, 2, 4), ({"nms": {"scores": "s"}},), ("cat", "dog"))
LOGITS = TensorSpec("s", "FP32", (-1, 2, 2), ({"sigmoid": {}},))
IMAGE = TensorSpec(
    "image", "FP32", (-1, 1, 64, 64),
    ({"decode": "L"}, {"resize": {"width": 64, "height": 64}}, {"layout": "NCHW"}),
)  # fmt: skip


def _run(geometries: tuple[Geometry, ...] = (), batch: int = 1) -> transforms.Run:
    logits = np.log(SCORES / (1 - SCORES)).astype(np.float32)
    outputs = {
        "out": np.stack([CORNERS.astype(np.float32)] * batch),
        "s": np.stack([logits] * batch),
    }
    images = np.zeros((batch, 1, 64, 64), np.float32)
    return transforms.Run((IMAGE,), (BOXES, LOGITS), {"image": images}, outputs, geometries)


def test_the_other_output_goes_through_its_own_transforms_first() -> None:
    run = _run()
    found: Any = transforms.postprocess(BOXES, run.outputs["out"], run)
    np.testing.assert_allclose(found[0].scores, [0.9, 0.8], rtol=1e-5)
    np.testing.assert_allclose(found[0].boxes, CORNERS, rtol=1e-5)
    assert found[0].label(1) == "dog"


def test_each_picture_of_a_batch_has_its_own_geometry() -> None:
    run = _run((Geometry((64, 64), (64, 64)), Geometry((640, 640), (64, 64), (10, 10))), batch=2)
    found: Any = transforms.postprocess(BOXES, run.outputs["out"], run)
    np.testing.assert_allclose(found[1].boxes, CORNERS * 10, rtol=1e-5)
    np.testing.assert_allclose(found[0].boxes, CORNERS, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "steps", "size"),
    [
        ((2, 3, 10, 20), ({"decode": "RGB"}, {"layout": "NCHW"}), (20, 10)),
        ((2, 10, 20, 3), ({"decode": "RGB"},), (20, 10)),
        ((2, 3, 10, 20), (), (20, 10)),
        ((2, 10, 20, 3), (), (20, 10)),
    ],
)
def test_tensors_have_the_size_of_the_input(
    shape: tuple[int, ...], steps: Any, size: tuple[int, int]
) -> None:
    spec = TensorSpec("x", "FP32", (-1, -1, -1, -1), steps)
    run = transforms.Run((spec,), (), {"x": np.zeros(shape)}, {})
    assert run.pictures() == (Geometry.of(*size),) * 2


def test_boxes_are_no_scores_and_need_their_run() -> None:
    with pytest.raises(InputError, match="output 'out' holds boxes, not scores"):
        transforms.scores(BOXES, CORNERS[None])
    with pytest.raises(InputError, match="'nms' needs the inputs and outputs of the run"):
        transforms.postprocess(BOXES, CORNERS[None])


def test_detector_is_found_and_fits() -> None:
    transforms.check(BOXES, "output")
    transforms.check_together((IMAGE,), (BOXES, LOGITS))
    found = transforms.detector((LOGITS, BOXES))
    assert found is not None
    assert found[0] is BOXES
    assert transforms.detector((LOGITS,)) is None


def _detector(parameters: Any, shape: Any = (-1, 2, 4), labels: Any = ()) -> TensorSpec:
    return TensorSpec("out", "FP32", shape, ({"nms": parameters},), labels)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((_detector({"scores": "t"}), LOGITS), "names the output 't', but the others are s"),
        ((_detector({"scores": "out"}), LOGITS), "names the output 'out', but the others are s"),
        ((_detector({"scores": "s"}, (-1, 3, 4)), LOGITS), "has 3 boxes, but 's' scores for 2"),
        ((_detector({"scores": "s"}, labels=("a",)), LOGITS), "has 1 labels for 2 scores"),
        ((_detector({}, (-1, 9, 6), ("a", "b", "c")),), "has 3 labels for 2 scores"),
        ((_detector({"background": 2}, (-1, 9, 6)),), "has the background 2 of 2 classes"),
        ((_detector({}, (-1, 9, 6)), BOXES, LOGITS), "only one can have 'nms'"),
        (
            (_detector({"scores": "s", "classes": "s"}), LOGITS),
            "has 2 boxes, but",
        ),
    ],
)  # fmt: skip
def test_outputs_that_do_not_belong_together(outputs: Any, message: str) -> None:
    if "classes" in str(outputs[0].transforms):
        outputs = (outputs[0], TensorSpec("s", "FP32", (-1, 5)))
    with pytest.raises(ValueError, match=r"output") as caught:
        transforms.check_together((IMAGE,), outputs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "shape", "message"),
    [
        ({}, (-1, 9, 4), "takes rows of at least 5 numbers, not 4"),
        ({"columns": "objectness"}, (-1, 9, 5), "at least 6 numbers, not 5"),
        ({"columns": "class"}, (-1, 9, 7), "takes rows of 6 numbers, not 7"),
        ({"scores": "s"}, (-1, 9, 6), "takes boxes of 4 numbers"),
        ({"transposed": True}, (-1, 4, 9), "at least 5 numbers, not 4"),
        ({}, (-1, 9), "at least 5 numbers"),
        ({}, (9,), "takes boxes of shape [batch, rows, numbers]"),
    ],
)
def test_shapes_that_are_no_boxes(parameters: Any, shape: Any, message: str) -> None:
    if parameters == {} and shape == (-1, 9):
        shape = (9, 4)
    with pytest.raises(ValueError, match=r"output 'out'") as caught:
        transforms.check(_detector(parameters, shape), "output")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"iou": 1.1}, "'iou' must be a number from 0 to 1"),
        ({"threshold": True}, "'threshold' must be a number from 0 to 1"),
        ({"form": "xxyy"}, "'form' must be one of xyxy, yxyx, xywh, cxcywh"),
        ({"scores": "s", "columns": "class"}, "are for scores in the rows"),
        ({"classes": "c"}, "'classes' needs 'scores'"),
        ({"columns": "class", "activation": "sigmoid"}, "for a score of each class"),
        ({"limit": 0}, "'limit' must be a whole number"),
        ({"scores": 1}, "'scores' must be the name of another output"),
    ],
)
def test_wrong_parameters(parameters: Any, message: str) -> None:
    with pytest.raises(ValueError, match="transform 'nms'") as caught:
        transforms.canonical({"nms": parameters})
    assert message in str(caught.value)
