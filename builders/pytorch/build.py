"""The PyTorch toolchain: a torch.export program or TorchScript becomes an ONNX model.

Both are ZIP archives with pickles in them, and PyTorch warns to load neither from a stranger. Here
an archive is taken apart, what it says is held to what a model has to say, and only that is put
together again and loaded: no pickle of a program, no operator that touches files, no expression
that Python would evaluate. `source.trustCode` loads the file as PyTorch does, with all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import scripts
from edgectl.build.kit.data import real_inputs
from edgectl.build.kit.torchfile import archives, programs
from edgectl.build.kit.torchfile import scripts as torchscripts
from edgectl.build.kit.torchonnx import check_weights, compare, declare, program_to_onnx, write
from edgectl.build.protocol import Done, Task, main, report

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from edgectl.build.kit.data import Samples


def import_model(task: Task) -> Done:
    """Convert a .pt2 or a TorchScript .pt to ONNX with the declared tensors, in their order.

    Roles: `source`, and `calibration` and `evaluation` where there are any. Params: `inputs` and
    `outputs`, lists of {name, datatype, shape} where -1 is a free dimension, and `trustCode`.
    """
    trusted = bool(task.params.get("trustCode", False))
    report(0.1, "checking the archive")
    archive = archives.read(task.inputs["source"])
    samples = real_inputs(task)
    report(0.2, "loading")
    run, convert = _open(archive, task, samples, trusted=trusted)
    report(0.3, "converting")
    model = declare(convert(), task)
    path = write(model, task.model, Path("model.onnx"))
    report(0.8, "comparing with the source")
    facts = {"form": archive.form, "torch": torch.__version__, "trustedCode": trusted}
    return Done({"model": path.name}, facts | compare(run, path, samples, task))


def _open(
    archive: archives.Archive, task: Task, samples: Samples, *, trusted: bool
) -> tuple[Callable[..., Any], Callable[[], onnx.ModelProto]]:
    """The source as a function of tensors, and what converts it."""
    if archive.form == "program":
        program = programs.load(archive, trusted=trusted)
        programs.check_inference(program)
        check_weights({**program.state_dict, **program.constants})
        return program.module(check_guards=False), lambda: program_to_onnx(program)
    script = torchscripts.load(archive, trusted=trusted)
    check_weights({**dict(script.named_parameters()), **dict(script.named_buffers())})
    return script.forward, lambda: scripts.to_onnx(script, task, samples)


if __name__ == "__main__":
    main({"import": import_model})
