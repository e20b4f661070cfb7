"""What a Core ML specification is checked for: its own form, the manifest, and the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coremltools.proto import FeatureTypes_pb2

import versions
from blobs import check_blobs, operations
from edgectl.build.kit.wording import listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from package import Package

_ARRAY = FeatureTypes_pb2.ArrayFeatureType
_DATATYPES = {
    _ARRAY.FLOAT16: "FP16", _ARRAY.FLOAT32: "FP32", _ARRAY.DOUBLE: "FP64", _ARRAY.INT32: "INT32",
    _ARRAY.INT8: "INT8",
}  # fmt: skip
_NETWORKS = {"neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"}
_PIPELINES = {"pipeline", "pipelineClassifier", "pipelineRegressor"}
_ELSEWHERE = {
    "customModel": "a class of the app computes it",
    "linkedModel": "it names a model outside the package",
    "serializedModel": "its content is opaque",
}
FREE = -1


def check(
    package: Package,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    core_ml: versions.CoreMl,
) -> None:
    """Refuse a model that is not whole and self-contained, not as declared, or too new.

    `inputs` and `outputs` are as the manifest declares them; `core_ml` is the oldest that the
    target admits.
    """
    specification = package.specification
    if specification.specificationVersion > core_ml.specification:
        raise RefusalError(
            "engine-version",
            f"the model needs {versions.named(specification.specificationVersion)}, the Target "
            f"admits Core ML {core_ml.major} ({core_ml.system})",
            hint="raise spec.engine.version of the Target, or convert the model with an older "
            "minimum_deployment_target",
        )
    for model in _models(specification):
        _check_content(model, package)
    description = specification.description
    _check_features("inputs", inputs, description.input, complete=True)
    _check_features("outputs", outputs, description.output, complete=False)


def kind(specification: Any) -> str:
    """`mlProgram`, `neuralNetwork`, `pipeline` and so on, as Model.proto names it."""
    return str(specification.WhichOneof("Type"))


def _models(model: Any) -> Iterator[Any]:
    """A model and, where it is a pipeline, the models in it."""
    yield model
    form = kind(model)
    if form in _PIPELINES:
        chain = getattr(model, form)
        for inner in (chain if form == "pipeline" else chain.pipeline).models:
            yield from _models(inner)


def _check_content(model: Any, package: Package) -> None:
    form = kind(model)
    if form in _ELSEWHERE:
        raise _custom(f"the model is a {form}: {_ELSEWHERE[form]}", form)
    if form == "mlProgram":
        for operation in operations(model.mlProgram):
            if operation.type.startswith("custom"):
                raise _custom(f"operation {operation.type} runs code of the app", operation.type)
        check_blobs(model.mlProgram, package.weights)
    elif form in _NETWORKS:
        for layer in getattr(model, form).layers:
            if layer.WhichOneof("layer") == "custom":
                raise _custom(
                    f"layer {layer.name!r} is custom: class {layer.custom.className!r} of the app "
                    "computes it",
                    layer.name,
                )


def _custom(message: str, node: str) -> RefusalError:
    return RefusalError(
        "custom-code",
        message,
        node=node,
        hint="convert the model with the operators of Core ML alone: edgectl ships no app code",
    )


def _check_features(
    what: str, declared: Sequence[Mapping[str, Any]], found: Sequence[Any], *, complete: bool
) -> None:
    by_name = {feature.name: feature.type for feature in found}
    wanted = [spec["name"] for spec in declared]
    missing = [name for name in wanted if name not in by_name]
    extra = [name for name in by_name if name not in wanted] if complete else []
    if len(by_name) != len(found) or missing or extra:
        names = [feature.name for feature in found]
        raise RefusalError(
            "signature-differs",
            f"the model's {what} are {listed(names)}, the manifest declares {listed(wanted)}",
            hint=f"correct spec.{what} of the Model, or convert the model with these names",
        )
    for spec in declared:
        _check_feature(what, spec, by_name[spec["name"]])


def _check_feature(what: str, spec: Mapping[str, Any], feature: Any) -> None:
    form = feature.WhichOneof("Type")
    if form != "multiArrayType":
        raise RefusalError(
            "not-a-tensor",
            f"{spec['name']!r} is a feature of {form}, not a multi-array",
            node=spec["name"],
            hint="convert the model with ct.TensorType for its inputs and outputs, and without "
            "ClassifierConfig; labels and colours belong in the manifest",
        )
    array = feature.multiArrayType
    datatype = _DATATYPES.get(array.dataType, "of no known datatype")
    # Core ML has one width of whole numbers.
    declared = "INT32" if spec["datatype"] == "INT64" else spec["datatype"]
    if datatype != declared or not _shape_fits(array, spec["shape"], open_ended=what == "outputs"):
        raise RefusalError(
            "signature-differs",
            f"{spec['name']!r} is {datatype} {_shown(array)} in the model, {spec['datatype']} "
            f"{spec['shape']} in the manifest",
            node=spec["name"],
            hint=f"correct spec.{what} of the Model; -1 is a free dimension, which the model must "
            "be converted with",
        )


def _shape_fits(array: Any, shape: Sequence[int], *, open_ended: bool) -> bool:
    """Whether every declared size is one that the model takes, a free one free in the model too."""
    if not array.shape and open_ended:
        return True  # Core ML leaves out the shape of an output that depends on the input
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "shapeRange":
        ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
        return len(ranges) == len(shape) and all(
            low != high if size == FREE else low <= size and (high < 0 or size <= high)
            for (low, high), size in zip(ranges, shape, strict=True)
        )
    if flexible == "enumeratedShapes":
        options = [list(option.shape) for option in array.enumeratedShapes.shapes]
        return any(_equal(option, shape) for option in options)
    return list(array.shape) == list(shape)


def _equal(option: Sequence[int], shape: Sequence[int]) -> bool:
    return len(option) == len(shape) and all(
        size in (FREE, have) for have, size in zip(option, shape, strict=True)
    )


def _shown(array: Any) -> list[int] | str:
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "shapeRange":
        ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
        sides = [str(low) if low == high else f"{low}..{high}" for low, high in ranges]
        return f"[{', '.join(sides)}]"
    if flexible == "enumeratedShapes":
        return " or ".join(str(list(option.shape)) for option in array.enumeratedShapes.shapes[:4])
    return list(array.shape)


def operators(specification: Any) -> list[str]:
    """The operators or layers of a program or network, those in a pipeline included, sorted."""
    found: set[str] = set()
    for model in _models(specification):
        form = kind(model)
        if form == "mlProgram":
            found |= {operation.type for operation in operations(model.mlProgram)}
        elif form in _NETWORKS:
            found |= {str(layer.WhichOneof("layer")) for layer in getattr(model, form).layers}
        elif form not in _PIPELINES:
            found.add(form)
    return sorted(found)
