"""PyTorch programs to ML programs: a torch.export program or TorchScript, by coremltools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import coremltools
import numpy as np
import torch

from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from versions import CoreMl

    Specs = Sequence[Mapping[str, Any]]

FREE = -1
MAX_BATCH = 64
MAX_FREE = 512
"""The largest size of a free dimension where the program names none: Core ML wants an end."""
MAX_FP16 = float(np.finfo(np.float16).max)

# Core ML has one width of whole numbers; what goes in and comes out as INT64 here is an index.
_DTYPES = {"FP32": np.float32, "FP16": np.float16, "INT32": np.int32, "INT64": np.int32}
_FP16_SINCE = 6
_MISSING = re.compile(
    r"for op '(?P<operator>[^']+)' not implemented|Unsupported fx node (?P<node>[^,]+), "
    r"kind (?P<kind>\w+)"
)
_AT = re.compile(r"converting '(?P<operator>[^']+)' op \(located at: '(?P<node>[^']*)'\)")


def convert(
    program: torch.export.ExportedProgram | torch.jit.ScriptModule,
    inputs: Specs,
    outputs: Specs,
    *,
    half: bool,
    core_ml: CoreMl,
) -> coremltools.models.MLModel:
    """An ML program with the inputs and outputs that the manifest declares, taken by position.

    It computes in float16 where `half` is set; its boundary keeps the declared datatypes. A free
    dimension is a range: that of torch.export.Dim, else 1 to MAX_BATCH or MAX_FREE. Refuses another
    signature (`signature-differs`), weights that are not finite or beyond float16 (`weights-*`),
    and operators that coremltools does not convert (`unsupported-operator`, `not-convertible`).
    """
    check_weights(program, half=half)
    exported = isinstance(program, torch.export.ExportedProgram)
    if exported:
        # coremltools takes the ATen dialect alone, which has no operators of training.
        program = program.run_decompositions({})
        sizes = _exported_sizes(program, inputs)
    else:
        # Inlines submodules and drops branches that only training takes.
        program = torch.jit.freeze(program.eval())
        sizes = _scripted_sizes(program, inputs)
    takes = [
        coremltools.TensorType(spec["name"], shape, _dtype(spec, core_ml))
        for spec, shape in zip(inputs, sizes, strict=True)
    ]
    gives = [coremltools.TensorType(spec["name"], dtype=_dtype(spec, core_ml)) for spec in outputs]
    precision = coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32
    try:
        return coremltools.convert(
            program,
            inputs=takes,
            outputs=gives,
            convert_to="mlprogram",
            compute_precision=precision,
            minimum_deployment_target=core_ml.target,
            skip_model_load=True,
        )
    except Exception as error:
        raise _refused(error) from error


def check_weights(program: Any, *, half: bool) -> None:
    """Refuse weights that are NaN or infinite, or that float16 cannot say."""
    # A method of modules, a property of exported programs.
    state = program.state_dict() if callable(program.state_dict) else program.state_dict
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        most = float(tensor.abs().max())
        if not np.isfinite(most) and tensor.numel() > 1:  # a mask is one infinite scalar
            raise RefusalError(
                "weights-not-finite",
                "weights hold NaN or infinite values",
                node=name,
                hint="the training diverged: train again and export a healthy checkpoint",
            )
        if half and MAX_FP16 < most < np.inf:
            raise RefusalError(
                "weights-beyond-fp16",
                f"weights reach {most:.3g}, float16 ends at {MAX_FP16:g}",
                node=name,
                hint="set precision fp32, or train with a smaller scale",
            )


def _dtype(spec: Mapping[str, Any], core_ml: CoreMl) -> type[np.generic]:
    datatype = spec["datatype"]
    if datatype not in _DTYPES or (datatype == "FP16" and core_ml.major < _FP16_SINCE):
        raise RefusalError(
            "unsupported-datatype",
            f"a Core ML {core_ml.major} model has no tensor of {datatype} at its boundary",
            node=spec["name"],
            hint="declare and export it as FP32 or INT32",
        )
    return _DTYPES[datatype]


def _scripted_sizes(program: torch.jit.ScriptModule, inputs: Specs) -> list[list[Any]]:
    """Shapes of the inputs; a free dimension is one range for all inputs that have it there."""
    takes = len(list(program.graph.inputs())) - 1  # the first is the module itself
    _check_count(takes, inputs)
    free = {
        place: coremltools.RangeDim(1, MAX_FREE if place else MAX_BATCH, default=1)
        for spec in inputs
        for place, size in enumerate(spec["shape"])
        if size == FREE
    }
    return [
        [free[place] if size == FREE else size for place, size in enumerate(spec["shape"])]
        for spec in inputs
    ]


def _exported_sizes(program: torch.export.ExportedProgram, inputs: Specs) -> list[list[Any]]:
    """Shapes of the inputs; a free dimension is the range that the program was exported with."""
    names = program.graph_signature.user_inputs
    _check_count(len(names), inputs)
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    ranges: dict[str, coremltools.RangeDim] = {}
    shapes = []
    for name, spec in zip(names, inputs, strict=True):
        traced = list(getattr(nodes.get(name), "shape", ()))
        if len(traced) != len(spec["shape"]):
            raise _differs(spec, traced)
        shapes.append(
            [
                _exported_size(program, ranges, place, have, spec, traced)
                for place, have in enumerate(traced)
            ]
        )
    return shapes


def _exported_size(
    program: torch.export.ExportedProgram,
    ranges: dict[str, coremltools.RangeDim],
    place: int,
    have: int | torch.SymInt,
    spec: Mapping[str, Any],
    traced: list[Any],
) -> Any:
    size = spec["shape"][place]
    if isinstance(have, int):
        if size != have:
            raise _differs(spec, traced)
        return have
    if size != FREE:
        return size
    symbol = have.node.expr
    limits = program.range_constraints.get(symbol)
    most = MAX_FREE if place else MAX_BATCH
    if limits is not None and limits.upper.is_Integer:
        most = min(int(limits.upper), most) if int(limits.upper) > 0 else most
    least = max(1, int(limits.lower)) if limits is not None and limits.lower.is_Integer else 1
    return ranges.setdefault(str(symbol), coremltools.RangeDim(least, most, default=least))


def _check_count(takes: int, inputs: Specs) -> None:
    if takes != len(inputs):
        raise RefusalError(
            "signature-differs",
            f"the program takes {takes} inputs, the manifest declares {len(inputs)}",
            hint="correct spec.inputs of the Model: they are taken in the order of forward()",
        )


def _differs(spec: Mapping[str, Any], traced: list[Any]) -> RefusalError:
    shape = [size if isinstance(size, int) else FREE for size in traced]
    return RefusalError(
        "signature-differs",
        f"{spec['name']!r} is {shape} in the program, {list(spec['shape'])} in the manifest",
        node=spec["name"],
        hint="correct spec.inputs of the Model; -1 is a free dimension, which the model must be "
        "exported with (dynamic_shapes of torch.export)",
    )


def _refused(error: Exception) -> RefusalError:
    text = "\n".join(_texts(error))
    missing, at = _MISSING.search(text), _AT.search(text)
    if missing:
        return RefusalError(
            "unsupported-operator",
            f"coremltools {coremltools.__version__} does not convert operator "
            f"{missing['operator'] or missing['kind']!r}",
            node=missing["node"] or missing["operator"],
            hint="replace the operator in the PyTorch model, or choose another engine",
        )
    if "Number of outputs" in text:
        return RefusalError(
            "signature-differs",
            first_line(error),
            hint="correct spec.outputs of the Model: they are taken in the order of forward()",
        )
    return RefusalError(
        "not-convertible",
        f"coremltools {coremltools.__version__} does not convert the program: {first_line(error)}",
        node=at["node"] if at else None,
        hint="export with torch.export, or trace with torch.jit.trace: scripted control flow "
        "often has no Core ML form",
    )


def _texts(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__
