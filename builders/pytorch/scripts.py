"""TorchScript (.pt of torch.jit.save), loaded without what in it could run.

torch.jit.load reads its pickles in C++, which makes tensors, containers and the archive's own
classes and never a Python object. Two things run all the same: the `__setstate__` of such a class,
while the file is loaded, and operators such as aten::save, which writes files, when the model is
run. The first is refused in the text, the second in the graph, before anything runs.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from archives import SAVE_AGAIN, damaged
from edgectl.build.kit.data import fixed_batch
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError, Task
from exporting import unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from archives import Archive
    from edgectl.build.kit.data import Samples

OPSET = 17
"""Read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
_KEPT = re.compile(r"data\.pkl|constants\.pkl|version|byteorder|(data|constants)/\d+|code/.+\.py")
_RUNS_ON_LOAD = ("__setstate__", "__forward_hooks__", "__forward_pre_hooks__")
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.jit._pickle build_intlist",
    "torch.jit._pickle build_doublelist",
    "torch.jit._pickle build_boollist",
    "torch.jit._pickle build_tensorlist",
    "torch.jit._pickle build_tensor_from_id",
    "torch.jit._pickle restore_type_tag",
}
_STORAGE = re.compile(r"torch [A-Z][A-Za-z0-9]*Storage")
_OWN_CLASS = re.compile(r"__torch__(?!\.torch\.classes\b)[\w.]* \w+")
_FORBIDDEN = {
    "aten::save", "aten::from_file", "prim::PythonOp", "prim::IgnoredPythonOp",
    "prim::CallMethod", "prim::CallFunction",
    "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote",
}  # fmt: skip


def load(archive: Archive, *, trusted: bool) -> torch.jit.ScriptModule:
    """The module of an archive on the CPU, in evaluation mode.

    Refuses code that runs as it is loaded (`code`), classes from outside the archive (`pickle`),
    and operators that do more than compute (`unsupported-operator`). A trusted archive is loaded
    as it is.
    """
    source = archive.path.open("rb") if trusted else io.BytesIO(_rebuild(archive))
    try:
        with source:
            module = torch.jit.load(source, map_location="cpu")
    except Exception as error:
        raise damaged(first_line(error)) from error
    if not hasattr(module, "forward"):
        raise RefusalError(
            "no-forward",
            "the TorchScript module has no method forward",
            hint="script the whole model: torch.jit.save(torch.jit.script(model), 'model.pt')",
        )
    if not trusted:
        _check_graph(module)
    return module.eval()


def _rebuild(archive: Archive) -> bytes:
    """The archive with its code, weights and constants, and nothing else."""
    records = archive.read_all(sorted(name for name in archive.records if _KEPT.fullmatch(name)))
    for name, data in records.items():
        if name.endswith(".pkl"):
            _check_pickle(name, data)
        elif name.startswith("code/"):
            _check_code(name, data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in records.items():
            target.writestr(f"model/{name}", data)
    return buffer.getvalue()


def _check_code(name: str, data: bytes) -> None:
    for word in _RUNS_ON_LOAD:
        if word.encode() in data:
            raise RefusalError(
                "code",
                f"{name} defines {word}, which runs outside of the model's graph",
                node=name,
                hint="save the float model without hooks; edgectl quantises it. Or set "
                "source.trustCode: true for a file of your own",
            )


def _check_pickle(name: str, data: bytes) -> None:
    """Refuse a pickle that names anything but tensors, containers and the archive's classes."""
    try:
        operations = [(code.name, argument) for code, argument, _ in pickletools.genops(data)]
    except Exception as error:  # pickletools raises whatever its opcode readers do
        raise damaged(f"{name}: {first_line(error)}") from error
    for code, argument in operations:
        found = str(argument)
        known = found in _GLOBALS or _STORAGE.fullmatch(found) or _OWN_CLASS.fullmatch(found)
        if code in ("STACK_GLOBAL", "INST", "OBJ") or (code == "GLOBAL" and not known):
            raise RefusalError(
                "pickle",
                f"{name} names {found.replace(' ', '.')}, which is no part of TorchScript",
                node=name,
                hint="save it by torch.jit.save from modules of plain tensors, or set "
                "source.trustCode: true for a file of your own",
            )


def _check_graph(module: torch.jit.ScriptModule) -> None:
    for node in _nodes(module.inlined_graph):
        kind = node.kind()
        if kind in _FORBIDDEN or kind.partition("::")[0] not in ("aten", "prim"):
            raise RefusalError(
                "unsupported-operator",
                f"operator {kind} does not compute on tensors alone",
                node=node.scopeName() or kind,
                hint="write the model with PyTorch's own operators on tensors",
            )


def _nodes(block: Any) -> Iterator[Any]:
    """Every node of a graph, those of its branches, loops and closures included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))


def to_onnx(script: torch.jit.ScriptModule, task: Task, samples: Samples) -> onnx.ModelProto:
    """Convert with control flow, by the exporter that reads TorchScript graphs themselves."""
    specs = (*task.params["inputs"], *task.params["outputs"])
    rows = fixed_batch(task.params["inputs"])
    rows = max(rows, 2) if task.params["inputs"][0]["shape"][:1] == [-1] else rows
    example = tuple(
        torch.from_numpy(np.resize(values, (rows, *values.shape[1:])))
        for values in samples.arrays.values()
    )
    buffer = io.BytesIO()
    try:
        torch.onnx.export(
            script,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[spec["name"] for spec in task.params["inputs"]],
            output_names=[spec["name"] for spec in task.params["outputs"]],
            dynamic_axes={
                spec["name"]: {
                    place: "batch" if place == 0 else f"{spec['name']}_{place}"
                    for place, size in enumerate(spec["shape"])
                    if size == -1
                }
                for spec in specs
            },
        )
    except Exception as error:
        raise _refused(script, error) from error
    return onnx.load_from_string(buffer.getvalue())


_EXPORTED = re.compile(r"operator '([\w:.]+)'")


def _refused(script: torch.jit.ScriptModule, error: Exception) -> RefusalError:
    named = _EXPORTED.search(str(error))
    if named is None:
        return RefusalError(
            "not-convertible",
            f"the TorchScript has no ONNX form: {first_line(error)}",
            hint=SAVE_AGAIN,
        )
    kind = named[1]
    node = next((n for n in _nodes(script.inlined_graph) if n.kind() == kind), None)
    return unsupported(kind, kind if node is None else node.scopeName() or kind)
