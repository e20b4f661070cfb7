"""torch.export programs (.pt2), loaded without what in them could run.

`torch.export.load` evaluates shape expressions (sympy), compiles guards and node names as Python,
looks operators up by attribute, and unpickles example inputs, tensor subclasses and custom
objects. So a program is read here as the JSON that it is, and rebuilt from the parts that are
plain: what has no place in a model is refused, what a conversion does not need is left out.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from edgectl.build.kit.torchfile import plain
from edgectl.build.kit.torchfile.archives import SAVE_AGAIN, damaged
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.build.kit.torchfile.archives import Archive

MAX_JSON_BYTES = 256 << 20
MODEL = "model"
"""The name that torch.export.save gives the one program of a package."""
_CONFIGS = {
    "weights": f"data/weights/{MODEL}_weights_config.json",
    "constants": f"data/constants/{MODEL}_constants_config.json",
}


def load(archive: Archive, *, trusted: bool) -> torch.export.ExportedProgram:
    """The program of an archive on the CPU.

    Refuses what is no model (`not-a-model`, `unsupported-operator`), holds pickles that are needed
    (`pickle`), or does not load. A trusted archive is loaded as it is.
    """
    source = archive.path.open("rb") if trusted else io.BytesIO(_rebuild(archive))
    try:
        with source:
            return torch.export.load(source)
    except Exception as error:
        raise damaged(first_line(error)) from error


def _rebuild(archive: Archive) -> bytes:
    """The archive with nothing but its graph and its raw tensors."""
    models = [name for name in archive.records if name.startswith("models/")]
    if models != [f"models/{MODEL}.json"]:
        raise RefusalError(
            "several-programs",
            f"the package holds {listed(sorted(models))}, not one program named {MODEL!r}",
            hint="save one program by torch.export.save",
        )
    records = {
        "archive_format": b"pt2",
        "archive_version": archive.read("archive_version", most=64),
        "byteorder": b"little",
        ".data/version": b"6",  # of the container, as PyTorch's writer says it
        models[0]: _clean(_json(archive, models[0])),
        f"data/sample_inputs/{MODEL}.pt": b"",
    }
    if archive.read("byteorder", most=64).strip() != b"little":
        raise damaged("its weights are big-endian")
    for kind, config in _CONFIGS.items():
        payloads = _json(archive, config)
        records[config] = json.dumps(plain.cleaned(payloads)).encode()
        for record in _payloads(payloads, f"data/{kind}/"):
            records[record] = archive.read(record)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in records.items():
            target.writestr(f"{MODEL}/{name}", data)
    return buffer.getvalue()


def _json(archive: Archive, record: str) -> Any:
    try:
        return json.loads(archive.read(record, most=MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise damaged(f"{record}: {first_line(error)}") from error


def _clean(program: Any) -> bytes:
    """The program's JSON without metadata, guards and inner modules; refuses what is not plain."""
    try:
        program["guards_code"] = []
        program.pop("torch_version", None)
        module = program["graph_module"]
        module["metadata"] = module["treespec_namedtuple_fields"] = {}
        module["module_call_graph"] = [
            entry for entry in module["module_call_graph"] if entry["fqn"] == ""
        ]
        return json.dumps(plain.cleaned(program)).encode()
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its program has no {first_line(error)}") from error


def _payloads(config: Any, folder: str) -> list[str]:
    """The records of raw tensors; refuses those that are pickles."""
    try:
        entries = config["config"].items()
        for name, entry in entries:
            path = entry["path_name"]
            if entry["use_pickle"] or path.startswith(("custom_obj_", "opaque_")):
                raise RefusalError(
                    "pickle",
                    f"{name!r} is saved as a pickle, which runs the code in it when it is loaded",
                    node=name,
                    hint="export a model of plain tensors (no tensor subclasses, quantised or "
                    "custom objects), or set source.trustCode: true for a file of your own",
                )
        return sorted({folder + entry["path_name"] for _, entry in entries})
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(f"its {folder} list has no {first_line(error)}") from error


def check_inference(program: torch.export.ExportedProgram) -> None:
    """Refuse a program that was exported for training: its outputs are random."""
    for node in program.graph.nodes:
        flag = _TRAINING.get(str(node.target))
        if flag is not None and flag(node):
            raise RefusalError(
                "training-mode",
                f"operator {node.target} is in training mode: the same input gives other outputs",
                node=node.name,
                hint=f"call model.eval() first: {SAVE_AGAIN}",
            )


def _argument(place: int, name: str) -> Callable[[torch.fx.Node], bool]:
    def read(node: torch.fx.Node) -> bool:
        return bool(node.args[place] if len(node.args) > place else node.kwargs.get(name, False))

    return read


_TRAINING: dict[str, Callable[[torch.fx.Node], bool]] = {
    "aten.dropout.default": _argument(2, "train"),
    "aten.dropout_.default": _argument(2, "train"),
    "aten.feature_dropout.default": _argument(2, "train"),
    "aten.alpha_dropout.default": _argument(2, "train"),
    "aten.batch_norm.default": _argument(5, "training"),
    "aten.lstm.input": _argument(6, "train"),
    "aten.gru.input": _argument(6, "train"),
}
