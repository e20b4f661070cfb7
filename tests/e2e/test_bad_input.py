"""One apply over many bad models: each is refused once, by name and with a remedy, before any code
of its own runs; what is good beside it is released.

What each builder refuses of its format is in `tests/builders`; here is what a person sees of it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.project import REPOSITORY, Finished, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Writer = Callable[[Path], str]
    """Writes a source into a folder, and says its name there."""

pytestmark = pytest.mark.slow

PI, NUC, PHONE, BOARD = "raspberry-pi-5", "intel-nuc", "android-low", "cortex-m4"
IPHONE, IGPU, JETSON = "iphone", "intel-nuc-igpu", "jetson-orin-nano-tensorrt"
RECIPES = REPOSITORY / "manifests" / "models"
RNG = np.random.default_rng(0)
ROWS = RNG.random((64, 4)).astype(np.float32)
OTHER_ROWS = RNG.random((64, 4)).astype(np.float32)
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)
HIDDEN = (RNG.normal(size=(4, 1024)) / 32).astype(np.float32)
LABELS = (ROWS @ WEIGHTS).argmax(axis=1)
WITNESS = "a-pickle-was-loaded"
"""A file that appears beside a pickle's source once anything loads it."""


@dataclass(frozen=True)
class Bad:
    """One model that must not get anywhere, and what is said of it."""

    name: str
    format: str
    source: Writer
    builder: str | None
    """Who refuses it; None where edgectl itself does."""
    says: str
    node: str | None = None
    code: str = "model-refused"
    targets: Sequence[str] = (PI,)
    precision: str = "fp32"
    data: Mapping[str, str] = field(default_factory=dict)
    """`calibration` or `evaluation`: the file that stands for the good one."""
    shapes: tuple[list[int], list[int]] = ([-1, 4], [-1, 3])
    gates: str = ""
    said_by: int = 0
    """Further steps that meet the same fault."""


