"""int8 by calibration and int4 weights, both by NNCF (https://docs.openvino.ai, NNCF)."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgectl.build.kit.data import chosen_method
from edgectl.build.kit.instructions import saturates
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError, report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import openvino as ov
    from numpy.typing import NDArray

DEFAULTS: dict[str, Any] = {
    "symmetricActivations": True,
    "perChannel": True,
    "percentile": 99.99,
}
"""What a CPU with VNNI runs fastest."""
METHODS = ("minmax", "percentile", "entropy")
"""How ranges are found. For entropy, NNCF's histogram: the range that loses least in rounding."""
GROUP = 64
"""How many int4 weights share a scale, at most."""

_FOUR_BITS = frozenset({"i4", "u4"})


def is_quantized(model: ov.Model) -> bool:
    """Whether activations are quantised already."""
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def quantize(
    model: ov.Model, calibration: Mapping[str, NDArray[Any]], params: Mapping[str, Any]
) -> ov.Model:
    """Quantise weights and activations to int8 by min-max statistics and fast bias correction.

    `params` over DEFAULTS: `symmetricActivations` is NNCF's preset (performance, else mixed),
    `perChannel` concerns weights, `reduceRange` leaves them 7 bits (without it: on CPUs without
    VNNI, by `cpuFeatures`), `method` is one of METHODS, `device` the target's. A model with
    attention is calibrated as a transformer (SmoothQuant).
    """
    import nncf

    device = str(params.get("device") or "CPU")
    fitting = DEFAULTS | {
        "reduceRange": device == "CPU" and saturates(params.get("cpuFeatures") or ())
    }
    options = fitting | {key: value for key, value in params.items() if value is not None}
    nncf.set_log_level(logging.ERROR)
    _fold(model)
    rows = len(next(iter(calibration.values())))
    shapes = [port.get_partial_shape() for port in model.inputs]
    fixed = [shape[0].get_length() for shape in shapes if len(shape) and shape[0].is_static]
    size = max([1, *fixed])
    batches = [
        {name: array[start : start + size] for name, array in calibration.items()}
        for start in range(0, rows, size)
    ]
    report(0.4, f"calibrating on {rows} samples")
    try:
        with _one_core():
            quantized = nncf.quantize(
                model,
                nncf.Dataset(batches),
                preset=nncf.QuantizationPreset.PERFORMANCE
                if options["symmetricActivations"]
                else nncf.QuantizationPreset.MIXED,
                target_device=_target(device),
                subset_size=len(batches),
                fast_bias_correction=True,
                model_type=nncf.ModelType.TRANSFORMER if has_attention(model) else None,
                advanced_parameters=_advanced(options),
            )
    except Exception as error:
        raise RefusalError(
            "not-quantizable",
            f"NNCF {nncf.__version__} does not quantise the model: {first_line(error)}",
            hint="set optimize.precision: fp16 or fp32",
        ) from error
    if not is_quantized(quantized):
        raise RefusalError(
            "nothing-to-quantize",
            "the model has no node that int8 can speed up",
            hint="set optimize.precision: fp32",
        )
    return quantized


def compress_weights(model: ov.Model) -> ov.Model:
    """Weights of matrix products in int4, symmetric by groups; activations stay in float.

    NNCF keeps the last one, embeddings and convolutions in int8. Refuses a model in which that
    leaves nothing.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    _fold(model)
    try:
        with _one_core():
            compressed = nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT4_SYM,
                group_size=GROUP,
                advanced_parameters=nncf.AdvancedCompressionParameters(
                    group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
                ),
            )
    except Exception as error:
        raise RefusalError(
            "not-compressible",
            f"NNCF {nncf.__version__} does not compress the weights: {first_line(error)}",
            hint="set optimize.precision: int8 or fp16",
        ) from error
    types = {node.get_element_type().get_type_name() for node in constants(compressed)}
    if not types & _FOUR_BITS:
        raise RefusalError(
            "nothing-to-compress",
            "the model has no matrix product, other than its last, that int4 weights would suit",
            hint="set optimize.precision: int8",
        )
    return compressed


def has_attention(model: ov.Model) -> bool:
    """Whether a product of two computed tensors goes through a Softmax into another product."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        if node.get_type_name() == "Softmax" and _feeds(node, "MatMul"):
            return True
    return False


def constants(model: ov.Model) -> list[ov.Node]:
    """The model's constants, in its order."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]


def _fold(model: ov.Model) -> None:
    """Make constants of what is computed from constants alone.

    An IR of `read_model` and `save_model` holds the weights of a depthwise convolution behind a
    Reshape. NNCF 3.4 then takes wrong axes for their scales, and the convolution runs in float.
    """
    from openvino import passes

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)


def _feeds(node: ov.Node, wanted: str) -> bool:
    """Whether a node of that type takes the output, reshaped or not."""
    for output in node.outputs():
        for reader in output.get_target_inputs():
            kind = reader.get_node().get_type_name()
            if kind == wanted or (kind == "Reshape" and _feeds(reader.get_node(), wanted)):
                return True
    return False


def _target(device: str) -> Any:
    import nncf

    kinds = {"CPU": nncf.TargetDevice.CPU, "GPU": nncf.TargetDevice.GPU}
    return (kinds | {"NPU": nncf.TargetDevice.NPU}).get(
        device.partition(".")[0], nncf.TargetDevice.ANY
    )


def _advanced(options: Mapping[str, Any]) -> Any:
    import nncf

    fix = nncf.OverflowFix.ENABLE if options["reduceRange"] else nncf.OverflowFix.DISABLE
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
    if not options["perChannel"]:
        from nncf.quantization.advanced_parameters import QuantizationParameters

        advanced.weights_quantization_params = QuantizationParameters(per_channel=False)
    advanced.activations_range_estimator_params = _ranges(options)
    return advanced


def _ranges(options: Mapping[str, Any]) -> Any:
    """The estimator of activations' ranges, over all samples.

    NNCF's own default takes the mean of the samples' extremes, which cuts what few samples reach:
    MobileNets lose percents of accuracy by it.
    """
    from nncf.quantization import range_estimator as ranges

    method = chosen_method(options, METHODS)[0]
    if method == "entropy":
        return ranges.RangeEstimatorParametersSet.HISTOGRAM
    if method == "minmax":
        return ranges.RangeEstimatorParametersSet.MINMAX
    outside = 1 - float(options["percentile"]) / 100
    low, high = (
        ranges.StatisticsCollectorParameters(
            statistics_type=ranges.StatisticsType.QUANTILE,
            aggregator_type=aggregator,
            quantile_outlier_prob=outside,
        )
        for aggregator in (ranges.AggregatorType.MIN, ranges.AggregatorType.MAX)
    )
    return ranges.RangeEstimatorParameters(min=low, max=high)


@contextmanager
def _one_core() -> Iterator[None]:
    """OpenVINO on one thread, inside NNCF too, which sets none: sums are then always the same."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
