"""What TensorFlow and Keras files may hold before anything loads them. Needs tensorflow and h5py.

A SavedModel is a program: its operators can read and write files and call Python. A Keras file
names classes and functions that are imported to make it. Both are read here as plain data, and
refused for what no inference needs; a manifest's `trustCode: true` takes the responsibility.
"""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from edgectl.build.kit.archive import check_tree, check_zip
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAX_GRAPH_BYTES = 2 << 30
"""Of saved_model.pb; protobuf reads no larger message."""
MAX_CONFIG_BYTES = 64 << 20
MAX_WEIGHT_BYTES = (2 << 30) - 1
"""Of all arrays: neither an ONNX file nor a .tflite holds more, so no more is ever loaded."""

STATEFUL = frozenset({
    "Assert", "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "Case",
    "DisableCopyOnRead", "HashTableV2", "If", "InitializeTableV2", "LookupTableExportV2",
    "LookupTableFindV2", "LookupTableImportV2", "LookupTableSizeV2", "MutableHashTableV2",
    "Multinomial", "Placeholder", "RandomStandardNormal", "RandomUniform", "RandomUniformInt",
    "ReadVariableOp", "ResourceGather", "StatefulPartitionedCall", "TruncatedNormal",
    "VarHandleOp", "VarIsInitializedOp", "VariableShape", "While",
})  # fmt: skip
"""Operators with state that inference and the restoring of variables need. TensorFlow marks what
has side effects as stateful, so any other is refused."""

OUTWARD = re.compile(
    r"File|^Py|^EagerPy|Debug|Dataset|Snapshot|Vocab|ImmutableConst|Remote|Rpc|Reader|Sharded"
    r"|Restore|Save|Checkpoint"
)
"""Names of operators that reach outside the graph, some of which TensorFlow calls stateless
(`ReadFile` and `PyFuncStateless` are)."""

UNSAFE_LAYERS = {
    "Lambda": "holds Python code",
    "__lambda__": "holds Python code",
    "TFSMLayer": "loads another SavedModel",
    "TorchModuleWrapper": "holds a pickle",
    "JaxLayer": "holds Python code",
    "FlaxLayer": "holds Python code",
    "TextVectorization": "can read a file of this machine as its vocabulary",
    "StringLookup": "can read a file of this machine as its vocabulary",
    "IntegerLookup": "can read a file of this machine as its vocabulary",
}
SAFE_MODULES = re.compile(
    r"keras(\.(src\.)?(activations|constraints|dtype_policies|initializers|layers|losses|metrics"
    r"|models|ops|optimizers|regularizers)(\.\w+)*|\.src)?"
)
"""Of Keras: what makes a network. Not keras.utils and keras.saving, which fetch and open files."""


def check_saved_model(directory: Path, *, trust: bool) -> None:
    """Refuse a SavedModel whose graph does more than compute (`unsafe-operator`), unless trusted.

    Checked is what loading or calling can run: every node and function but those that only the
    saver of the directory itself reaches, which is never called. Refuses what is no SavedModel of
    TensorFlow 2 (`does-not-load`).
    """
    files = check_tree(directory)
    held = [path for name, path in files.items() if name.startswith("variables/variables.data-")]
    _check_weights(directory.name, sum(path.stat().st_size for path in held))
    graph = _read_meta_graph(directory / "saved_model.pb")
    if trust:
        return
    for place, node in _executable(graph):
        _check_operator(
            place, node.op, {f.signature.name for f in graph.graph_def.library.function}
        )


