"""The PyTorch builder, on programs exported by PyTorch itself and on hostile copies of them."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from edgectl.build import toolchain
from edgectl.build.builder import find_builder
from edgectl.build.runner import Request, run
from edgectl.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

MAKER = dedent("""
    import sys
    import torch
    from torch import nn

    torch.manual_seed(0)
    BATCH = {0: torch.export.Dim("batch")}


    def export(name, model, example, dynamic=True, train=False):
        model = model.train() if train else model.eval()
        shapes = ((BATCH,) * len(example)) if dynamic else None
        program = torch.export.export(model, example, dynamic_shapes=shapes)
        torch.export.save(program, f"{name}.pt2")


    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.LSTM(4, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])


    class Two(nn.Module):
        def forward(self, left, right):
            return {"sum": left + right, "difference": left - right}


    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return torch.linalg.svdvals(self.linear(x))


    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            for step in range(3):
                if bool(x[0].sum() > step):
                    x = self.linear(x)
                else:
                    x = x - 1.0
            count = int(x.shape[1])
            while count > 0:
                x = x * 0.9
                count -= 1
            return x


    class Writes(nn.Module):
        def forward(self, x):
            torch.save(x, "exploded")
            return x


    class Wakes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.training = False

        def forward(self, x):
            return self.linear(x)

        @torch.jit.export
        def __getstate__(self):
            return self.linear.weight

        @torch.jit.export
        def __setstate__(self, state: torch.Tensor):
            torch.save(state, "exploded")
            self.training = False


    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(36, 3))
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3), nn.Softmax(1))
    rows = torch.zeros(2, 4)
    export("conv", conv, (torch.zeros(2, 1, 8, 8),))
    export("mlp", mlp, (rows,))
    export("fixed", mlp, (torch.zeros(1, 4),), dynamic=False)
    export("attention", Attention(), (torch.zeros(2, 5, 8),))
    export("recurrent", Recurrent(), (torch.zeros(2, 5, 4),), dynamic=False)
    export("two", Two(), (rows, torch.ones(2, 4)))  # one tensor twice would be one input
    export("svd", Spectrum(), (rows,), dynamic=False)
    export("dropout", nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), (rows,), train=True)
    ill = nn.Sequential(nn.Linear(4, 3))
    ill[0].bias.data[1] = float("nan")
    export("ill", ill, (rows,))

    torch.jit.save(torch.jit.script(Steps().eval()), "steps.pt")
    torch.jit.save(torch.jit.trace(conv.eval(), torch.zeros(2, 1, 8, 8)), "traced.pt")
    torch.jit.save(torch.jit.script(Spectrum().eval()), "svd.pt")
    torch.jit.save(torch.jit.script(ill.eval()), "ill.pt")
    torch.jit.save(torch.jit.script(Writes()), "writes.pt")
    torch.jit.save(torch.jit.script(Wakes()), "wakes.pt")
    torch.save(mlp, "module.pt")
    torch.save(mlp.state_dict(), "state.pt")
    torch.save(mlp.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
""")
LOADER = "import sys, torch; torch.export.load(sys.argv[1]).module()(torch.zeros(2, 4))"


def tensor(name: str, *shape: int) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": "FP32", "shape": list(shape)}]


ROWS = {"inputs": tensor("x", -1, 4), "outputs": tensor("y", -1, 3)}
TWO = {
    "inputs": tensor("a", -1, 4) + tensor("b", -1, 4),
    "outputs": tensor("total", -1, 4) + tensor("rest", -1, 4),
}
PICTURES = {"inputs": tensor("image", -1, 1, 8, 8), "outputs": tensor("logits", -1, 3)}


@pytest.fixture(scope="module")
def python() -> Path:
    return toolchain.prepare(find_builder("pytorch"))


@pytest.fixture(scope="module")
def made(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs, exported by the toolchain's own PyTorch."""
    folder = tmp_path_factory.mktemp("programs")
    script = folder / "maker.py"  # a file: TorchScript reads the source of what it compiles
    script.write_text(MAKER)
    subprocess.run([str(python), "-W", "ignore", str(script)], cwd=folder, check=True)
    return folder


def imported(build: Build, source: Path, **params: Any) -> Result:
    return build("pytorch", "import", {"source": source}, params)


def refusal(build: Build, source: Path, **params: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        imported(build, source, **(ROWS | params))
    assert "builder 'pytorch' refuses to import it" in caught.value.message
    assert caught.value.hint
    return caught.value


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


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **added: bytes
) -> Path:
    """A copy of an archive with other contents: `change` gets names without the root directory."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            changed = change(name.partition("/")[2], data)
            if changed is not None:
                archive.writestr(name, changed)
        for name, data in added.items():
            archive.writestr(f"{root}/{name}", data)
    return target


def keep(name: str, data: bytes) -> bytes:
    return data


def bomb(path: Path) -> bytes:
    """A pickle that makes a file when it is loaded."""

    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(path), "w"))

    return pickle.dumps(Bomb())


def with_bomb_in_samples(made: Path, folder: Path) -> Path:
    def change(name: str, data: bytes) -> bytes:
        return bomb(folder / "exploded") if name.startswith("data/sample_inputs/") else data

    return rewritten(made / "mlp.pt2", folder / "bomb.pt2", change)


def test_a_bomb_among_the_sample_inputs_is_not_touched(
    build: Build, made: Path, python: Path, tmp_path: Path
) -> None:
    """PyTorch's own loader sets it off, which shows that the test can fail."""
    source = with_bomb_in_samples(made, tmp_path)
    command = [str(python), "-W", "ignore", "-c", LOADER, str(source)]
    subprocess.run(command, check=False, capture_output=True)
    assert (tmp_path / "exploded").exists()
    (tmp_path / "exploded").unlink()
    imported(build, source, **ROWS)
    assert not (tmp_path / "exploded").exists()


def test_trusted_code_is_run(build: Build, made: Path, tmp_path: Path) -> None:
    source = with_bomb_in_samples(made, tmp_path)
    with pytest.raises(ModelError, match="not a readable PyTorch archive"):
        imported(build, source, **ROWS, trustCode=True)
    assert (tmp_path / "exploded").exists()
    trusted = imported(build, made / "mlp.pt2", **ROWS, trustCode=True)
    assert trusted.metadata["trustedCode"] is True


def edited(source: Path, target: Path, edit: Callable[[Any], None], part: str = "models/") -> Path:
    """A program whose JSON says something else."""

    def change(name: str, data: bytes) -> bytes:
        if not (name.startswith(part) and name.endswith(".json")):
            return data
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return rewritten(source, target, change)


def graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def evil_expression(text: str) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        for value in graph(program)["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = text

    return edit


def evil_target(target: str) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        graph(program)["nodes"][0]["target"] = target

    return edit


def evil_name(program: Any) -> None:
    graph(program)["inputs"][-1]["as_tensor"]["name"] = "x, y=__import__('os').system('id')"


def evil_nesting(program: Any) -> None:
    (entry,) = [e for e in program["graph_module"]["module_call_graph"] if not e["fqn"]]
    context = '{"__enum__": true, "fqn": "antigravity:x", "name": "y"}'
    spec = {"type": "builtins.tuple", "context": context, "children_spec": []}
    entry["signature"]["in_spec"] = json.dumps([1, spec])


def evil_text(program: Any) -> None:
    graph(program)["nodes"][1]["inputs"][1]["arg"] = {"as_string": "none'+exit()+'"}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (evil_expression("__import__('os').system('touch exploded')"), "more than arithmetic"),
        (evil_expression("Add('__import__(1)', 2)"), "more than arithmetic"),
        (evil_expression("Symbol('s0').__class__"), "more than arithmetic"),
        (evil_expression("[].append(1) if"), "a size that is no expression"),
        (evil_target("torch.os.system"), "operator torch.os.system is none that computes"),
        (evil_target("torch.ops.aten.from_file.default"), "operator torch.ops.aten.from_file"),
        (evil_target("torch.ops.quantized.linear.default"), "operator torch.ops.quantized"),
        (evil_target("_operator.methodcaller"), "operator _operator.methodcaller"),
        (evil_target("#vendor:op"), "operator #vendor:op"),
        (evil_name, "a name that is none"),
        (evil_nesting, "a container of its own"),
        (evil_text, "a text that is no setting"),
        (lambda program: program.pop("graph_module"), "its program has no 'graph_module'"),
    ],
    ids=["eval", "nested-eval", "attribute", "syntax", "system", "file", "library", "caller",
         "extension", "name", "nesting", "text", "empty"],
)  # fmt: skip
def test_a_program_that_says_more_than_a_model_is_refused(
    build: Build, made: Path, tmp_path: Path, edit: Callable[[Any], None], said: str
) -> None:
    source = edited(made / "mlp.pt2", tmp_path / "hostile.pt2", edit)
    assert said in refusal(build, source).message


