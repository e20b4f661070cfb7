"""An OpenVINO IR from outside: a topology in XML beside its weights, checked before OpenVINO reads.

The checks need nothing but the standard library: no document type (no entities to expand), a
bounded size, depth and number of layers, and every constant inside the weights file.
"""

from __future__ import annotations

import math
import xml.parsers.expat
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov

from edgectl.build.kit.archive import check_tree
from edgectl.build.kit.onnxfile import is_usable
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError
from edgectl.engine.openvino import cause
from quantizing import constants

if TYPE_CHECKING:
    from pathlib import Path

MAX_XML_BYTES = 256 << 20
MAX_BIN_BYTES = 16 << 30
MAX_DEPTH = 200
MAX_ELEMENTS = 20_000_000
VERSIONS = ("10", "11")
"""Of the IR: what OpenVINO 2022 to 2026 write and read."""

_BITS = {
    "boolean": 8, "f16": 16, "bf16": 16, "f32": 32, "f64": 64,
    "i4": 4, "i8": 8, "i16": 16, "i32": 32, "i64": 64,
    "u1": 1, "u4": 4, "u8": 8, "u16": 16, "u32": 32, "u64": 64,
}  # fmt: skip
"""Element types whose size is known; others (text, packed odd bits) are held to the file alone."""


def read(source: Path) -> ov.Model:
    """The model of an IR: a directory with one .xml and its .bin, or the .xml of one without
    weights. Refuses what is malformed, keeps state between requests, or has weights that are not
    finite."""
    topology, weights = find_files(source)
    check(topology, weights)
    try:
        model = ov.Core().read_model(topology, *([weights] if weights else []))
    except RuntimeError as error:
        raise _malformed(topology.name, cause(error)) from error
    if model.get_variables():
        raise RefusalError(
            "stateful-model",
            "the model keeps state from one request to the next, which a server of single "
            "requests would mix",
            node=model.get_variables()[0].info.variable_id,
            hint="convert the model again with its state as inputs and outputs (stateful=False)",
        )
    _check_weights(model)
    return model


def find_files(source: Path) -> tuple[Path, Path | None]:
    """The topology and the weights; None for an IR without."""
    if not source.is_dir():
        return source, None
    files = check_tree(source, max_bytes=MAX_XML_BYTES + MAX_BIN_BYTES)
    topologies = [name for name in files if name.endswith(".xml")]
    weights = [name for name in files if name.endswith(".bin")]
    if len(topologies) != 1 or len(weights) > 1:
        raise RefusalError(
            "not-an-ir",
            f"an IR is one .xml and one .bin; the directory has {listed(topologies + weights)}",
            hint="point source.path at a directory that holds model.xml and model.bin alone",
        )
    return files[topologies[0]], files[weights[0]] if weights else None


def check(topology: Path, weights: Path | None) -> None:
    """Refuse a topology that is not plain, bounded XML, or that reaches outside its weights."""
    if topology.stat().st_size > MAX_XML_BYTES:
        raise _malformed(topology.name, f"larger than {MAX_XML_BYTES} bytes")
    reader = _Reader(topology.name, weights.stat().st_size if weights else 0)
    parser = xml.parsers.expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        with topology.open("rb") as file:
            parser.ParseFile(file)
    except xml.parsers.expat.ExpatError as error:
        raise _malformed(topology.name, first_line(error)) from error


class _Reader:
    """What a pass over the topology checks, layer by layer."""

    def __init__(self, file: str, weights: int) -> None:
        self._file = file
        self._weights = weights
        self._depth = 0
        self._elements = 0
        self._layers: list[tuple[str, str]] = []
        """Name and type of the layers around this place: bodies of loops lie in layers."""

    def doctype(self, *_: object) -> None:
        raise _malformed(self._file, "it declares a document type, which an IR never does")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise _malformed(self._file, "it is nested too deep, or has too many elements")
        if self._depth == 1:
            self._check_root(tag, attributes)
        if tag == "layer":
            self._layers.append((attributes.get("name", "?"), attributes.get("type", "?")))
        elif tag == "data" and self._layers and self._layers[-1][1] == "Const":
            self._check_constant(self._layers[-1][0], attributes)

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "layer":
            self._layers.pop()

    def _check_root(self, tag: str, attributes: dict[str, str]) -> None:
        if tag != "net":
            raise _malformed(self._file, f"its root is <{tag}>, not <net>")
        if attributes.get("version") not in VERSIONS:
            raise RefusalError(
                "ir-version",
                f"{self._file} is an IR of version {attributes.get('version')}; OpenVINO "
                f"{ov.__version__.split('-')[0]} reads {' and '.join(VERSIONS)}",
                hint="convert the original model again with OpenVINO 2022 or later",
            )

    def _check_constant(self, name: str, attributes: dict[str, str]) -> None:
        try:
            offset, size = int(attributes["offset"]), int(attributes["size"])
            shape = [int(n) for n in attributes.get("shape", "").split(",") if n.strip()]
        except (KeyError, ValueError) as error:
            raise _malformed(self._file, f"constant {name!r} has no place", node=name) from error
        if offset < 0 or size < 0 or offset + size > self._weights:
            raise RefusalError(
                "weights-cut-short",
                f"constant {name!r} lies at bytes {offset} to {offset + size} of the weights, "
                f"which are {self._weights} bytes",
                node=name,
                hint="point source.path at a directory with this .xml and the .bin that belongs to "
                "it, whole",
            )
        bits = _BITS.get(attributes.get("element_type", ""))
        if bits is not None and (
            min(shape, default=0) < 0 or size != math.ceil(math.prod(shape) * bits / 8)
        ):
            raise _malformed(
                self._file,
                f"constant {name!r} of shape {shape} {attributes['element_type']} cannot be "
                f"{size} bytes",
                node=name,
            )


def _check_weights(model: ov.Model) -> None:
    for node in constants(model):
        values = node.get_data() if node.get_element_type().is_real() else None
        if values is None or is_usable(values.astype(np.float32)):
            continue
        raise RefusalError(
            "weights-not-finite",
            "weights hold NaN or infinite values",
            node=node.get_friendly_name(),
            hint="the training diverged: train again and export a healthy checkpoint",
        )


def _malformed(file: str, why: str, node: str | None = None) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"{file} is not a readable OpenVINO IR: {why}",
        node=node,
        hint="save it again with openvino.save_model",
    )
