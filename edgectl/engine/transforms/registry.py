"""Names of transforms, what each is, and the reading of their declarations.

Nothing here imports numpy or Pillow: declarations are checked where neither is installed.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from edgectl.engine.transforms.anomaly import ReconstructionError
from edgectl.engine.transforms.detection import Nms
from edgectl.engine.transforms.image import Crop, Decode, Resize
from edgectl.engine.transforms.row import Row
from edgectl.engine.transforms.scaling import MinMax, Standardize
from edgectl.engine.transforms.scores import (
    ArgMax,
    L2Normalize,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
)
from edgectl.engine.transforms.spectrum import LogMel, Mfcc, Window
from edgectl.engine.transforms.text import Tokenize
from edgectl.engine.transforms.values import Dtype, Invert, Layout, Normalize, Reshape, Scale
from edgectl.engine.transforms.wav import Audio

_T = TypeVar("_T")

Decoder = Decode | Audio | Tokenize | Row
Step = (
    Resize | Crop | Invert | Layout | Window | LogMel | Mfcc | Standardize | MinMax | Scale
    | Normalize | Dtype | Reshape
)  # fmt: skip
PreTransform = Decoder | Step
PostTransform = (
    Softmax | Sigmoid | TopK | ArgMax | Threshold | L2Normalize | ReconstructionError | Nms
)

KINDS = {"decode": "image", "audio": "audio", "tokenize": "text", "row": "row"}
"""The transforms that can come first, and what kind of encoded data each takes."""

FOR_KIND = {
    "resize": "image", "crop": "image", "invert": "image", "layout": "image",
    "window": "audio", "log_mel": "audio", "mfcc": "audio",
}  # fmt: skip
"""The steps that make sense for one kind of data alone; the others are for any numbers."""

PRE: dict[str, type[PreTransform]] = {
    "decode": Decode,
    "audio": Audio,
    "tokenize": Tokenize,
    "row": Row,
    "resize": Resize,
    "crop": Crop,
    "scale": Scale,
    "normalize": Normalize,
    "standardize": Standardize,
    "minmax": MinMax,
    "invert": Invert,
    "window": Window,
    "log_mel": LogMel,
    "mfcc": Mfcc,
    "layout": Layout,
    "dtype": Dtype,
    "reshape": Reshape,
}
POST: dict[str, type[PostTransform]] = {
    "softmax": Softmax,
    "sigmoid": Sigmoid,
    "l2_normalize": L2Normalize,
    "reconstruction_error": ReconstructionError,
    "topk": TopK,
    "argmax": ArgMax,
    "threshold": Threshold,
    "nms": Nms,
}


def canonical(declared: str | Mapping[str, Any]) -> dict[str, Any]:
    """The full form of a declaration: `softmax` is `{softmax: {}}`, and `{layout: NCHW}`, where one
    parameter is enough, `{layout: {order: NCHW}}`.

    Raises ValueError for unknown transforms and parameters, missing ones, and wrong values.
    """
    name, transform = _read(declared, {**PRE, **POST})
    return {
        name: {
            _spelled(field.name): getattr(transform, field.name)
            for field in dataclasses.fields(transform)
            if getattr(transform, field.name) != field.default
        }
    }


def read_pre(declared: str | Mapping[str, Any]) -> PreTransform:
    """The pre-processing transform that is declared; raises ValueError as `canonical` does."""
    return _read(declared, PRE)[1]


def read_post(declared: str | Mapping[str, Any]) -> PostTransform:
    """The post-processing transform that is declared; raises ValueError as `canonical` does."""
    return _read(declared, POST)[1]


def _read(declared: str | Mapping[str, Any], known: Mapping[str, type[_T]]) -> tuple[str, _T]:
    name, given = _split(declared)
    if name not in known:
        elsewhere = " (it belongs to the other end of the model)" if name in {**PRE, **POST} else ""
        raise ValueError(f"unknown transform {name!r}{elsewhere or _meant(name, known)}")
    kind = known[name]
    fields = {_spelled(field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if given is None:
        given = {}
    elif not isinstance(given, Mapping):
        if not fields:
            raise ValueError(f"transform {name!r} takes no parameters")
        given = {next(iter(fields)): given}
    for parameter in given:
        if parameter not in fields:
            raise ValueError(
                f"transform {name!r} has no parameter {parameter!r}{_meant(parameter, fields)}"
            )
    for parameter, field in fields.items():
        if field.default is dataclasses.MISSING and parameter not in given:
            raise ValueError(f"transform {name!r} needs parameter {parameter!r}")
    try:
        return name, kind(**{fields[parameter].name: value for parameter, value in given.items()})
    except ValueError as error:
        raise ValueError(f"transform {name!r}: {error}") from None


def _split(declared: Any) -> tuple[str, Any]:
    if isinstance(declared, str):
        return declared, None
    if not isinstance(declared, Mapping) or len(declared) != 1:
        raise ValueError(f"a transform is a name or a mapping with one key, not {declared!r}")
    [(name, given)] = declared.items()
    return str(name), given


def _spelled(field: str) -> str:
    """A field's name as manifests spell it: `max_pixels` is `maxPixels`."""
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _meant(name: object, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known) or 'none'}"


def name_of(declared: Any) -> str:
    """The transform's name in a declaration that was read before."""
    return str(declared if isinstance(declared, str) else next(iter(declared)))