def _read_meta_graph(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        if path.stat().st_size > MAX_GRAPH_BYTES:
            raise ValueError(f"larger than {MAX_GRAPH_BYTES} bytes")
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except Exception as error:  # DecodeError has no public base
        raise RefusalError(
            "does-not-load",
            f"{path.name} is no readable SavedModel: {first_line(error)}",
            hint="save it again: tf.saved_model.save, or model.export of Keras",
        ) from error
    graphs = [meta for meta in saved.meta_graphs if "serve" in meta.meta_info_def.tags]
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:
        raise RefusalError(
            "does-not-load",
            f"{path.name} has {len(graphs)} graphs tagged 'serve' and "
            f"{'an' if graphs and graphs[0].object_graph_def.nodes else 'no'} object graph: it was "
            "not saved by TensorFlow 2",
            hint="load it in TensorFlow 2 and save it with tf.saved_model.save",
        )
    return graphs[0]


def _executable(graph: Any) -> Iterator[tuple[str, Any]]:
    """Every node that loading or serving can run, with the name of where it stands."""
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    saver = {
        name.split(":")[0]
        for name in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    }
    top = [node for node in graph.graph_def.node if node.name not in saver]
    waiting = set(graph.object_graph_def.concrete_functions)
    for node in top:
        yield node.name, node
        waiting |= set(_called(node))
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield f"{name}/{node.name}", node
            waiting |= set(_called(node))


def _called(node: Any) -> Iterator[str]:
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _check_operator(place: str, operator: str, functions: set[str]) -> None:
    from tensorflow.python.framework import op_def_registry

    if operator in functions:
        return
    known = op_def_registry.get(operator)
    if known is None:
        raise RefusalError(
            "custom-operator",
            f"operator {operator} (node {place!r}) is not one of TensorFlow's own",
            node=place,
            hint="express it by TensorFlow's operators and save the model again",
        )
    if operator in STATEFUL or operator == "NoOp":
        return
    if known.is_stateful or OUTWARD.search(operator):
        raise RefusalError(
            "unsafe-operator",
            f"operator {operator} (node {place!r}) can act outside the model: files, Python or "
            "the network; loading the model could run it",
            node=place,
            hint="save the model without it; if you trust the file as you trust a program, set "
            "source.trustCode: true",
        )


def check_keras(path: Path, *, trust: bool) -> None:
    """Refuse a .keras or .h5 file that names code beside Keras' own layers, unless trusted.

    Archives and arrays are bounded, and HDF5 links to other files refused, trusted or not.
    """
    config = _read_archive(path) if zipfile.is_zipfile(path) else _read_h5(path)
    if not trust:
        for entry in _objects(config):
            _check_object(entry)


def _read_archive(path: Path) -> Any:
    import io

    entries = {entry.filename: entry for entry in check_zip(path)}
    if "config.json" not in entries or "model.weights.h5" not in entries:
        raise _does_not_load(path, "it has no config.json and model.weights.h5")
    if entries["config.json"].file_size > MAX_CONFIG_BYTES:
        raise _does_not_load(path, f"its config.json is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = io.BytesIO(archive.read("model.weights.h5"))
    except (ValueError, OSError, zipfile.BadZipFile, RecursionError) as error:
        raise _does_not_load(path, first_line(error)) from error
    _check_h5(path, weights)
    return config


def _read_h5(path: Path) -> Any:
    text = _check_h5(path, path)
    if text is None:
        raise _does_not_load(path, "it holds weights without a model")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _does_not_load(path, first_line(error)) from error


def _check_h5(path: Path, file: Any) -> str | bytes | None:
    """Walk an HDF5 file; its `model_config`, if it has one."""
    import h5py

    try:
        with h5py.File(file, "r") as data:
            total = sum(_array_sizes(path, data))
            config = data.attrs.get("model_config")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _does_not_load(path, first_line(error)) from error
    _check_weights(path.name, total)
    return config if isinstance(config, str | bytes) else None


def _check_weights(name: str, size: int) -> None:
    if size > MAX_WEIGHT_BYTES:
        raise RefusalError(
            "too-large",
            f"the weights of {name} are {size} bytes, one ONNX or .tflite file holds "
            f"{MAX_WEIGHT_BYTES}",
            hint="split the model, or save its weights in float16",
        )


def _array_sizes(path: Path, group: Any, prefix: str = "") -> Iterator[int]:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _escapes(path, f"{prefix}/{name}", "a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _array_sizes(path, item, f"{prefix}/{name}")
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise _escapes(path, f"{prefix}/{name}", "data in another file")
            yield item.nbytes


def _escapes(path: Path, name: str, what: str) -> RefusalError:
    return RefusalError(
        "archive-escapes",
        f"{path.name}: {name} is {what}, and could be any file of this machine",
        node=name,
        hint="save the model again with model.save('model.keras')",
    )


def _does_not_load(path: Path, why: str) -> RefusalError:
    return RefusalError(
        "does-not-load",
        f"{path.name} is no readable Keras model: {why}",
        hint="save it again with model.save('model.keras')",
    )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict that names a class, wherever it is nested."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_object(entry: dict[str, Any]) -> None:
    name, module = str(entry["class_name"]), entry.get("module")
    inner = entry.get("config")
    label = str(inner.get("name", name)) if isinstance(inner, dict) else name
    if name in UNSAFE_LAYERS:
        raise _unsafe_layer(label, f"a {name} layer, which {UNSAFE_LAYERS[name]}")
    if name == "function":
        if module in {None, "builtins"} and str(inner) in _activations():
            return
        raise _unsafe_layer(str(inner), f"a function of module {module}")
    if module in {None, "builtins"}:  # Keras 2, and markers such as __tuple__
        if entry.get("registered_name") not in {None, name}:
            raise _unsafe_layer(label, f"a {entry['registered_name']}, which is not Keras' own")
    elif not SAFE_MODULES.fullmatch(str(module)):
        raise _unsafe_layer(label, f"a {name} of module {module}")


def _activations() -> Iterable[str]:
    from keras import activations

    return set(dir(activations))


def _unsafe_layer(label: str, what: str) -> RefusalError:
    return RefusalError(
        "unsafe-layer",
        f"{label!r} is {what}: making it would run code that came with the file",
        node=label,
        hint="build the model of Keras' own layers; if you trust the file as you trust a program, "
        "set source.trustCode: true",
    )
