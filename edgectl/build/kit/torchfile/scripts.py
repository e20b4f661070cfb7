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

import torch

from edgectl.build.kit.torchfile.archives import damaged
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from edgectl.build.kit.torchfile.archives import Archive

_KEPT = re.compile(
    r"data\.pkl|constants\.pkl|(\.data/)?version|byteorder|(data|constants)/\d+|code/.+\.py"
)
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
    for node in nodes(module.inlined_graph):
        kind = node.kind()
        if kind in _FORBIDDEN or kind.partition("::")[0] not in ("aten", "prim"):
            raise RefusalError(
                "unsupported-operator",
                f"operator {kind} does not compute on tensors alone",
                node=node.scopeName() or kind,
                hint="write the model with PyTorch's own operators on tensors",
            )


def nodes(block: Any) -> Iterator[Any]:
    """Every node of a graph, those of its branches, loops and closures included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from nodes(node.g("Subgraph"))
