"""The optimize action: one .tflite file from ONNX, TensorFlow or another .tflite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import converting
import flatbuffer
import quantizing
from edgectl.build.kit import agreement, evaluating, onnxfile
from edgectl.build.kit.data import calibration, chosen_method, real_inputs
from edgectl.build.kit.tfmodel import open_model
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.errors import EngineError
from edgectl.engine.litert import MODEL_FILE, load
from edgectl.engine.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from edgectl.build.kit.data import Samples

DEFAULTS: dict[str, Any] = {
    "activations": "int8",
    "weights": "int8",
    "perChannel": True,
    "symmetricActivations": False,
    "reduceRange": False,
    "scheme": "static",
    "boundary": "float",
    "compression": {},
}
METHODS = ("minmax",)
"""TFLite's calibrator takes the least and the greatest value, whatever the Model asks for."""
_ONLY = {
    "activations": ("int8", "TFLite's activations are int8"),
    "weights": ("int8", "TFLite's weights are int8"),
    "symmetricActivations": (False, "TFLite's activations are asymmetric"),
    "reduceRange": (False, "TFLite's kernels do not saturate: no range has to be spared"),
    "compression": ({}, "TFLite has no palettes, and its sparse weights gain nothing here"),
}


def optimize(task: Task) -> Done:
    """Make `model.tflite` with the declared names, static shapes and the wanted precision.

    Roles: `model` (ONNX) or `source` (`format` tensorflow or tflite), and `calibration` for int8 of
    scheme static. Params: `precision` (fp32, fp16, int8), `inputs`, `outputs`, `scheme` (dynamic,
    static), `boundary` (float, int8), `perChannel`, `trustCode`; what DEFAULTS say else.
    """
    params = DEFAULTS | {key: value for key, value in task.params.items() if value is not None}
    _check_options(params)
    taken = task.params.get("format") if "source" in task.inputs else "onnx"
    facts: dict[str, Any] = {"precision": params["precision"]}
    if taken == "tflite":
        _load(task.inputs["source"]).close()
        data = task.inputs["source"].read_bytes()
        inputs, outputs = flatbuffer.ordered(data, params["inputs"], params["outputs"])
        data = flatbuffer.finish(data, inputs, outputs)
        if flatbuffer.quantised_tensors(data):
            return _passed_through(data, params, facts)
    else:
        report(0.1, "converting")
        data, facts["agreement"] = _converted(task, params)
        inputs, outputs = params["inputs"], params["outputs"]
    flatbuffer.check_weights(data)
    report(0.6, f"making {params['precision']}")
    result = _at_precision(task, data, params, inputs)
    if _is_calibrated(params):
        facts |= chosen_method(params, METHODS)[1]
    return _done(flatbuffer.finish(result, inputs, outputs), facts)


def _check_options(params: Mapping[str, Any]) -> None:
    if params["precision"] not in {"fp32", "fp16", "int8"}:
        raise RefusalError(
            "unsupported-precision",
            f"LiteRT makes fp32, fp16 and int8, not {params['precision']}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )
    if params["precision"] != "int8":
        return
    for name, (value, why) in _ONLY.items():
        if params[name] != value:
            raise RefusalError(
                "unsupported-option",
                f"{name} is {params[name]!r}: {why}",
                hint=f"set quantization.{name}: {value!r} for this Target, or leave it out",
            )


def _converted(task: Task, params: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The float file, and how far it agrees with its source on real inputs."""
    samples = real_inputs(task)
    if "source" in task.inputs:
        network = open_model(
            task.inputs["source"],
            params["inputs"],
            params["outputs"],
            trust=bool(params.get("trustCode", False)),
            unroll=True,
        )
        converting.static(params["inputs"])
        expected = network.run(samples.arrays)
    else:
        network = converting.network_of(task.inputs["model"], params["inputs"], params["outputs"])
        expected = onnxfile.run(task.inputs["model"], samples.arrays)
    data = flatbuffer.finish(converting.convert(network), params["inputs"], params["outputs"])
    report(0.4, "comparing with the source")
    return data, agreement.check(expected, _run(data, samples), samples)


def _run(data: bytes, samples: Samples) -> dict[str, np.ndarray]:
    Path(MODEL_FILE).write_bytes(data)
    session = _load(Path(MODEL_FILE))
    try:
        return session.run(samples.arrays)
    finally:
        session.close()


def _load(path: Path) -> Any:
    try:
        return load(path, options=EngineOptions(), threads=1)
    except EngineError as error:
        raise evaluating.refusal(error, path) from error


def _at_precision(
    task: Task, data: bytes, params: Mapping[str, Any], inputs: list[Mapping[str, Any]]
) -> bytes:
    if params["precision"] == "fp32":
        return data
    if params["precision"] == "fp16":
        return quantizing.half(data)
    if not _is_calibrated(params):
        return quantizing.dynamic(data, per_channel=bool(params["perChannel"]))
    samples = calibration(task)
    report(0.7, f"calibrating on {len(next(iter(samples.values())))} samples")
    return quantizing.static(
        data,
        samples,
        converting.static(inputs),
        per_channel=bool(params["perChannel"]),
        int8_boundary=params["boundary"] == "int8",
    )


def _is_calibrated(params: Mapping[str, Any]) -> bool:
    return bool(params["precision"] == "int8" and params["scheme"] == "static")


def _passed_through(data: bytes, params: Mapping[str, Any], facts: dict[str, Any]) -> Done:
    """A file that is quantised already stays as it is, where it is what the target takes."""
    if _is_calibrated(params):
        left = quantizing.left_in_float(data)
        found = flatbuffer.boundary(data)
        if params["boundary"] == "int8" and (found != "int8" or left):
            raise RefusalError(
                "boundary-differs",
                f"the .tflite file is quantised with a {found} boundary and {len(left)} operators "
                "in float; this target takes full-integer models",
                node=next(iter(left), None),
                hint="give the float model, or convert it with inference_input_type and "
                "inference_output_type int8",
            )
    return _done(data, {**facts, "precision": "as the source", "passedThrough": True})


def _done(data: bytes, facts: Mapping[str, Any]) -> Done:
    report(0.9, "checking that it loads")
    Path(MODEL_FILE).write_bytes(data)
    _load(Path(MODEL_FILE)).close()
    placed = flatbuffer.operators(data)
    if any(each.name == "QUANTIZE" or each.quantised_input for each in placed):
        facts = {**facts, "floatOperators": sorted(set(quantizing.left_in_float(data).values()))}
    return Done(
        {"model": MODEL_FILE},
        {
            **facts,
            "operators": sorted({f"{each.name} v{each.version}" for each in placed}),
            "boundary": flatbuffer.boundary(data),
            "sizeBytes": len(data),
        },
    )
