"""The data of a `Model` held against its inputs and outputs, by the headers of the arrays alone.

What builders and engines would refuse an import, an optimisation and minutes later is told here,
at the line that names the file.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from edgectl.manifest.npz import read_headers
from edgectl.manifest.problem import ManifestErrors, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from edgectl.manifest.model import Input, Model, Tensor
    from edgectl.manifest.npz import ArrayHeader
    from edgectl.manifest.problem import Problem

    Arrays = Mapping[str, ArrayHeader]


class _Wrong(NamedTuple):
    """What is wrong with a data set, and what to do instead."""

    message: str
    suggestion: str | None


def check_data(models: Iterable[Model]) -> None:
    """Raises ManifestErrors with all of `data_problems`."""
    problems = tuple(data_problems(models))
    if problems:
        raise ManifestErrors(problems)


def data_problems(models: Iterable[Model]) -> Iterator[Problem]:
    """Data sets that are none, lack an array, or have one of another datatype or shape than the
    model declares. Files that are not there are `edgectl.manifest.files`' to tell."""
    headers = functools.cache(read_headers)  # versions of a model often share their data
    for model in models:
        if any(model.place.is_guess(("spec", side)) for side in ("inputs", "outputs")):
            continue
        for section in ("calibration", "evaluation", "golden"):
            data = getattr(model.spec, section)
            if data is None or not (path := model.path(data.path)).is_file():
                continue
            for wrong in _problems(model, section, path, headers):
                yield model.place.problem(("spec", section, "path"), *wrong)


def _problems(
    model: Model, section: str, path: Path, headers: Callable[[Path], Arrays]
) -> Iterator[_Wrong]:
    try:
        arrays = headers(path)
    except OSError as error:
        yield _Wrong(f"{path} cannot be read: {error.strerror or error}", None)
        return
    except ValueError as error:
        yield _Wrong(f"{path} is not a usable .npz file: {error}", "write it with numpy.savez")
        return
    found = [*_inputs(model.spec.inputs, arrays, path)]
    if section == "evaluation":
        found += _labels(model, arrays, path)
    elif section == "golden":
        found += _outputs(model, arrays, path)
    yield from found


def _inputs(inputs: tuple[Input, ...], arrays: Arrays, path: Path) -> Iterator[_Wrong]:
    fitting = True
    for number, tensor in enumerate(inputs):
        array = arrays.get(tensor.name)
        if array is None:
            fitting = False
            near = closest(tensor.name, arrays)
            yield _Wrong(
                f"{path} has no array {tensor.name!r} for spec.inputs[{number}]; it has "
                f"{_listed(arrays)}",
                f"write {tensor.name!r} for {near!r} in the data, or correct the name of the input"
                if near
                else "give it one array for each input, called as the input is",
            )
        elif not _fits(array, tensor, batch=True):
            fitting = False
            yield _Wrong(
                f"{path}: array {tensor.name!r} is {array.datatype} {list(array.shape)}, "
                f"spec.inputs[{number}] declares {tensor.datatype} {list(tensor.shape)}",
                "make the data so, or correct the input if the model takes what the data has",
            )
    if fitting:
        yield from _rows(inputs, arrays, path)


def _rows(inputs: tuple[Input, ...], arrays: Arrays, path: Path) -> Iterator[_Wrong]:
    counts = {tensor.name: (arrays[tensor.name].shape or (0,))[0] for tensor in inputs}
    fixed = max((tensor.shape[0] for tensor in inputs if tensor.shape), default=-1)
    rows = min(counts.values())
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        yield _Wrong(f"{path} has another number of rows for each input: {each}", None)
    elif rows == 0:
        yield _Wrong(f"{path} has no rows", None)
    elif fixed > 0 and rows % fixed:
        yield _Wrong(
            f"{path} has {rows} rows, which do not fill batches of the {fixed} that the inputs fix",
            f"leave out {rows % fixed} rows or add {fixed - rows % fixed}",
        )


def _labels(model: Model, arrays: Arrays, path: Path) -> Iterator[_Wrong]:
    evaluation = model.spec.evaluation
    if evaluation is None:
        return
    labels = arrays.get(evaluation.labels)
    first = arrays.get(model.spec.inputs[0].name)
    if labels is None:
        yield _Wrong(
            f"{path} has no array of labels {evaluation.labels!r}; it has {_listed(arrays)}",
            "name the array of labels by spec.evaluation.labels",
        )
    elif first is not None and labels.shape[:1] != first.shape[:1]:
        yield _Wrong(
            f"{path} has labels of shape {list(labels.shape)} for inputs of shape "
            f"{list(first.shape)}",
            "give one label for each row",
        )


def _outputs(model: Model, arrays: Arrays, path: Path) -> Iterator[_Wrong]:
    outputs = {tensor.name: (n, tensor) for n, tensor in enumerate(model.spec.outputs)}
    inputs = {tensor.name for tensor in model.spec.inputs}
    expected = [name for name in arrays if name not in inputs]
    if not inputs <= arrays.keys():
        return  # what is no output can be the input that is missing
    if not expected:
        yield _Wrong(
            f"{path} has no expected outputs",
            f"add what the model gives for its inputs, as {_listed(outputs)}",
        )
    for name in expected:
        if name not in outputs:
            near = closest(name, outputs)
            hint = f"did you mean {near!r}?" if near else f"the outputs are {_listed(outputs)}"
            yield _Wrong(f"{path}: array {name!r} is neither an input nor an output", hint)
            continue
        number, tensor = outputs[name]
        if not _fits(arrays[name], tensor, batch=False):
            yield _Wrong(
                f"{path}: array {name!r} has shape {list(arrays[name].shape)}, "
                f"spec.outputs[{number}] declares {list(tensor.shape)}",
                "make the data so, or correct the output if the model gives what the data has",
            )


def _fits(array: ArrayHeader, tensor: Tensor, *, batch: bool) -> bool:
    """Whether an array of any number of rows is what a tensor declares; with `batch`, of its
    datatype too: outputs are compared as numbers."""
    if batch and array.datatype != tensor.datatype:
        return False
    if len(array.shape) != len(tensor.shape):
        return False
    sizes = zip(array.shape[1:], tensor.shape[1:], strict=True)
    return all(declared in (-1, size) for size, declared in sizes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
