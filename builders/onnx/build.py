"""The ONNX toolchain: import (check, clean, fold), optimize (int8 QDQ) and evaluate.

Everything written is the same byte for byte when the same request runs again: names are given by
position, clocks and paths are stripped, and every library runs on one thread.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
import onnxruntime
from onnx import numpy_helper

from edgectl.build.protocol import Done, RefusalError, Task, main, report

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MODEL_BYTES = (2 << 30) - 1
"""Protobuf's own limit for one message."""
MAX_DATA_BYTES = 4 << 30
MIN_OPSET = 13
"""The first opset with per-channel QuantizeLinear."""
FIXED_OPSET = 17
"""What older models are upgraded to: read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
MAX_CHECKED_SAMPLES = 256
CALIBRATION_BATCH = 16
TOLERANCE = {"absolute": 1e-4, "relative": 1e-3}
"""How far clean-up may move an output (numpy.allclose): only the order of additions changes."""

DEFAULTS: dict[str, Any] = {
    "activations": "uint8",
    "weights": "int8",
    "symmetricActivations": False,
    "perChannel": True,
    "method": "minmax",
    "percentile": 99.99,
}
"""What suits an x86 or Arm CPU."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that int8 speeds up."""
FOLLOWING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool",
    "Mul", "Pad", "Relu", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that may stay in int8 between them. Not Softmax and Sigmoid: 256 steps are too few for
a probability, and they are a millionth of the work."""

_DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


# --- import ---------------------------------------------------------------------------------------


def import_model(task: Task) -> Done:
    """Turn a source ONNX file into a checked, folded, fully typed one.

    Roles: `source`, and `calibration` and `evaluation` where there are any. Params: `inputs` and
    `outputs`, each a list of {name, datatype, shape} as the manifest declares them.
    """
    source = task.inputs["source"]
    report(0.1, "loading")
    model = load_model(source)
    check_signature(model, task.params["inputs"], task.params["outputs"])
    report(0.3, "checking operators and shapes")
    model = infer_shapes(upgrade_opset(model))
    report(0.5, "folding constants")
    model = infer_shapes(fold_constants(model))
    finish(model, task.model)
    save(model, Path("model.onnx"))
    report(0.8, "comparing with the source")
    samples = first_samples(task)
    difference = compare_outputs(source, Path("model.onnx"), samples) if samples else None
    return Done(
        {"model": "model.onnx"},
        {
            "opset": opset_of(model),
            "irVersion": model.ir_version,
            "nodes": len(model.graph.node),
            "parameters": parameter_count(model),
            "operators": sorted({node.op_type for node in model.graph.node}),
            "checkedSamples": len(next(iter(samples.values()))) if samples else 0,
            "maxDifference": difference,
        },
    )


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check a model; refuses what is not one, or is not whole in one file."""
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise RefusalError(
            "too-large",
            f"{size} bytes is more than one ONNX file can hold",
            hint="split the model, or reduce its precision before the import",
        )
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise _does_not_load(error) from error
    for tensor in tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise RefusalError(
                "external-data",
                "weights are outside the file, where no digest covers them",
                node=tensor.name,
                hint="save one file: onnx.save_model(onnx.load(path), path, "
                "save_as_external_data=False)",
            )
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    check_operators(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _does_not_load(error) from error
    check_weights(model)
    return model


def _does_not_load(error: Exception) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"not a valid ONNX model: {_first_line(error)}",
        hint="check it with onnx.checker.check_model, and export it again",
    )


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its control-flow nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from graphs_of(inner)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant: initializers and tensor attributes, inner graphs included."""
    for inner in graphs_of(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that the ONNX standard does not define at the model's opset."""
    opsets = {entry.domain or "": entry.version for entry in model.opset_import}
    for graph in graphs_of(model.graph):
        for index, node in enumerate(graph.node):
            domain = "" if node.domain == "ai.onnx" else node.domain
            where = node.name or f"{node.op_type} number {index}"
            if domain not in opsets:
                raise RefusalError(
                    "unknown-domain",
                    f"operator {domain}.{node.op_type} is of a domain the model does not import",
                    node=where,
                    hint="export the model again with the standard ONNX operators",
                )
            try:
                schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
            except onnx.defs.SchemaError:
                schema = None
            if schema is None or schema.deprecated:
                raise RefusalError(
                    "unsupported-operator",
                    f"operator {domain or 'ai.onnx'}.{node.op_type} does not exist in opset "
                    f"{opsets[domain]}",
                    node=where,
                    hint="replace the operator, or export again with the standard ONNX operators",
                )


