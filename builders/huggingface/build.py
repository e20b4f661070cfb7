"""The Hugging Face toolchain: a directory with config and safetensors becomes an ONNX model.

The class comes from transformers by the architecture that config.json names, never from code in
the directory (unless `source.trustCode`), and the weights come from safetensors alone. Pictures go
in as `pixel_values`, text as `input_ids`: the attention mask is computed inside from the pad token,
and a sentence embedding is pooled and scaled to length 1 inside too, so that a device needs none
of it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}  # read on import

import numpy as np
import torch
import transformers

import directories
from edgectl.build.kit.data import Samples, real_inputs
from edgectl.build.kit.torchonnx import check_weights, compare, declare, program_to_onnx, write
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import Done, RefusalError, Task, main, report
from networks import Network, choose_network, network_kind

if TYPE_CHECKING:
    from torch import nn

    from directories import Directory


def import_model(task: Task) -> Done:
    """Convert a directory to ONNX with one input and one output.

    Roles: `source`, and `calibration` and `evaluation` where there are any. Params: `inputs` and
    `outputs`, lists of one {name, datatype, shape} where -1 is a free dimension, and `trustCode`.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    _check_count(task)
    trusted = bool(task.params.get("trustCode", False))
    report(0.1, "checking the directory")
    directory = directories.read(task.inputs["source"], trusted=trusted)
    kind = network_kind(directory, trusted=trusted)
    report(0.2, "loading")
    model, unused = _load(directory, kind.auto, trusted=trusted)
    check_weights({**dict(model.named_parameters()), **dict(model.named_buffers())})
    samples = _samples(task, model)
    source, converted = choose_network(kind, model, directory, _example(samples))
    report(0.3, "converting")
    program = _export(converted, _example(samples), task)
    path = write(declare(program_to_onnx(program), task), task.model, Path("model.onnx"))
    report(0.8, "comparing with the source")
    facts = {
        "architecture": directory.architecture,
        "kind": kind.name,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "trustedCode": trusted,
        "unusedWeights": unused,
    }
    return Done({"model": path.name}, facts | compare(source, path, samples, task))


def _check_count(task: Task) -> None:
    for what in ("inputs", "outputs"):
        count = len(task.params[what])
        if count != 1:
            raise RefusalError(
                "signature-differs",
                f"a Hugging Face model is imported with one tensor of {what}, the manifest "
                f"declares {count}",
                hint=f"declare one entry in spec.{what}: input_ids or pixel_values in, logits or "
                "an embedding out (the attention mask is computed inside)",
            )


def _load(directory: Directory, auto: Any, *, trusted: bool) -> tuple[nn.Module, list[str]]:
    """The model in float32 for inference, and the weights that it has no place for."""
    with tempfile.TemporaryDirectory() as name:
        room = directory.copy_to(Path(name))
        try:
            model, info = auto.from_pretrained(
                room,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trusted,
                # As plain operators; a config could name a kernel to be downloaded.
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:
            raise RefusalError(
                "does-not-load",
                f"transformers {transformers.__version__} does not load it: {first_line(error)}",
                node=directory.architecture,
                hint="save it again with save_pretrained of a current transformers",
            ) from error
    missing = sorted(
        name for name in info["missing_keys"] if not name.startswith(("pooler.", "bert.pooler."))
    )
    wrong = missing or sorted(str(entry[0]) for entry in info["mismatched_keys"])
    if wrong:
        raise RefusalError(
            "weights-missing",
            f"{len(wrong)} weights are missing or of another shape than config.json says, the "
            f"first is {wrong[0]!r}",
            node=wrong[0],
            hint="save config and weights of one model together, with save_pretrained",
        )
    return model.eval(), sorted(info["unexpected_keys"])


def _samples(task: Task, model: nn.Module) -> Samples:
    """Real inputs; where there are none, random tokens with padding in place of zeros."""
    samples = real_inputs(task)
    ((name, values),) = samples.arrays.items()
    if samples.origin != "random" or values.dtype.kind not in "iu":
        return samples
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, values.shape)
    tokens[0, values.shape[1] // 2 :] = getattr(model.config, "pad_token_id", None) or 0
    return Samples({name: tokens.astype(values.dtype)}, "random")


def _example(samples: Samples) -> torch.Tensor:
    """At least two rows: the exporter takes a dimension of one for a fixed one."""
    (values,) = samples.arrays.values()
    return torch.from_numpy(np.resize(values, (max(2, len(values)), *values.shape[1:])))


def _export(network: Network, example: torch.Tensor, task: Task) -> torch.export.ExportedProgram:
    (declared,) = task.params["inputs"]
    free = {i: torch.export.Dim.DYNAMIC for i, n in enumerate(declared["shape"]) if n == -1}
    rows = declared["shape"][0] if declared["shape"][0] != -1 else len(example)
    try:
        with torch.no_grad():
            return torch.export.export(network, (example[:rows],), dynamic_shapes=(free or None,))
    except Exception as error:
        raise RefusalError(
            "not-convertible",
            f"the model cannot be traced with {declared['name']!r} of shape {declared['shape']}: "
            f"{first_line(error)}",
            node=declared["name"],
            hint="declare the batch alone as -1, and the length or size of the picture as numbers",
        ) from error


if __name__ == "__main__":
    main({"import": import_model})
