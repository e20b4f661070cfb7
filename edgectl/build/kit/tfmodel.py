"""TensorFlow's own formats, loaded: SavedModel directories, .keras archives and .h5 files.

Needs tensorflow. Layout is the source's own: what is NHWC stays so.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.build.kit.onnxfile import DATATYPES
from edgectl.build.kit.tfsafety import check_keras, check_saved_model
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SIGNATURE = "serving_default"
MAX_UNROLLED_STEPS = 128
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_NUMBERED = re.compile(r"output_(\d+)")


@dataclass(frozen=True, slots=True)
class Network:
    """A model as a TensorFlow function of the tensors that the manifest declares."""

    function: Callable[..., list[Any]]
    """Takes the inputs and gives the outputs, both in the order in which they are declared."""
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    form: str
    """What the source is, in words."""
    owner: Any
    """Holds the variables, which TensorFlow frees with it."""

    def signature(self, batch: int | None = None) -> list[Any]:
        """One tf.TensorSpec for each input; free dimensions stay so, the batch becomes `batch`."""
        import tensorflow as tf

        return [
            tf.TensorSpec(
                [_size(size, batch if place == 0 else None) for place, size in _places(spec)],
                DATATYPES[spec["datatype"]],
                name=f"input_{index}",
            )
            for index, spec in enumerate(self.inputs)
        ]

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name, computed by TensorFlow in batches of the declared size or 1."""
        import tensorflow as tf

        rows = len(next(iter(arrays.values())))
        size = max(1, *(spec["shape"][0] for spec in self.inputs if spec["shape"]), 1)
        parts = []
        for start in range(0, rows - rows % size, size):
            batch = [tf.constant(arrays[s["name"]][start : start + size]) for s in self.inputs]
            parts.append([np.asarray(value) for value in self.function(*batch)])
        return {
            spec["name"]: np.concatenate([np.atleast_1d(part[index]) for part in parts])
            for index, spec in enumerate(self.outputs)
        }


def _places(spec: Mapping[str, Any]) -> list[tuple[int, int]]:
    return list(enumerate(spec["shape"]))


def _size(size: int, batch: int | None) -> int | None:
    return batch if size == -1 else size


def open_model(
    path: Path,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    *,
    trust: bool,
    unroll: bool = False,
) -> Network:
    """Load a SavedModel directory, a .keras or an .h5 file, after it was found safe.

    `unroll` writes recurrent layers of up to MAX_UNROLLED_STEPS steps out, where the source still
    has layers. Refuses what is none of these (`unknown-source`), what is unsafe (see `tfsafety`),
    does not load, or is not what the manifest declares (`signature-differs`).
    """
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise _unknown(f"the directory {path.name} has no saved_model.pb")
        check_saved_model(path, trust=trust)
        return _open_saved_model(path, inputs, outputs)
    if zipfile.is_zipfile(path) or path.open("rb").read(8) == _HDF5_MAGIC:
        check_keras(path, trust=trust)
        return _open_keras(path, inputs, outputs, trust=trust, unroll=unroll)
    raise _unknown(f"{path.name} is neither a Keras archive nor an HDF5 file")


def _unknown(what: str) -> RefusalError:
    return RefusalError(
        "unknown-source",
        what,
        hint="format tensorflow is a SavedModel directory, a .keras file or an .h5 file with the "
        "whole model; for a .tflite file set source.format: tflite",
    )