def test_guards_are_not_compiled(build: Build, made: Path, tmp_path: Path) -> None:
    def edit(program: Any) -> None:
        program["guards_code"] = [f"open({str(tmp_path / 'exploded')!r}, 'w')"]

    imported(build, edited(made / "mlp.pt2", tmp_path / "guarded.pt2", edit), **ROWS)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("data/weights/", {"path_name": "weight_0", "use_pickle": True}),
        ("data/constants/", {"path_name": "opaque_obj_0", "use_pickle": False}),
        ("data/constants/", {"path_name": "custom_obj_0", "use_pickle": True}),
    ],
    ids=["weight", "opaque", "custom"],
)
def test_a_pickled_weight_or_object_is_refused_unread(
    build: Build, made: Path, tmp_path: Path, part: str, entry: dict[str, Any]
) -> None:
    def edit(config: Any) -> None:
        config["config"]["0.weight"] = {"is_param": False, "tensor_meta": None} | entry

    edited(made / "mlp.pt2", tmp_path / "edited.pt2", edit, part)
    source = rewritten(
        tmp_path / "edited.pt2",
        tmp_path / "hostile.pt2",
        lambda name, data: None if name == part + entry["path_name"] else data,
        **{part + entry["path_name"]: bomb(tmp_path / "exploded")},
    )
    error = refusal(build, source)
    assert "'0.weight' is saved as a pickle" in error.message
    assert "trustCode" in str(error.hint)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("writes.pt", "operator aten::save does not compute on tensors alone"),
        ("wakes.pt", "defines __setstate__"),
    ],
)
def test_torchscript_that_writes_files_is_refused_before_it_runs(
    build: Build, made: Path, tmp_path: Path, file: str, said: str
) -> None:
    output = tmp_path / "output"
    request = Request("import", "model", {"source": made / file}, ROWS, output)
    with pytest.raises(ModelError) as caught:
        run(find_builder("pytorch"), request)
    assert said in caught.value.message
    assert not (output / "exploded").exists()