def check_weights(model: onnx.ModelProto) -> None:
    """Refuse NaN and infinite weights: a training that diverged."""
    for tensor in tensors_of(model.graph):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            # Masks use an infinite scalar on purpose; a whole tensor of weights does not.
            if values.size == 1 and not np.isnan(values).any():
                continue
            raise RefusalError(
                "weights-not-finite",
                "weights hold NaN or infinite values",
                node=tensor.name,
                hint="the training diverged: train again and export a healthy checkpoint",
            )


def upgrade_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise an opset below MIN_OPSET to FIXED_OPSET; newer models stay as they are."""
    opset = opset_of(model)
    if opset >= MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, FIXED_OPSET)
    except Exception as error:
        raise RefusalError(
            "opset-too-old",
            f"opset {opset} cannot be upgraded to {FIXED_OPSET}: {_first_line(error)}",
            hint=f"export the model again with opset {FIXED_OPSET}",
        ) from error


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=1)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every tensor its type and shape; refuses a model whose own shapes contradict."""
    try:
        return onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        raise RefusalError(
            "shapes-contradict",
            f"shape inference fails: {_first_line(error)}",
            hint="export the model again; one of its operators gets a shape it cannot take",
        ) from error


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's basic optimisations, written back as standard ONNX."""
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    target = Path("folded.onnx")
    options.optimized_model_filepath = str(target)
    open_session(model.SerializeToString(), options)
    folded = onnx.load_model(target)
    target.unlink()
    return folded


def check_signature(
    model: onnx.ModelProto, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> None:
    """Refuse a model whose inputs and outputs are not the ones that the manifest declares."""
    constants = {tensor.name for tensor in model.graph.initializer}
    takes = [value for value in model.graph.input if value.name not in constants]
    for what, declared, found in (
        ("inputs", inputs, takes),
        ("outputs", outputs, list(model.graph.output)),
    ):
        names = [value.name for value in found]
        wanted = [spec["name"] for spec in declared]
        if sorted(names) != sorted(wanted):
            raise RefusalError(
                "signature-differs",
                f"the model's {what} are {_listed(names)}, the manifest declares {_listed(wanted)}",
                hint=f"correct spec.{what} of the Model, or export with these names",
            )
        by_name = {value.name: value.type.tensor_type for value in found}
        for spec in declared:
            _check_tensor(spec, by_name[spec["name"]], what)


def _check_tensor(spec: dict[str, Any], found: onnx.TypeProto.Tensor, what: str) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(found.elem_type).name
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in found.shape.dim]
    fits = not found.HasField("shape") or (
        len(dims) == len(spec["shape"])
        and all(have in (-1, want) for have, want in zip(dims, spec["shape"], strict=True))
    )
    if dtype != _DATATYPES.get(spec["datatype"]) or not fits:
        raise RefusalError(
            "signature-differs",
            f"{spec['name']!r} is {dtype} {dims} in the model, "
            f"{spec['datatype']} {spec['shape']} in the manifest",
            node=spec["name"],
            hint=f"correct spec.{what} of the Model; -1 is a free dimension, which the model must "
            "be exported with",
        )


def finish(model: onnx.ModelProto, name: str) -> None:
    """Strip what a clock, a path or a chance put in, and name the rest by position."""
    for graph in graphs_of(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.doc_string = ""
        for tensor in graph.initializer:
            tensor.doc_string = ""
        for index, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{index}"
            node.doc_string = ""
            del node.metadata_props[:]
    model.graph.name = name
    model.doc_string = ""
    model.producer_name = "edgectl"
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    del model.metadata_props[:]
    used = {node.domain for graph in graphs_of(model.graph) for node in graph.node} | {""}
    kept = sorted(
        ((o.domain if o.domain != "ai.onnx" else "", o.version) for o in model.opset_import),
    )
    del model.opset_import[:]
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, version) for domain, version in kept if domain in used
    )
    # The oldest IR that can say this opset: an engine of last year has to read it.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of all initializers."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def compare_outputs(source: Path, result: Path, samples: dict[str, np.ndarray]) -> float:
    """The largest difference of any output on the same inputs; refuses one beyond TOLERANCE."""
    expected, actual = (
        open_session(path.read_bytes(), session_options()).run(None, samples)
        for path in (source, result)
    )
    largest = 0.0
    for want, got in zip(expected, actual, strict=True):
        if not np.allclose(got, want, rtol=TOLERANCE["relative"], atol=TOLERANCE["absolute"]):
            raise RefusalError(
                "outputs-changed",
                "clean-up changed the model's outputs by "
                f"{float(np.abs(got - want).max()):.3g}, more than {TOLERANCE['absolute']:g}",
                hint="report this model: its operators do not survive constant folding",
            )
        if want.size:
            largest = max(largest, float(np.abs(np.subtract(got, want, dtype=np.float64)).max()))
    return largest