def _open_saved_model(
    path: Path, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> Network:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise RefusalError(
            "does-not-load",
            f"TensorFlow {tf.__version__} does not load the SavedModel: {first_line(error)}",
            hint="save it again: tf.saved_model.save, or model.export of Keras",
        ) from error
    names = sorted(loaded.signatures)
    if SIGNATURE not in names:
        raise RefusalError(
            "no-signature",
            f"the SavedModel has no signature {SIGNATURE!r}; it has {listed(names)}",
            hint=f"save it with signatures={{{SIGNATURE!r}: function}}",
        )
    called = loaded.signatures[SIGNATURE]
    takes = called.structured_input_signature[1]
    gives = called.structured_outputs
    keys = pair(inputs, {name: _described(spec) for name, spec in takes.items()}, "inputs")
    results = pair(outputs, {name: _described(spec) for name, spec in gives.items()}, "outputs")

    def function(*tensors: Any) -> list[Any]:
        found = called(**dict(zip(keys, tensors, strict=True)))
        return [found[name] for name in results]

    return Network(function, tuple(inputs), tuple(outputs), "SavedModel", loaded)


def _open_keras(
    path: Path,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    *,
    trust: bool,
    unroll: bool,
) -> Network:
    import keras

    try:
        with path.open("rb") as file:  # Keras goes by the extension, which a stored file may lack
            archive = file.read(2) == b"PK"
        named = _named(path, ".keras" if archive else ".h5")
        model = keras.saving.load_model(named, compile=False, safe_mode=not trust)
    except RefusalError:
        raise
    except Exception as error:
        raise RefusalError(
            "does-not-load",
            f"Keras {keras.__version__} does not load the model: {first_line(error)}",
            hint="save it again with Keras 3 as .keras, or export a SavedModel (model.export)",
        ) from error
    if not getattr(model, "inputs", None):
        raise RefusalError(
            "does-not-load",
            "the Keras model has never been built: its inputs are not known",
            hint="call the model on a sample before model.save, or give it an Input layer",
        )
    if unroll:
        _unroll(model)
    takes = {tensor.name: _described(tensor) for tensor in model.inputs}
    gives = dict(zip(_output_names(model), map(_described, model.outputs), strict=True))
    order = [list(takes).index(name) for name in pair(inputs, takes, "inputs")]
    results = [list(gives).index(name) for name in pair(outputs, gives, "outputs")]

    def function(*tensors: Any) -> list[Any]:
        given = dict(zip(order, tensors, strict=True))
        ordered = [given[index] for index in range(len(given))]
        found = keras.tree.flatten(model(model_inputs(ordered), training=False))
        return [found[index] for index in results]

    def model_inputs(ordered: list[Any]) -> Any:
        return ordered[0] if len(ordered) == 1 else ordered

    return Network(function, tuple(inputs), tuple(outputs), f"Keras {path.suffix}", model)


def _output_names(model: Any) -> list[str]:
    names = getattr(model, "output_names", None)
    if names is None:  # a Sequential model has outputs, and names for layers alone
        numbered = [f"output_{index}" for index in range(len(model.outputs))]
        names = numbered if len(numbered) > 1 else [model.layers[-1].name]
    return list(names)


def _named(path: Path, suffix: str) -> Path:
    if path.suffix == suffix:
        return path
    import tempfile
    from pathlib import Path

    link = Path(tempfile.mkdtemp()) / f"model{suffix}"
    link.symlink_to(path.resolve())
    return link


def _unroll(model: Any) -> None:
    """Recurrent layers as plain operators: a TFLite loop is never quantised.

    A layer of more steps, or of an open number of steps, keeps its loop.
    """
    import keras

    for layer in model._flatten_layers(include_self=False, recursive=True):  # noqa: SLF001
        if isinstance(layer, keras.layers.RNN):
            steps = layer.input.shape[1] if hasattr(layer, "_inbound_nodes") else None
            if steps is not None and steps <= MAX_UNROLLED_STEPS:
                layer.unroll = True


def _described(tensor: Any) -> tuple[str, list[int]]:
    """Datatype and shape of a TensorSpec or a Keras tensor, -1 for what is open."""
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    shape = tensor.shape
    dims = list(shape) if getattr(shape, "rank", len(shape or ())) is not None else []
    return dtype, [-1 if size is None else int(size) for size in dims]


def pair(
    declared: Sequence[Mapping[str, Any]],
    found: Mapping[str, tuple[str, Sequence[int]]],
    what: str,
) -> list[str]:
    """The model's name for each declared tensor, in the order declared.

    By name; where the names differ, a single tensor and Keras' `output_0, output_1, …` go by
    position. Refuses other names, and datatypes and shapes that contradict (`signature-differs`).
    """
    names = list(found)
    wanted = [spec["name"] for spec in declared]
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if sorted(names) == sorted(wanted):
        paired = wanted
    elif len(names) == len(wanted) and (len(names) == 1 or all(numbered)):
        paired = sorted(names, key=lambda name: int(name.rpartition("_")[2]) if numbered[0] else 0)
    else:
        raise RefusalError(
            "signature-differs",
            f"the model's {what} are {listed(names)}, the manifest declares {listed(wanted)}",
            hint=f"name the entries of spec.{what} as the model does",
        )
    for spec, name in zip(declared, paired, strict=True):
        _check_tensor(spec, name, *found[name], what)
    return paired


def _check_tensor(
    spec: Mapping[str, Any], name: str, dtype: str, shape: Sequence[int], what: str
) -> None:
    fits = not shape or (
        len(shape) == len(spec["shape"])
        and all(have in (-1, want) for have, want in zip(shape, spec["shape"], strict=True))
    )
    # An output's shape may be open in the model in places where the manifest knows better, and
    # known in the model where it follows from a batch that the manifest leaves open.
    if what == "outputs" and shape and len(shape) == len(spec["shape"]):
        fits = all(
            -1 in (have, want) or have == want
            for have, want in zip(shape, spec["shape"], strict=True)
        )
    if dtype != DATATYPES.get(spec["datatype"]) or not fits:
        raise RefusalError(
            "signature-differs",
            f"{name!r} is {dtype} {list(shape)} in the model, "
            f"{spec['datatype']} {list(spec['shape'])} in the manifest",
            node=name,
            hint=f"correct spec.{what} of the Model; -1 is a free dimension, which the model must "
            "be exported with",
        )
