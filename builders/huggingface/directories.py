"""A Hugging Face directory, checked before transformers sees any of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from edgectl.build.kit.archive import check_tree
from edgectl.build.kit.wording import first_line, listed
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILES = 1_000
MAX_BYTES = 8 << 30
MAX_JSON_BYTES = 16 << 20
MAX_TENSORS = 100_000
MAX_LAYERS = 512
MAX_SIZE = 1 << 24
"""Of any number in config.json: a vocabulary is smaller, and memory is taken for what it says."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose files are within bounds and whose weights are whole."""

    files: Mapping[str, Path]
    config: Mapping[str, Any]
    weights: tuple[str, ...]
    """The safetensors files, and the index where there are several."""
    code: tuple[str, ...]
    """Python files, of a trusted directory alone."""

    @property
    def architecture(self) -> str:
        """The class that config.json names."""
        return str(self.config["architectures"][0])

    def json(self, name: str) -> dict[str, Any]:
        """An object of a JSON file, {} if there is no such file."""
        return _json(self.files[name], name) if name in self.files else {}

    def copy_to(self, room: Path) -> Path:
        """Put what was checked, and nothing else, into an empty directory, which is returned."""
        for name in ("config.json", *self.weights, *self.code):
            target = room / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                target.symlink_to(self.files[name].absolute())
            else:
                shutil.copyfile(self.files[name], target)
        return room


def read(path: Path, *, trusted: bool) -> Directory:
    """Check a directory; refuses one without config or safetensors, or with hostile sizes."""
    if not path.is_dir():
        raise RefusalError(
            "not-a-directory",
            f"{path.name} is no directory",
            hint="point source.path at the directory that save_pretrained wrote",
        )
    files = check_tree(path, max_files=MAX_FILES, max_bytes=MAX_BYTES)
    if "config.json" not in files:
        raise RefusalError(
            "no-config",
            f"the directory has no config.json; it has {listed(list(files)[:10])}",
            hint="point source.path at the directory that save_pretrained wrote",
        )
    config = _json(files["config.json"], "config.json")
    _check_config(config)
    weights = _weights(files)
    for name in weights:
        if name != INDEX:
            check_safetensors(files[name], name)
    code = tuple(name for name in files if name.endswith(".py")) if trusted else ()
    return Directory(files, config, weights, code)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"larger than {MAX_JSON_BYTES} bytes")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusalError(
            "does-not-load",
            f"{name} is not readable: {first_line(error)}",
            node=name,
            hint="save the model again with save_pretrained",
        ) from error
    return value


def _check_config(config: Mapping[str, Any]) -> None:
    names = config.get("architectures")
    if not (isinstance(names, list) and len(names) == 1 and isinstance(names[0], str)):
        raise RefusalError(
            "no-architecture",
            f"config.json names {names!r} in `architectures`, not one class",
            node="architectures",
            hint="save the model with save_pretrained, from the class that it is used by",
        )
    if "quantization_config" in config:
        raise RefusalError(
            "already-quantised",
            "the weights are quantised by a library of their own",
            node="quantization_config",
            hint="give the float model: edgectl quantises it for each target",
        )
    _check_numbers(config, "config.json")


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, where)
    elif isinstance(value, int) and not isinstance(value, bool):
        most = MAX_LAYERS if "layer" in where or "depth" in where else MAX_SIZE
        if abs(value) > most:
            raise RefusalError(
                "config-out-of-range",
                f"config.json: {where} is {value}, more than {most}",
                node=where,
                hint="no model for an edge device is of this size: correct config.json",
            )


def _weights(files: Mapping[str, Path]) -> tuple[str, ...]:
    if WEIGHTS in files:
        return (WEIGHTS,)
    if INDEX in files:
        return (*_shards(files), INDEX)
    pickles = [name for name in files if name.endswith(_PICKLES)]
    if pickles:
        raise RefusalError(
            "pickle",
            f"the weights are in {listed(pickles)}: loading a pickle runs the code in it",
            node=pickles[0],
            hint="convert them where the model was trained: "
            "AutoModel.from_pretrained(path).save_pretrained(path) writes model.safetensors",
        )
    raise RefusalError(
        "no-weights",
        f"the directory has no {WEIGHTS}",
        node=WEIGHTS,
        hint="save the model with save_pretrained",
    )


def _shards(files: Mapping[str, Path]) -> list[str]:
    index = _json(files[INDEX], INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise _bad_weights(INDEX, "it has no weight_map of names to files")
    shards = sorted(set(index.values()))
    for name in shards:
        # A name of the listing: neither a path that leads outside nor a pickle.
        if name not in files or not name.endswith(".safetensors"):
            raise _bad_weights(INDEX, f"it names {name!r}, which the directory does not have")
    return shards


def check_safetensors(path: Path, name: str) -> None:
    """Refuse a file whose header is damaged, hostile, or of types that are no weights."""
    try:
        with safe_open(path, framework="np") as file:
            keys = file.keys()
            if len(keys) > MAX_TENSORS:
                raise ValueError(f"{len(keys)} tensors, more than {MAX_TENSORS}")
            types = {key: file.get_slice(key).get_dtype() for key in keys}
    except (SafetensorError, OSError, ValueError) as error:
        raise _bad_weights(name, first_line(error)) from error
    for key, dtype in types.items():
        if dtype not in _DTYPES:
            raise RefusalError(
                "unsupported-datatype",
                f"{name}: {key!r} is {dtype}",
                node=key,
                hint="save the model in float32, float16 or bfloat16",
            )


def _bad_weights(name: str, why: str) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"{name} is not readable: {why}",
        node=name,
        hint="is the file whole? else save the model again with save_pretrained",
    )
