"""Weights of 16 or 8 bits, and full-integer models, from any float .tflite file.

Weights alone (float16, dynamic range) go through AI Edge Quantizer, the maintained tool for files.
Full-integer models go through TensorFlow's calibrator and MLIR quantiser, what TFLiteConverter runs
inside: it quantises every operator that TFLite has in int8 (AI Edge Quantizer leaves LEAKY_RELU,
RELU6, MINIMUM and others in float, and a model for a microcontroller may have none of them so).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from ai_edge_quantizer import qtyping, quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.optimize.calibrator import Calibrator

from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError
from flatbuffer import boundary, operators, quantised_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_CONVERTS = {"QUANTIZE", "DEQUANTIZE"}
_RUNS_ALIKE = 6
"""So many equal results in a row are taken for the only one."""
_MOST_RUNS = 24


def half(data: bytes) -> bytes:
    """Weights in float16; the CPU computes in float32, a GPU delegate in float16."""
    recipe = recipe_manager.RecipeManager()
    recipe.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return _by_recipe(data, recipe, "fp16")


def dynamic(data: bytes, *, per_channel: bool) -> bytes:
    """Weights in int8; activations are quantised on the fly, layer by layer."""
    recipe = recipe_manager.RecipeManager()
    granularity = qtyping.QuantGranularity
    recipe.add_dynamic_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=8,
        granularity=granularity.CHANNELWISE if per_channel else granularity.TENSORWISE,
    )
    return _by_recipe(data, recipe, "int8")


def _by_recipe(data: bytes, recipe: Any, precision: str) -> bytes:
    tool = quantizer.Quantizer(bytearray(data), recipe.get_quantization_recipe())
    try:
        found = tool.quantize(enable_progress_report=False, enable_progress_bar=False)
    except Exception as error:
        raise _fails(error) from error
    result = bytes(found.quantized_model)
    if result == data:
        raise _nothing(precision)
    if precision == "int8" and not quantised_tensors(result):
        raise _nothing(precision)
    return result


def _nothing(precision: str) -> RefusalError:
    return RefusalError(
        "nothing-to-quantize",
        f"the model has no layer whose weights {precision} makes smaller",
        hint="set optimize.precision: fp32",
    )


def _fails(error: Exception) -> RefusalError:
    return RefusalError(
        "not-quantizable",
        f"the quantiser does not take the model: {first_line(error)}",
        hint="set optimize.precision: fp32, or another scheme in the Target's quantization",
    )


def static(
    data: bytes,
    samples: Mapping[str, np.ndarray],
    inputs: Sequence[Mapping[str, Any]],
    *,
    per_channel: bool,
    int8_boundary: bool,
) -> bytes:
    """Activations and weights in int8, with ranges (least and greatest) from `samples`.

    `inputs` are in the file's order, with static shapes. Layers of plain products (FULLY_CONNECTED)
    have one scale for all their weights: kernels for microcontrollers know no other. Refuses what
    stays in float where the boundary is int8 (`left-in-float`).
    """
    outer = tf.int8 if int8_boundary else tf.float32
    try:
        ranged = Calibrator(data).calibrate(lambda: _rows(samples, inputs))
        result = _settled(
            lambda: bytes(
                mlir_quantize(
                    ranged,
                    disable_per_channel=not per_channel,
                    disable_per_channel_for_dense_layers=True,
                    input_data_type=outer,
                    output_data_type=outer,
                )
            )
        )
    except Exception as error:
        raise _fails(error) from error
    left = left_in_float(result)
    if not quantised_tensors(result):
        raise _nothing("int8")
    if int8_boundary and (left or boundary(result) != "int8"):
        raise RefusalError(
            "left-in-float",
            f"TFLite has no int8 form of {', '.join(sorted(set(left.values()))) or 'a boundary'} "
            f"({', '.join(list(left)[:5])}): the model would not be full integer",
            node=next(iter(left), None),
            hint="replace the operator, or set boundary: float in the Target's quantization",
        )
    return result


def _settled(quantise: Callable[[], bytes]) -> bytes:
    """What the quantiser makes, whatever the addresses that it happens to work at.

    TensorFlow's walks operators in the order of their addresses. In some graphs, such as unrolled
    recurrences, that decides what stays in float: measured on one LSTM, something in one run of
    four, and each time something else. The result with the least in float counts.
    """
    seen: Counter[bytes] = Counter()
    while seen.total() < _MOST_RUNS:
        result = quantise()
        seen[result] += 1
        if seen[result] > 1 and not left_in_float(result):
            return result
        if len(seen) == 1 and seen.total() == _RUNS_ALIKE:
            break
    return min(seen, key=lambda made: (len(left_in_float(made)), made))


def _rows(
    samples: Mapping[str, np.ndarray], inputs: Sequence[Mapping[str, Any]]
) -> Iterator[list[np.ndarray]]:
    size = max([1, *(int(spec["shape"][0]) for spec in inputs if spec["shape"])])
    count = min(len(samples[spec["name"]]) for spec in inputs)
    for start in range(0, count - count % size, size):
        yield [np.ascontiguousarray(samples[spec["name"]][start : start + size]) for spec in inputs]


def left_in_float(data: bytes) -> dict[str, str]:
    """Node to operator, of what computes in float; the conversions at the boundary are none."""
    return {
        placed.node: placed.name
        for placed in operators(data)
        if placed.float_output and placed.name not in _CONVERTS
    }
