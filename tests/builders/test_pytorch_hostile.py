"""The PyTorch builder against files that want more than to be a model."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.build.builder import find_builder
from edgectl.build.runner import Request, run
from edgectl.errors import ModelError
from tests.builders.pytorch_sources import ROWS, imported, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

LOADER = "import sys, torch; torch.export.load(sys.argv[1]).module()(torch.zeros(2, 4))"


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
    build: Build, made: Path, torch_python: Path, tmp_path: Path
) -> None:
    """PyTorch's own loader sets it off, which shows that the test can fail."""
    source = with_bomb_in_samples(made, tmp_path)
    command = [str(torch_python), "-W", "ignore", "-c", LOADER, str(source)]
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
    graph(program)["nodes"][0]["inputs"][0]["arg"] = {"as_string": "none'+exit()+'"}


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
