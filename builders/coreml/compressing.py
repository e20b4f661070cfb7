"""Smaller weights: linear int8 and int4, palettes, and sparse weights (coremltools.optimize)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import coremltools.optimize.coreml as cto

from blobs import operations
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coremltools.models import MLModel

    from versions import CoreMl

LINEAR = {"int8", "int4"}
PALETTE_BITS = (1, 2, 3, 4, 6, 8)
_BLOCK = 32
"""Weights that share one scale of int4."""
_THRESHOLD = 512
"""Tensors of fewer weights stay as they are: a scale or palette would cost more than it saves."""
_SINCE_IOS_18 = 8


def compress(
    model: MLModel, precision: str, compression: Mapping[str, Any], core_ml: CoreMl
) -> MLModel:
    """Compress the weights of an ML program; what it computes with them stays float.

    `compression` is {} or {weights: palettized, bits} or {weights: sparse, sparsity}; with a
    linear precision both are done, and the palette or the values that are left are int8. Refuses
    what the oldest Core ML of the target does not read (`engine-version`), and a model with no
    weights worth it (`nothing-to-compress`).
    """
    what = _newer(precision, compression)
    if what and core_ml.major < _SINCE_IOS_18:
        raise RefusalError(
            "engine-version",
            f"{what} need Core ML 8 (iOS 18), the Target admits Core ML {core_ml.major} "
            f"({core_ml.system})",
            hint="set spec.engine.version of the Target to '>=8.0', or choose int8 alone, or a "
            "palette of 1, 2, 4, 6 or 8 bits alone",
        )
    for step in _steps(precision, compression):
        before = _compressed(model)
        try:
            model = step(model)
        except Exception as error:
            raise RefusalError(
                "not-compressible",
                f"coremltools does not compress the weights: {first_line(error)}",
                hint="set precision fp16 and leave out optimize.compression",
            ) from error
        if _compressed(model) == before:
            raise RefusalError(
                "nothing-to-compress",
                f"no layer of the model has {_THRESHOLD} weights or more",
                hint="set precision fp16 and leave out optimize.compression",
            )
    return model


def _newer(precision: str, compression: Mapping[str, Any]) -> str:
    """What is asked for that came with iOS 18 (coremltools guide, "Optimization Overview")."""
    if precision == "int4":
        return "int4 weights"
    if compression.get("bits") == 3:
        return "palettes of 3 bits"
    if compression and precision in LINEAR:
        return "palettes or sparse weights that are int8 too"
    return ""


def _steps(
    precision: str, compression: Mapping[str, Any]
) -> Iterator[Callable[[MLModel], MLModel]]:
    if compression:
        yield (
            _palettize(compression)
            if compression["weights"] == "palettized"
            else _prune(compression)
        )
    if precision in LINEAR:
        yield _quantize(precision, compression.get("weights", ""))


def _palettize(compression: Mapping[str, Any]) -> Callable[[MLModel], MLModel]:
    bits = compression.get("bits", 4)
    if bits not in PALETTE_BITS:
        raise RefusalError(
            "unsupported-compression",
            f"Core ML has no palettes of {bits} bits",
            hint=f"set optimize.compression.bits to one of {', '.join(map(str, PALETTE_BITS))}",
        )
    settings = cto.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=_THRESHOLD)
    return lambda model: cto.palettize_weights(model, cto.OptimizationConfig(settings))


def _prune(compression: Mapping[str, Any]) -> Callable[[MLModel], MLModel]:
    settings = cto.OpMagnitudePrunerConfig(
        target_sparsity=float(compression.get("sparsity", 0.5)), weight_threshold=_THRESHOLD
    )
    return lambda model: cto.prune_weights(model, cto.OptimizationConfig(settings))


def _quantize(datatype: str, compressed: str) -> Callable[[MLModel], MLModel]:
    """`compressed` names what was done to the weights before, and is done again to its result."""
    if datatype == "int4" and not compressed:
        grain: dict[str, Any] = {"granularity": "per_block", "block_size": _BLOCK}
    else:
        datatype = "int8"
        # A palette is one short table, which has no channels.
        grain = {"granularity": "per_tensor" if compressed == "palettized" else "per_channel"}
    settings = cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype=datatype, weight_threshold=_THRESHOLD, **grain
    )
    config = cto.OptimizationConfig(settings)
    return lambda model: cto.linear_quantize_weights(
        model, config, joint_compression=bool(compressed)
    )


def _compressed(model: MLModel) -> int:
    program = model.get_spec().mlProgram
    return sum(operation.type.startswith("constexpr") for operation in operations(program))
