"""The scikit-learn toolchain: a fitted estimator, saved by skops, becomes an ONNX model.

A pickle is refused unread: loading one runs whatever code is in it. A .skops file names its types,
and only types that skops knows, or that TRUSTED lists with a reason, are ever made.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import skl2onnx
import sklearn
import skops.io
from skl2onnx.common import data_types, exceptions
from sklearn.base import is_classifier
from sklearn.exceptions import InconsistentVersionWarning

from edgectl.build.kit import agreement, onnxfile
from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, main, report

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

MAX_FILE_BYTES = 4 << 30
OPSET = 17
"""Read by ONNX Runtime from 1.12 and by TensorRT from 8.5."""
ML_OPSET = 3
TOLERANCE = {"absolute": 1e-4, "relative": 1e-3}
"""Estimators compute in float64, the model in float32 (numpy.allclose)."""

TRUSTED = {
    # What is left of the training in an MLP: step sizes and moments, no code, and never converted.
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    # The nodes of a decision tree as arrays, no code. Prediction reads through their indices
    # unchecked, so a forged file can crash this process, and can do no more.
    "sklearn.tree._tree.Tree",
}

_TENSORS = {
    "FP32": data_types.FloatTensorType,
    "FP64": data_types.DoubleTensorType,
    "INT64": data_types.Int64TensorType,
}


def import_model(task: Task) -> Done:
    """Convert an estimator to ONNX with one input and one output.

    Roles: `source`, and `calibration` and `evaluation` where there are any. Params: `inputs` and
    `outputs`, each a list of one {name, datatype, shape}. A classifier gives its probabilities, a
    regressor its prediction.
    """
    feature = _only(task.params["inputs"], "inputs")
    output = _only(task.params["outputs"], "outputs")
    report(0.1, "loading")
    estimator = load_estimator(task.inputs["source"])
    check_signature(estimator, feature, output)
    report(0.4, "converting")
    model = convert(estimator, feature, output)
    onnxfile.check_weights(model)
    onnxfile.finish(model, task.model)
    onnxfile.save(model, Path("model.onnx"))
    report(0.8, "comparing with the estimator")
    samples = real_inputs(task)
    expected = predict(estimator, samples.arrays[feature["name"]], output["shape"])
    actual = onnxfile.run(Path("model.onnx"), samples.arrays)
    agreed = agreement.check({output["name"]: expected}, actual, samples, **TOLERANCE)
    return Done(
        {"model": "model.onnx"},
        {
            "estimator": _type_name(estimator),
            "scikitLearn": sklearn.__version__,
            "opset": OPSET,
            "irVersion": model.ir_version,
            "nodes": len(model.graph.node),
            "parameters": sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer),
            "operators": sorted({node.op_type for node in model.graph.node}),
            "agreement": agreed,
        },
    )


def _only(specs: list[dict[str, Any]], what: str) -> dict[str, Any]:
    if len(specs) != 1:
        raise RefusalError(
            "signature-differs",
            f"a scikit-learn model has one tensor of {what}, the manifest declares {len(specs)}",
            hint=f"declare one entry in spec.{what}: a table of rows by features",
        )
    return specs[0]


def load_estimator(path: Path) -> BaseEstimator:
    """Load a .skops file; refuses pickles, unknown types, and files of another scikit-learn."""
    if not zipfile.is_zipfile(path):
        raise RefusalError(
            "not-skops",
            "the file is not a .skops file; if it is a pickle or joblib file, loading it would run "
            "the code in it",
            hint="convert it where it was trained: skops.io.dump(joblib.load('model.pkl'), "
            "'model.skops'), and set source.format: sklearn",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size} bytes unpacked, more than {MAX_FILE_BYTES}")
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - TRUSTED)
    except Exception as error:
        raise _does_not_load(error) from error
    if unknown:
        raise RefusalError(
            "untrusted-type",
            f"the file holds types that are not trusted: {', '.join(unknown)}",
            node=unknown[0],
            hint="build the pipeline from scikit-learn's own estimators and transformers",
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = skops.io.load(path, trusted=sorted(TRUSTED))
        except Exception as error:
            raise _does_not_load(error) from error
    _check_versions([item.message for item in caught])
    if not hasattr(estimator, "predict"):
        raise RefusalError(
            "not-an-estimator",
            f"the file holds a {_type_name(estimator)}, which predicts nothing",
            node=_type_name(estimator),
            hint="save the fitted pipeline itself",
        )
    return estimator


def _check_versions(messages: list[Warning | str]) -> None:
    for message in messages:
        if isinstance(message, InconsistentVersionWarning):
            made, have = message.original_sklearn_version, sklearn.__version__
            if made.split(".")[:2] != have.split(".")[:2]:
                raise RefusalError(
                    "version-differs",
                    f"{message.estimator_name} was saved by scikit-learn {made}, this toolchain "
                    f"has {have}: attributes may have changed their meaning in between",
                    node=message.estimator_name,
                    hint=f"save the model again with scikit-learn {have}",
                )


def _does_not_load(error: Exception) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"not a readable .skops file: {first_line(error)}",
        hint="save it again with skops.io.dump",
    )


def check_signature(
    estimator: BaseEstimator, feature: dict[str, Any], output: dict[str, Any]
) -> None:
    """Refuse an estimator that is not what the manifest declares."""
    columns = getattr(estimator, "n_features_in_", None)
    if feature["datatype"] not in _TENSORS or feature["shape"] != [-1, columns]:
        raise RefusalError(
            "signature-differs",
            f"{feature['name']!r} is [-1, {columns}] in the model, "
            f"{feature['datatype']} {feature['shape']} in the manifest",
            node=feature["name"],
            hint=f"correct spec.inputs of the Model; the datatype is one of {', '.join(_TENSORS)}",
        )
    if not is_classifier(estimator):
        return
    if not hasattr(estimator, "predict_proba"):
        raise RefusalError(
            "no-probabilities",
            f"{_type_name(estimator)} gives labels without probabilities",
            node=_type_name(estimator),
            hint="wrap it in sklearn.calibration.CalibratedClassifierCV",
        )
    classes = len(estimator.classes_)
    if output["shape"] != [-1, classes]:
        raise RefusalError(
            "signature-differs",
            f"{output['name']!r} is [-1, {classes}] in the model, "
            f"{output['shape']} in the manifest",
            node=output["name"],
            hint="correct spec.outputs of the Model",
        )


def convert(
    estimator: BaseEstimator, feature: dict[str, Any], output: dict[str, Any]
) -> onnx.ModelProto:
    """The ONNX model, with the label output dropped and the tensors named as declared."""
    classifier = is_classifier(estimator)
    tensor = _TENSORS[feature["datatype"]]([None, feature["shape"][1]])
    try:
        model = skl2onnx.convert_sklearn(
            estimator,
            initial_types=[(feature["name"], tensor)],
            options={id(estimator): {"zipmap": False}} if classifier else None,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            # Sub and Div in its place: TensorRT reads no operator of ai.onnx.ml.
            black_op={"Scaler"},
        )
    except (exceptions.MissingConverter, exceptions.MissingShapeCalculator) as error:
        raise RefusalError(
            "unsupported-estimator",
            f"a part of {_type_name(estimator)} has no ONNX form: {first_line(error)}",
            node=_type_name(estimator),
            hint="use estimators that skl2onnx supports (its documentation lists them)",
        ) from error
    except Exception as error:
        raise RefusalError(
            "not-convertible",
            f"{_type_name(estimator)} cannot be converted: {first_line(error)}",
            node=_type_name(estimator),
            hint="fit it on plain numeric features and save it again",
        ) from error
    kept = model.graph.output[1 if classifier else 0].name
    prune(model.graph, kept)
    _rename(model.graph, kept, output)
    onnx.checker.check_model(model, full_check=True)
    return model


def prune(graph: onnx.GraphProto, output: str) -> None:
    """Keep one output and what it is computed from."""
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    outputs = [value for value in graph.output if value.name == output]
    for field, kept in (
        (graph.node, nodes[::-1]),
        (graph.initializer, initializers),
        (graph.output, outputs),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(copies)


def _rename(graph: onnx.GraphProto, old: str, output: dict[str, Any]) -> None:
    for node in graph.node:
        node.output[:] = [output["name"] if name == old else name for name in node.output]
        node.input[:] = [output["name"] if name == old else name for name in node.input]
    value = graph.output[0]
    value.CopyFrom(
        onnx.helper.make_tensor_value_info(
            output["name"],
            value.type.tensor_type.elem_type,
            [None if size == -1 else size for size in output["shape"]],
        )
    )


def predict(estimator: BaseEstimator, rows: np.ndarray, shape: list[int]) -> np.ndarray:
    """What the estimator itself gives for the rows, in the declared shape of the output."""
    call = estimator.predict_proba if is_classifier(estimator) else estimator.predict
    return np.asarray(call(rows), np.float32).reshape(shape)


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


if __name__ == "__main__":
    main({"import": import_model})
