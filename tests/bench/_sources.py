"""The frameworks that models come from, as sessions: what a recipe's variants are held against.

Each is used as its documentation says to serve with it, on one thread. A framework is imported by
name where it is needed: each lives in the environment of its own toolchain.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgectl.engine.signature import TensorSpec

    Function = Callable[[list[NDArray[Any]]], Any]
    """Input arrays in the order of the manifest to output tensors in any nesting."""

TOOLCHAINS = {
    "onnx": "onnx", "pytorch": "pytorch", "tensorflow": "tensorflow", "tflite": "litert",
    "openvino": "openvino", "sklearn": "sklearn", "xgboost": "xgboost",
    "huggingface": "huggingface",
}  # fmt: skip
"""Source format to the builder in whose environment its framework is."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model in its own framework; satisfies `edgectl.engine.session.Session`."""

    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: Function
    providers: tuple[str, ...] = ("cpu",)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Infer; outputs get the declared names by position."""
        results = [
            np.asarray(each) for each in flat(self.function([inputs[s.name] for s in self.inputs]))
        ]
        return {
            spec.name: result.reshape(len(result), *spec.shape[1:])
            for spec, result in zip(self.outputs, results, strict=True)
        }

    def close(self) -> None:
        """Nothing to free: the process ends."""


def load_source(
    path: Path, form: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Source:
    """The model in its framework; `form` is a manifest's source format, or `onnx`."""
    engine, function = _LOADERS[form](path)
    return Source(engine, tuple(inputs), tuple(outputs), function)


def flat(outputs: Any) -> Iterator[Any]:
    """The tensors of what a model returned, whatever they are wrapped in."""
    if isinstance(outputs, dict):
        outputs = tuple(outputs.values())
    if isinstance(outputs, list | tuple):
        for each in outputs:
            yield from flat(each)
    else:
        yield outputs


def _onnx(path: Path) -> tuple[str, Function]:
    """ONNX Runtime as it comes, but for the one thread."""
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return f"ONNX Runtime {ort.__version__}", lambda arrays: session.run(
        None, dict(zip(names, arrays, strict=True))
    )


def _torch(path: Path) -> tuple[str, Function]:
    """A program as eager operators, TorchScript frozen with its convolutions fused."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
    else:
        module = torch.jit.optimize_for_inference(torch.jit.load(path).eval())
    return f"PyTorch {torch.__version__.partition('+')[0]}", _without_gradients(torch, module)


def _without_gradients(torch: Any, module: Any) -> Function:
    def function(arrays: list[NDArray[Any]]) -> Any:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, arrays))

    return function


def _transformers(path: Path) -> tuple[str, Function]:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.set_num_threads(1)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    model = getattr(transformers, config["architectures"][0]).from_pretrained(path).eval()

    def forward(tensor: Any) -> Any:
        if model.main_input_name != "input_ids":
            return model(tensor)[0]
        return model(tensor, attention_mask=(tensor != config["pad_token_id"]).long())[0]

    return f"transformers {transformers.__version__}", _without_gradients(torch, forward)


def _keras(path: Path) -> tuple[str, Function]:
    tf: Any = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    function = tf.function(tf.keras.models.load_model(path), reduce_retracing=True)
    return f"TensorFlow {tf.__version__}", lambda arrays: function(
        *map(tf.constant, arrays), training=False
    )


def _tflite(path: Path) -> tuple[str, Function]:
    """LiteRT with XNNPACK, its default; batches row by row, as most files are of one row."""
    litert: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs = [each["index"] for each in interpreter.get_input_details()]
    outputs = [each["index"] for each in interpreter.get_output_details()]

    def one(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    def function(arrays: list[NDArray[Any]]) -> Any:
        if len(arrays[0]) == 1:
            return one(arrays)
        rows = [one([array[i : i + 1] for array in arrays]) for i in range(len(arrays[0]))]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    return "LiteRT", function


def _openvino(path: Path) -> tuple[str, Function]:
    """As it comes: on a CPU that has bf16, OpenVINO computes in it."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report
    openvino: Any = importlib.import_module("openvino")
    (file,) = path.glob("*.xml")
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(file, "CPU", properties)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    request = compiled.create_infer_request()
    version = openvino.__version__.partition("-")[0]
    return f"OpenVINO {version}, in {precision}", lambda arrays: list(
        request.infer(dict(enumerate(arrays)), share_inputs=True).values()
    )


def _sklearn(path: Path) -> tuple[str, Function]:
    sklearn: Any = importlib.import_module("sklearn")
    skops: Any = importlib.import_module("skops.io")
    # The recipes are this repository's own: whatever types they name are trusted.
    estimator = skops.load(path, trusted=skops.get_untrusted_types(file=path))
    answer = getattr(estimator, "predict_proba", estimator.predict)
    return f"scikit-learn {sklearn.__version__}", lambda arrays: answer(arrays[0])


def _xgboost(path: Path) -> tuple[str, Function]:
    xgboost: Any = importlib.import_module("xgboost")
    booster = xgboost.Booster({"nthread": 1}, model_file=path)
    return f"XGBoost {xgboost.__version__}", lambda arrays: booster.inplace_predict(arrays[0])


_LOADERS: Mapping[str, Callable[[Path], tuple[str, Function]]] = {
    "onnx": _onnx, "pytorch": _torch, "huggingface": _transformers, "tensorflow": _keras,
    "tflite": _tflite, "openvino": _openvino, "sklearn": _sklearn, "xgboost": _xgboost,
}  # fmt: skip
