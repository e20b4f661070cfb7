"""The import action: a source ONNX file becomes a checked, folded, fully typed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx.version_converter
import onnxruntime

from checking import load_model
from edgectl.build.kit import agreement, onnxfile
from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.onnxfile import check_signature, finish, opset_of, save
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, report
from runtime import open_session, session_options

MIN_OPSET = 13
"""The first opset with per-channel QuantizeLinear."""
FIXED_OPSET = 17
"""What older models are upgraded to: read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
TOLERANCE = {"absolute": 1e-4, "relative": 1e-3}
"""How far clean-up may move an output (numpy.allclose): only the order of additions changes."""


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
    samples = real_inputs(task)
    expected, actual = (onnxfile.run(path, samples.arrays) for path in (source, Path("model.onnx")))
    agreed = agreement.check(expected, actual, samples, **TOLERANCE)
    return Done(
        {"model": "model.onnx"},
        {
            "opset": opset_of(model),
            "irVersion": model.ir_version,
            "nodes": len(model.graph.node),
            "parameters": parameter_count(model),
            "operators": sorted({node.op_type for node in model.graph.node}),
            "agreement": agreed,
        },
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
            f"opset {opset} cannot be upgraded to {FIXED_OPSET}: {first_line(error)}",
            hint=f"export the model again with opset {FIXED_OPSET}",
        ) from error


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every tensor its type and shape; refuses a model whose own shapes contradict."""
    try:
        return onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        raise RefusalError(
            "shapes-contradict",
            f"shape inference fails: {first_line(error)}",
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


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of all initializers."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