def dense(
    *nodes: onnx.NodeProto,
    outputs: Sequence[str] = ("y",),
    width: int | str = 4,
    opset: int = 17,
    **constants: NDArray[np.float32],
) -> Writer:
    """`y = x @ w`, or what `nodes` make of it."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in ({"w": WEIGHTS} | constants).items()],
    )
    opsets = {"": opset} | {node.domain: 1 for node in nodes if node.domain}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()], ir_version=8
    )
    return bytes_of("model.onnx", model.SerializeToString())


def then(*operators: str, opset: int = 17) -> Writer:
    """`x @ w`, and each operator on what comes before it."""
    chain = ["x @ w", *operators[:-1]]
    return dense(
        helper.make_node("MatMul", ["x", "w"], ["x @ w"]),
        *(
            helper.make_node(operator, [before], ["y" if operator == operators[-1] else operator])
            for operator, before in zip(operators, chain, strict=True)
        ),
        opset=opset,
    )


def wide() -> Writer:
    """The same answers as `dense` from 16 KiB more of weights."""
    return dense(
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "u"], ["b"]),
        helper.make_node("ReduceMax", ["b"], ["c"], axes=[1]),
        helper.make_node("Sub", ["c", "c"], ["d"]),
        helper.make_node("Add", ["a", "d"], ["y"]),
        u=HIDDEN,
    )


def bytes_of(name: str, data: bytes) -> Writer:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return name

    return write


def cut(name: str) -> Writer:
    """The first half of a recipe's file."""
    data = (RECIPES / name).read_bytes()
    return bytes_of(name, data[: len(data) // 2])


def cut_directory(name: str, suffix: str) -> Writer:
    """A recipe's directory with one of its files cut short."""

    def write(folder: Path) -> str:
        shutil.copytree(RECIPES / name, folder / name)
        (file,) = (folder / name).rglob(f"*{suffix}")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return name

    return write


class _Loaded:
    """Pickled, it leaves a witness where it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


def pickled(name: str, **beside: bytes) -> Writer:
    """A pickle that says that it was loaded, with text files beside it in a directory."""

    def write(folder: Path) -> str:
        place = folder / "model" if beside else folder
        place.mkdir(exist_ok=True)
        for other, data in beside.items():
            (place / other.replace("_", ".")).write_bytes(data)
        (place / name).write_bytes(pickle.dumps(_Loaded(str(folder / WITNESS))))
        return "model" if beside else name

    return write


def bomb(name: str, *entries: str) -> Writer:
    """A ZIP archive whose directory says that each entry unpacks to 3.75 GiB."""

    def write(folder: Path) -> str:
        path = folder / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in entries:
                archive.writestr(entry, "x" * 1000)
        data = bytearray(path.read_bytes())
        at = data.find(b"PK\x01\x02")
        while at >= 0:
            data[at + 24 : at + 28] = struct.pack("<I", 15 << 28)
            at = data.find(b"PK\x01\x02", at + 4)
        path.write_bytes(data)
        return name

    return write


BAD = (
    # What the model is.
    Bad("own-operator", "onnx", dense(helper.make_node("Run", ["x", "w"], ["y"], name="odd",
        domain="com.example")), "onnx", "com.example.Run does not exist", "odd"),
    Bad("nan", "onnx", dense(w=WEIGHTS * np.nan), "onnx", "NaN or infinite", "w"),
    Bad("two-outputs", "onnx", dense(outputs=("y", "y")), "onnx",
        "two outputs of the model have the name 'y'", "y"),
    Bad("random", "onnx", then("Bernoulli"), "onnx", "output 'y' differs", "y"),
    # What its engine lacks.
    Bad("not-for-phones", "onnx", then("Asinh", "Sinh"), "litert", "operator Asinh", "Asinh_1",
        targets=(PHONE, PI)),
    Bad("free-shape", "onnx", dense(helper.make_node("Relu", ["x"], ["y"]), width="m"), "litert",
        "TFLite takes static shapes", "x", targets=(PHONE,), shapes=([-1, -1], [-1, -1])),
    Bad("no-onnx", "onnx", dense(), "coreml", "ONNX has no way to Core ML", targets=(IPHONE,),
        precision="fp16"),
    Bad("unpinned", "tensorrt", bytes_of("m.plan", b"x" * 99), "tensorrt",
        "the target allows >=10.3", targets=(JETSON,), precision="source"),
    # Its data.
    Bad("bytes-for-shares", "onnx", dense(), "onnx", "in the evaluation data from 0", "x",
        data={"calibration": "255"}, precision="int8"),
    Bad("no-such-class", "onnx", dense(), "onnx", "labels from 5 to 7 for 3 classes",
        data={"evaluation": "classes"}, said_by=1),
    # Damaged and hostile files, one of each format or more.
    Bad("pt2-cut", "pytorch", cut("glyphs-1.0.0.pt2"), "pytorch", "it is no ZIP archive"),
    Bad("pt-pickle", "pytorch", pickled("m.pt"), "pytorch", "loading one runs the code in it"),
    Bad("keras-cut", "tensorflow", cut("keywords-1.0.0.keras"), "tensorflow", "neither a Keras"),
    Bad("saved-model", "tensorflow", pickled("saved_model.pb", a_txt=b""), "tensorflow",
        "no readable SavedModel"),
    Bad("tflite-cut", "tflite", cut("pump-1.0.0.tflite"), "litert", "damaged or cut short",
        targets=(PHONE,), said_by=1),
    Bad("ir-cut", "openvino", cut_directory("glyphs-1.0.0.openvino", ".bin"), "openvino",
        "of the weights, which are", "Constant_103", targets=(IGPU,), said_by=1),
    Bad("skops-bomb", "sklearn", bomb("m.skops", "schema.json", "more.json"), "sklearn",
        "8053063680 bytes unpacked, more than"),
    Bad("skops-pickle", "sklearn", pickled("m.skops"), "sklearn", "would run the code in it"),
    Bad("xgboost-cut", "xgboost", cut("diabetes-1.0.0.json"), "xgboost", "not a readable XGBoost"),
    Bad("xgboost-pickle", "xgboost", pickled("m.ubj"), "xgboost", "is a pickle"),
    Bad("coreml-cut", "coreml", cut_directory("glyphs-1.0.0.mlpackage", ".mlmodel"), "coreml",
        "is cut short", targets=(IPHONE,), precision="source"),
    # What it may cost.
    Bad("too-large", "onnx", wide(), None, "model size is 16.", code="gate-failed",
        targets=("pi-of-10-kib",)),
    Bad("too-much", "onnx", wide(), None, "storage is 16.", code="gate-failed",
        targets=("pi-with-10-kib",)),
    Bad("too-slow", "onnx", dense(), None, "p99 latency is", code="gate-failed",
        targets=("nuc-of-1-us",)),
    Bad("too-hungry", "onnx", dense(), None, "peak memory is", code="gate-failed",
        targets=("nuc-ultra-low",)),
    Bad("arena", "onnx", dense(), "tflm", "needs an arena of 1",
        targets=("board-of-1-kib",), precision="int8"),
    Bad("too-new", "onnx", then("Gelu", opset=20), "onnx", "ONNX Runtime 1.10", "Gelu_1",
        targets=("pi-of-2021",)),
    Bad("too-bad", "onnx", dense(), None, "accuracy is 1.0000, allowed is at most 0.9000",
        code="gate-failed", gates="{accuracy: {max: 0.9}}"),
    # Its toolchain.
    Bad("no-toolchain", "huggingface", pickled("m.bin", config_json=b"{}"), "huggingface",
        "the huggingface toolchain cannot be made", code="toolchain-failed"),
)  # fmt: skip
TARGETS = {
    "pi-of-10-kib": (PI, "  constraints: {modelSize: 10Ki}"),
    "pi-with-10-kib": (PI, "  constraints: {storage: 10Ki}"),
    "pi-of-2021": (PI, '  engine: {name: onnxruntime, version: ">=1.10"}'),
    "nuc-of-1-us": (NUC, "  constraints: {latency: 1us}"),
    "nuc-ultra-low": (NUC, "  profile: ultra-low\n  constraints: {}"),
    "board-of-1-kib": (BOARD, "  constraints: {arena: 1Ki}"),
}
"""Name to a shipped profile and the fields that differ from it."""


@dataclass(frozen=True)
class Applied:
    """The apply, and the project that it was of."""

    done: Finished
    root: Path

    def failures(self, model: str) -> list[dict[str, Any]]:
        return [each for each in self.done.json["failures"] if each["model"] == f"{model}:1.0.0"]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Applied:
    root = tmp_path_factory.mktemp("bad") / "repo"
    project = Project(root)
    for manifest in (*root.glob("models/*.yaml"), *root.glob("fleets/*.yaml")):
        if manifest.name != "digits.yaml":
            manifest.unlink()
    write_data(root / "data" / "bad")
    for name, (profile, changes) in TARGETS.items():
        write_target(root / "targets", name, profile, changes)
    break_toolchain(root / "builders" / "huggingface")
    write_fleet(root, "good", "digits", [PI])
    for bad in BAD:
        write_model(root, bad)
        write_fleet(root, bad.name, bad.name, bad.targets)
    project.must("validate")
    return Applied(project.run("apply", "-o", "json"), root)


def write_data(folder: Path) -> None:
    folder.mkdir()
    np.savez(folder / "evaluation.npz", x=ROWS, label=LABELS)
    np.savez(folder / "calibration.npz", x=OTHER_ROWS)
    np.savez(folder / "golden.npz", x=ROWS[:4], y=ROWS[:4] @ WEIGHTS)
    np.savez(folder / "255.npz", x=OTHER_ROWS * 255)
    np.savez(folder / "classes.npz", x=ROWS, label=LABELS + 5)


def write_target(folder: Path, name: str, profile: str, changes: str) -> None:
    """A profile with some of its fields replaced; each field begins with two blanks."""
    replaced = {line.split(":")[0] for line in changes.splitlines()}
    lines: list[str] = []
    keep = True
    for line in (folder / f"{profile}.yaml").read_text().splitlines():
        if line[:3].strip():
            keep = line.split(":")[0] not in replaced
        if keep:
            lines.append(line.replace(f"name: {profile}", f"name: {name}"))
    (folder / f"{name}.yaml").write_text("\n".join([*lines, changes, ""]))


def break_toolchain(folder: Path) -> None:
    """Hide a shipped builder by a copy whose lock names a wheel that is not there."""
    shutil.copytree(REPOSITORY / "builders" / folder.name, folder)
    lock = f"gone @ file:///nowhere/gone-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n"
    (folder / "requirements.lock").write_text(lock)


def write_model(root: Path, bad: Bad) -> None:
    folder = root / "models" / bad.name
    folder.mkdir()
    path = {role: f"{{path: ../../data/bad/{bad.data.get(role, role)}.npz}}"
            for role in ("calibration", "evaluation", "golden")}  # fmt: skip
    tensors = [
        [{"name": name, "datatype": "FP32", "shape": shape}]
        for name, shape in zip("xy", bad.shapes, strict=True)
    ]
    (folder / "model.yaml").write_text(
        "apiVersion: edgectl.dev/v1alpha1\nkind: Model\n"
        f"metadata: {{name: {bad.name}}}\nspec:\n  version: 1.0.0\n  task: classification\n"
        f"  source: {{format: {bad.format}, path: {bad.source(folder)}}}\n"
        f"  inputs: {json.dumps(tensors[0])}\n  outputs: {json.dumps(tensors[1])}\n"
        f"  calibration: {path['calibration']}\n  evaluation: {path['evaluation']}\n"
        f"  golden: {path['golden']}\n  optimize: {{precision: {bad.precision}}}\n"
        + (f"  gates: {bad.gates}\n" if bad.gates else "")
    )


def write_fleet(root: Path, name: str, model: str, targets: Sequence[str]) -> None:
    (root / "fleets" / f"{name}.yaml").write_text(
        "apiVersion: edgectl.dev/v1alpha1\nkind: Fleet\n"
        f"metadata: {{name: {name}}}\nspec:\n  targets: [{', '.join(targets)}]\n"
        f"  models: [{{name: {model}}}]\n  rings: [{{name: all}}]\n"
    )


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_it_is_refused_once_with_its_name_place_and_remedy(applied: Applied, bad: Bad) -> None:
    (failure,) = applied.failures(bad.name)
    assert bad.says in failure["message"]
    assert f"{bad.name}:1.0.0" in failure["message"]
    assert bad.builder is None or f"builder {bad.builder!r}" in failure["message"]
    assert (failure["code"], failure["builder"]) == (bad.code, bad.builder)
    assert failure["hint"]
    assert bad.node is None or (failure["node"] == bad.node and bad.node in failure["message"])
    assert len(failure["also"]) == bad.said_by
    assert str(applied.root) not in failure["message"], "a path of this machine"
    if bad.code == "gate-failed":
        assert "allowed is at" in failure["message"]


def test_the_others_go_on(applied: Applied) -> None:
    report = applied.done.json
    assert [release["fleet"] for release in report["releases"]] == ["good"]
    assert set(report["withheld"]) == {bad.name for bad in BAD}
    variants = {(each["model"], each["report"]["target"]) for each in report["measured"]}
    assert ("not-for-phones:1.0.0", PI) in variants, "the variant beside the one that is refused"
    assert ("not-for-phones:1.0.0", PHONE) not in variants


def test_the_exit_code_is_that_of_the_first_in_the_plans_order(applied: Applied) -> None:
    first = applied.done.json["failures"][0]
    assert first["model"] == f"{min(bad.name for bad in BAD)}:1.0.0"
    assert applied.done.code == {"model-refused": 5, "gate-failed": 6}[first["code"]]
    assert "Traceback" not in applied.done.err
    told = {json.loads(line)["message"] for line in applied.done.err.splitlines()}
    assert told == {failure["message"] for failure in applied.done.json["failures"]}


def test_no_pickle_was_loaded(applied: Applied) -> None:
    assert any(applied.root.rglob("m.pt"))
    assert not list(applied.root.rglob(WITNESS))
