"""Models in float16, for hardware that computes in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.onnxfile import graph_inputs
from edgectl.build.protocol import RefusalError, Task, report
from runtime import open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgectl.build.kit.data import Samples

COMPUTES_HALF = {"asimdhp", "fphp", "avx512_fp16", "amx_fp16"}
"""CPU features, as Linux names them, with which a CPU computes in float16 and does not convert."""
CPU = "CPUExecutionProvider"
MAX_HALF = float(np.finfo(np.float16).max)
ROOM = 2.0
"""Values seen on some samples are to stay this far from the end of float16."""
_ROWS = 4


def to_half(model: onnx.ModelProto, task: Task) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model in float16, its inputs and outputs as declared, and what is to be said of it.

    Roles: `calibration` where there is any. Params: `inputs`, `engine`, `providers`, `cpuFeatures`.
    Nodes that reach values on real data which float16 does not hold stay in float32. Refuses
    hardware that would only convert back and forth (`no-gain`), and outputs that are not finite
    (`overflows`).
    """
    check_gain(task.params)
    samples = real_inputs(task)
    report(0.2, f"looking for values beyond float16 in {samples.rows} samples")
    name_nodes(model.graph)
    kept = beyond_half(model, samples)
    report(0.6, "converting")
    half = convert_float_to_float16(
        onnx.ModelProto.FromString(model.SerializeToString()),
        keep_io_types=True,
        node_block_list=kept,
    )
    drop_detours(half.graph, {node.name for node in model.graph.node})
    name_nodes(half.graph)
    difference = compare(model, half, samples)
    return half, {
        "keptInFloat32": len(kept),
        "agreement": {
            "samples": samples.rows,
            "data": samples.origin,
            "maxDifference": difference,
        },
    }


def check_gain(params: Mapping[str, Any]) -> None:
    """Refuse float16 on a CPU that has no arithmetic for it: it would be slower than float32."""
    providers = set(params.get("providers") or [CPU])
    features = set(params.get("cpuFeatures") or ())
    on_cpu = providers == {CPU} and params.get("engine") != "tensorrt"
    if on_cpu and not features & COMPUTES_HALF:
        raise RefusalError(
            "no-gain",
            "the Target runs the model on a CPU without float16 arithmetic, which would convert "
            "every tensor back and forth",
            hint="set precision fp32 or int8; or, if it has them, name "
            f"{' or '.join(sorted(COMPUTES_HALF))} in spec.cpu.features, or a GPU's provider in "
            "spec.engine.providers, of the Target",
        )


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, by which it can be kept."""
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"


def drop_detours(graph: onnx.GraphProto, original: set[str]) -> None:
    """Take out the way through float16 that the converter puts behind every node it keeps, where
    float32 is read: two nodes kept in a row, or an output. A value beyond float16 would not survive
    it. `original` names the nodes that are the model's own, whose casts stay.

    A kept node that reads a tensor twice gets two casts that write one name; one of them goes.
    """
    places: dict[str, int] = {}
    twice = []
    for place, node in enumerate(graph.node):
        if node.op_type != "Cast" or node.name in original:
            continue
        if places.setdefault(node.output[0], place) != place:
            twice.append(place)
    casts = {name: graph.node[place] for name, place in places.items()}
    for place in reversed(twice):
        del graph.node[place]
    for node in casts.values():
        narrow = casts.get(node.input[0])
        if narrow is None or _type_of(node) != onnx.TensorProto.FLOAT:
            continue
        node.op_type = "Identity"
        node.input[0] = narrow.input[0]
        del node.attribute[:]
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    unread = [name for name in casts if name not in read]
    for name in unread:
        graph.node.remove(casts[name])


def _type_of(cast: onnx.NodeProto) -> int:
    return int(cast.attribute[0].i)


def beyond_half(model: onnx.ModelProto, samples: Samples) -> list[str]:
    """The nodes that read or write a value beyond float16 on the samples, or among the weights."""
    loud = {name for name, most in _largest(model, samples).items() if most * ROOM > MAX_HALF}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            values = np.abs(numpy_helper.to_array(tensor))
            if values[np.isfinite(values)].max(initial=0.0) > MAX_HALF:
                loud.add(tensor.name)
    return [node.name for node in model.graph.node if loud & {*node.input, *node.output}]


def _largest(model: onnx.ModelProto, samples: Samples) -> dict[str, float]:
    """The largest magnitude of every float tensor that the model computes or is given."""
    watched = onnx.shape_inference.infer_shapes(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        value
        for value in watched.graph.value_info
        if value.name not in known and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    largest = {
        name: float(np.abs(values).max(initial=0.0))
        for name, values in samples.arrays.items()
        if values.dtype == np.float32
    }
    for outputs in _runs(watched, samples):
        for name, values in outputs.items():
            if values.dtype == np.float32:
                finite = np.abs(values[np.isfinite(values)])
                largest[name] = max(largest.get(name, 0.0), float(finite.max(initial=0.0)))
    return largest


def _runs(model: onnx.ModelProto, samples: Samples) -> Iterator[dict[str, NDArray[Any]]]:
    options = session_options()
    # As it stands: a fused node would not show what passes inside it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(model.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    first = graph_inputs(model.graph)[0].type.tensor_type.shape.dim
    size = first[0].dim_value if first and first[0].HasField("dim_value") else _ROWS
    for start in range(0, samples.rows - samples.rows % size or samples.rows, size):
        batch = {name: rows[start : start + size] for name, rows in samples.arrays.items()}
        yield dict(zip(names, session.run(names, batch), strict=True))


def compare(model: onnx.ModelProto, half: onnx.ModelProto, samples: Samples) -> float:
    """The largest difference of an output; refuses one that is finite before and not after."""
    largest = 0.0
    for before, after in zip(_runs(model, samples), _runs(half, samples), strict=True):
        for name, wanted in before.items():
            if wanted.dtype.kind != "f":
                continue
            finite = np.isfinite(wanted)
            if not np.isfinite(after[name][finite]).all():
                raise RefusalError(
                    "overflows",
                    f"output {name!r} is NaN or infinite in float16",
                    node=name,
                    hint="set precision fp32 or int8: this model computes beyond 65504",
                )
            difference = np.abs(after[name][finite] - wanted[finite])
            largest = max(largest, float(difference.max(initial=0.0)))
    return largest