def test_torchscript_that_names_python_is_refused(build: Build, made: Path, tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        return b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00idtR." if name == "data.pkl" else data

    source = rewritten(made / "steps.pt", tmp_path / "hostile.pt", change)
    assert "data.pkl names os.system" in refusal(build, source).message


def test_machine_code_is_refused(build: Build, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "compiled.pt2", "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/aotinductor/model/model.so", b"\x7fELF")
    error = refusal(build, tmp_path / "compiled.pt2")
    assert "machine code of AOTInductor" in error.message


def test_a_damaged_file_is_refused(build: Build, made: Path, tmp_path: Path) -> None:
    whole = (made / "mlp.pt2").read_bytes()
    for name, data in (("half.pt2", whole[: len(whole) // 2]), ("none.pt2", b"hello")):
        (tmp_path / name).write_bytes(data)
        assert "not a readable PyTorch archive" in refusal(build, tmp_path / name).message
    lost = rewritten(
        made / "mlp.pt2",
        tmp_path / "lost.pt2",
        lambda name, data: None if name == "data/weights/weight_0" else data,
    )
    assert "the record 'data/weights/weight_0' is missing" in refusal(build, lost).message


def test_an_archive_that_grows_or_leaves_is_refused(
    build: Build, made: Path, tmp_path: Path
) -> None:
    leaving = rewritten(made / "mlp.pt2", tmp_path / "leaving.pt2", keep, **{"../../x": b""})
    assert "outside the archive" in refusal(build, leaving).message
    with zipfile.ZipFile(tmp_path / "many.pt2", "w") as archive:
        for number in range(100_001):
            archive.writestr(f"model/{number}", b"")
    assert "unpacks to 100001 files" in refusal(build, tmp_path / "many.pt2").message