# --- optimize -------------------------------------------------------------------------------------


def optimize(task: Task) -> Done:
    """Quantise to int8 with QuantizeLinear/DequantizeLinear pairs, or pass fp32 through.

    Roles: `model`, and `calibration` for int8. Params: `precision` (int8 or fp32), and for int8
    `activations` and `weights` (uint8 or int8), `symmetricActivations`, `perChannel`, `method`
    (minmax, entropy, percentile) and `percentile`; DEFAULTS hold where they are absent.
    """
    target = Path("model.onnx")
    if task.params["precision"] == "fp32":
        target.write_bytes(task.inputs["model"].read_bytes())
        return Done({"model": target.name}, {"precision": "fp32"})
    if task.params["precision"] != "int8":
        raise RefusalError(
            "unsupported-precision",
            f"this builder makes int8 and fp32, not {task.params['precision']}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )
    report(0.1, "reading calibration data")
    model = onnx.load_model(task.inputs["model"])
    data = read_calibration(task.inputs.get("calibration"), model)
    report(0.2, f"calibrating on {len(next(iter(data.values())))} samples")
    quantize(task.inputs["model"], target, data, DEFAULTS | task.params)
    quantized = onnx.load_model(target)
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    if not pairs:
        raise RefusalError(
            "nothing-to-quantize",
            "the model has no node that int8 can speed up",
            hint="set optimize.precision: fp32",
        )
    finish(quantized, task.model)
    save(quantized, target)
    report(0.9, "checking that it loads")
    open_session(target.read_bytes(), session_options())
    return Done({"model": target.name}, {"precision": "int8", "quantizeLinear": pairs})


class _Batches:
    """Calibration data in batches (onnxruntime.quantization.CalibrationDataReader)."""

    def __init__(self, data: dict[str, np.ndarray], size: int) -> None:
        count = len(next(iter(data.values())))
        self._batches = iter(
            [
                {name: values[start : start + size] for name, values in data.items()}
                for start in range(0, count, size)
            ]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)


def quantize(
    source: Path, target: Path, data: dict[str, np.ndarray], params: dict[str, Any]
) -> None:
    """Static quantisation by onnxruntime.quantization.

    With symmetric activations the result is what TensorRT takes as explicit quantisation (from 10
    on): s8 on both sides with zero points 0, one pair for each consumer, and float biases, since
    TensorRT refuses the int32 ones.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }
    symmetric = bool(params["symmetricActivations"])
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not symmetric,
        "DedicatedQDQPair": symmetric,
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    if params["method"] == "percentile":
        options["CalibPercentile"] = float(params["percentile"])
    if params["method"] == "entropy":
        options["CalibTensorRangeSymmetric"] = symmetric
    prepared = Path("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    model = onnx.load_model(prepared)
    flatten_gemm_biases(model.graph)
    save(model, prepared)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    quantization.quantize_static(
        prepared,
        target,
        _Batches(data, batch_size(model, len(next(iter(data.values()))))),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
        nodes_to_exclude=in_real_units(model.graph),
        per_channel=bool(params["perChannel"]),
        activation_type=types[params["activations"]],
        weight_type=types[params["weights"]],
        calibrate_method=methods[params["method"]],
        extra_options=options,
    )
    prepared.unlink()


def flatten_gemm_biases(graph: onnx.GraphProto) -> None:
    """Make a Gemm's bias of shape [1, n] one of [n]: per-channel quantisation indexes it so."""
    biases = {node.input[2] for node in graph.node if node.op_type == "Gemm" and node.input[2:]}
    others = {
        name
        for node in graph.node
        for name in (node.input[:2] if node.op_type == "Gemm" else node.input)
    }
    for tensor in graph.initializer:
        if tensor.name in biases - others and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]


