"""The import action: a source ONNX file becomes a checked, folded, fully typed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime

from checking import check_tensor_sizes, load_model
from edgectl.build.kit import agreement, onnxfile
from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.onnxfile import check_signature, finish, opset_of, save
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, report
from opsets import convert_opset
from runtime import open_session, session_options

MIN_OPSET = 13
"""The first opset with per-channel QuantizeLinear."""
FIXED_OPSET = 17
"""What older models are upgraded to: read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
SOURCE = Path("source.onnx")
TOLERANCE = {"absolute": 1e-4, "relative": 1e-3}
"""How far clean-up may move an output (numpy.allclose): only the order of additions changes."""


def import_model(task: Task) -> Done:
    """Turn a source ONNX file into a checked, folded, fully typed one.

    Roles: `source` (a file, or a directory with files of weights), and `calibration` and
    `evaluation` where there are any. Params: `inputs` and `outputs`, each a list of {name,
    datatype, shape} as the manifest declares them.
    """
    report(0.1, "loading")
    model = load_model(task.inputs["source"])
    check_signature(model, task.params["inputs"], task.params["outputs"])
    samples = real_inputs(task)
    report(0.3, "checking operators and shapes")
    onnxfile.save(model, SOURCE)  # in one file, as it came
    model = infer_shapes(fix_inputs(upgrade_opset(model), task.params["inputs"]))
    check_tensor_sizes(model)
    report(0.5, "folding constants")
    model = infer_shapes(fold_constants(model))
    finish(model, task.model)
    save(model, Path("model.onnx"))
    report(0.8, "comparing with the source")
    expected, actual = (onnxfile.run(path, samples.arrays) for path in (SOURCE, Path("model.onnx")))
    SOURCE.unlink()
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
    return convert_opset(model, FIXED_OPSET)


def fix_inputs(model: onnx.ModelProto, inputs: list[dict[str, Any]]) -> onnx.ModelProto:
    """Give the inputs their declared shapes: what the model leaves free and the manifest does not
    becomes fixed, which engines plan memory by. Shapes inside are inferred anew.

    IR 3 lists weights as inputs too. They are taken off: ONNX Runtime folds no weight that a caller
    could replace.
    """
    takes = onnxfile.graph_inputs(model.graph)
    del model.graph.input[:]
    model.graph.input.extend(takes)
    onnxfile.set_shapes(model, inputs, [])
    for graph in onnxfile.graphs_of(model.graph):
        del graph.value_info[:]
    return model


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
