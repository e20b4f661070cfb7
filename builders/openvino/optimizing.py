"""The optimize action: a model in OpenVINO's own form, in the precision that is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import converting
import ir
from edgectl.build.kit import agreement, data
from edgectl.build.protocol import Done, RefusalError, Task, report
from edgectl.engine.batches import infer
from edgectl.engine.errors import EngineError
from edgectl.engine.session import load_session
from ports import declare
from quantizing import METHODS, compress_weights, has_attention, is_quantized, quantize
from writing import name_by_position, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    import openvino as ov
    from numpy.typing import NDArray

    from edgectl.build.kit.data import Samples

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
OUTPUT = "model"
"""The directory that holds model.xml and model.bin."""


def optimize(task: Task) -> Done:
    """Make `model/model.xml` and `model/model.bin`.

    Roles: `model` (ONNX) or `source` (an IR), and `calibration` for int8. Params: `precision`,
    `inputs`, `outputs`, `device`, and for int8 `symmetricActivations`, `perChannel`, `reduceRange`,
    `method` and `percentile` (see `quantizing.quantize`). An IR keeps the precision of its weights
    where fp32 is asked for.

    The outputs are compared with the source's: an fp32 variant has to agree within the kit's
    tolerance, and any other has to be finite, its distance goes into the metadata.
    """
    precision = task.params["precision"]
    _check_params(task.params)
    report(0.1, "converting")
    model = _read(task)
    declare(model, task.params["inputs"], task.params["outputs"])
    name_by_position(model)
    samples = data.real_inputs(task)
    expected = _expected(task, model, samples)
    report(0.3, f"making {precision}")
    calibrated = precision == "int8" and not is_quantized(model)
    model = _in_precision(model, precision, task)
    report(0.8, "writing")
    write(model, Path(OUTPUT), name=task.model, precision=precision)
    report(0.9, "comparing with the source")
    actual = _run(Path(OUTPUT), samples.arrays)
    return Done(
        {"model": OUTPUT},
        {
            "precision": precision,
            "attention": has_attention(model),
            "nodes": len(model.get_ops()),
            "operators": sorted({node.get_type_name() for node in model.get_ops()}),
            "fakeQuantize": sum(n.get_type_name() == "FakeQuantize" for n in model.get_ops()),
            **(data.chosen_method(task.params, METHODS)[1] if calibrated else {}),
            **_compared(expected, actual, samples, exact=precision == "fp32"),
        },
    )


def _check_params(params: Mapping[str, Any]) -> None:
    if params["precision"] not in PRECISIONS:
        raise RefusalError(
            "unsupported-precision",
            f"this builder makes {', '.join(PRECISIONS)}, not {params['precision']}",
            hint="set optimize.precision of the Model, or precisions of the Target",
        )
    if params.get("compression"):
        raise RefusalError(
            "unsupported-compression",
            f"OpenVINO variants are not {params['compression'].get('weights')}",
            hint="leave optimize.compression out for this target, or set precision: int4",
        )
    if not str(params.get("device") or "").startswith("NPU"):
        return
    for spec in (*params["inputs"], *params["outputs"]):
        if -1 in spec["shape"]:
            raise RefusalError(
                "dynamic-shape",
                f"{spec['name']!r} is {spec['shape']}, and an NPU takes fixed shapes only",
                node=spec["name"],
                hint=f"declare {[1 if n == -1 else n for n in spec['shape']]} in the Model "
                "(a Model of its own for NPUs), or set the target's engine.device to CPU or GPU",
            )


def _read(task: Task) -> ov.Model:
    if "source" in task.inputs:
        return ir.read(task.inputs["source"])
    return converting.convert(converting.onnx_file(task.inputs["model"]))


def _expected(task: Task, model: ov.Model, samples: Samples) -> dict[str, NDArray[Any]]:
    """What the source answers: an ONNX file by ONNX Runtime, an IR by OpenVINO as it was read."""
    if "model" in task.inputs:
        from edgectl.build.kit import onnxfile

        return onnxfile.run(converting.onnx_file(task.inputs["model"]), samples.arrays)
    write(model, Path("source"), name=task.model, precision="fp32")
    try:
        return _run(Path("source"), samples.arrays)
    finally:
        for path in Path("source").iterdir():
            path.unlink()
        Path("source").rmdir()


def _in_precision(model: ov.Model, precision: str, task: Task) -> ov.Model:
    if is_quantized(model):
        if precision != "int8":
            raise RefusalError(
                "already-quantized",
                f"the IR is quantised to int8 already, and cannot become {precision}",
                hint="set optimize.precision: int8, or give the IR in floating point",
            )
        return model
    if precision == "int8":
        model = quantize(model, data.calibration(task), task.params)
    elif precision == "int4":
        model = compress_weights(model)
    name_by_position(model)
    return model


def _run(directory: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs by the adapter that serves the model, on the CPU."""
    try:
        session = load_session(directory, engine="openvino")
        outputs = infer(session, arrays)
        session.close()
    except EngineError as error:
        raise RefusalError(
            "engine-refuses",
            str(error),
            node=getattr(error, "node", None),
            hint="replace the operator it names, or export with another opset",
        ) from error
    return outputs


def _compared(
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    samples: Samples,
    *,
    exact: bool,
) -> dict[str, Any]:
    if exact:
        return {"agreement": agreement.check(expected, actual, samples)}
    for name, values in actual.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RefusalError(
                "outputs-not-finite",
                f"output {name!r} is NaN or infinite where the source's is not",
                node=name,
                hint="make calibration data that cover the real range, or use another precision",
            )
    distances = {name: _distance(expected[name], values) for name, values in actual.items()}
    return {"difference": {"samples": samples.rows, "data": samples.origin, "outputs": distances}}


def _distance(want: NDArray[Any], got: NDArray[Any]) -> dict[str, float]:
    """The largest difference, and the ratio of signal to error in dB where there is an error."""
    wanted, error = want.astype(np.float64), got.astype(np.float64) - want.astype(np.float64)
    power, noise = float((wanted**2).sum()), float((error**2).sum())
    distance = {"maxDifference": float(np.abs(error).max(initial=0.0))}
    if power > 0 and noise > 0:
        distance["sqnr"] = round(10 * math.log10(power / noise), 2)
    return distance