def in_real_units(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that no weighted node feeds, except through an operator left in float.

    One scale for a whole tensor suits what lies between the layers of a network. It does not suit
    a table whose columns differ by orders of magnitude, so a standardisation inside the model stays
    in float; nor probabilities, so what follows a Softmax does too.
    """
    fed: set[str] = set()
    outside = []
    for node in graph.node:
        if node.op_type in WEIGHTED or (node.op_type in FOLLOWING and fed & set(node.input)):
            fed |= set(node.output)
        else:
            outside.append(node.name)
    return outside


def batch_size(model: onnx.ModelProto, count: int) -> int:
    """How many samples one run takes: the model's own first dimension, if it is fixed.

    Otherwise one that divides the count: the histogram methods need batches of one size.
    """
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims and dims[0].HasField("dim_value"):
        return int(dims[0].dim_value)
    return next(size for size in range(CALIBRATION_BATCH, 0, -1) if count % size == 0)


def read_calibration(path: Path | None, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The calibration arrays, checked against the inputs of the model."""
    if path is None:
        raise RefusalError(
            "no-calibration",
            "int8 needs calibration data and the Model names none",
            hint="set spec.calibration.path to an npz with one array per input",
        )
    arrays = read_npz(path)
    return {
        value.name: _fitting(arrays, value.name, value.type.tensor_type, path.name)
        for value in model.graph.input
    }


def _fitting(
    arrays: dict[str, np.ndarray], name: str, expected: onnx.TypeProto.Tensor, file: str
) -> np.ndarray:
    hint = "make the data with the pre-processing that the model was trained with"
    if name not in arrays:
        raise RefusalError(
            "input-missing",
            f"{file} has no array {name!r}; it has {_listed(list(arrays))}",
            node=name,
            hint=f"name the array of each input as the model does: {name!r}",
        )
    values = arrays[name]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(expected.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in expected.shape.dim]
    same = len(values.shape) == len(dims) and all(
        want in (-1, got) for want, got in zip(dims[1:], values.shape[1:], strict=True)
    )
    if values.dtype != dtype or not same:
        raise RefusalError(
            "calibration-shape",
            f"{file}: array {name!r} is {values.dtype} {list(values.shape)}, "
            f"the model takes {dtype} {[-1, *dims[1:]]}",
            node=name,
            hint=hint,
        )
    whole = dims[0] if dims and dims[0] > 0 else 1
    if not len(values) or len(values) % whole:
        raise RefusalError(
            "calibration-count",
            f"{file}: {len(values)} samples are not one or more whole batches of {whole}",
            node=name,
            hint="about a hundred representative samples are enough",
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RefusalError(
            "calibration-not-finite",
            f"{file}: array {name!r} holds NaN or infinite values",
            node=name,
            hint=hint,
        )
    return values


# --- evaluate -------------------------------------------------------------------------------------


def evaluate(task: Task) -> Done:
    """Measure a model by the engine that serves it on the device."""
    from edgectl.engine.errors import EngineError
    from edgectl.engine.evaluate import evaluate_request

    report(0.1, "measuring")
    try:
        return Done({}, evaluate_request(task.inputs, task.params))
    except EngineError as error:
        raise RefusalError(
            "evaluation-refused",
            str(error),
            hint="make the evaluation data as spec.inputs and spec.evaluation of the Model say",
        ) from error


# --- shared ---------------------------------------------------------------------------------------


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, bounded, without pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_DATA_BYTES:
            raise ValueError(f"{size} bytes unpacked, more than {MAX_DATA_BYTES}")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise RefusalError(
            "data-unreadable",
            f"{path.name} is not a readable npz: {_first_line(error)}",
            hint="write it with numpy.savez, plain numeric arrays only",
        ) from error


def first_samples(task: Task) -> dict[str, np.ndarray]:
    """Some real inputs to compare models on; empty if the request has no data."""
    names = [spec["name"] for spec in task.params["inputs"]]
    for role in ("evaluation", "calibration"):
        if role in task.inputs:
            arrays = read_npz(task.inputs[role])
            missing = [name for name in names if name not in arrays]
            if missing:
                raise RefusalError(
                    "input-missing",
                    f"{task.inputs[role].name} has no array {missing[0]!r}; "
                    f"it has {_listed(list(arrays))}",
                    node=missing[0],
                    hint="name the array of each input as the model does",
                )
            return {name: arrays[name][:MAX_CHECKED_SAMPLES] for name in names}
    return {}


def session_options() -> onnxruntime.SessionOptions:
    """One thread, quiet."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(data: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime; refuses what it does not support."""
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RefusalError(
            "engine-refuses",
            f"ONNX Runtime {onnxruntime.__version__} does not load the model: {_first_line(error)}",
            hint="replace the operator it names, or export with another opset",
        ) from error


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write deterministic bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:300]


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


if __name__ == "__main__":
    main({"import": import_model, "optimize": optimize, "evaluate": evaluate})
