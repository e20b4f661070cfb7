"""Files that PyTorch wrote, loaded without what in them could run. Needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.build.kit.torchfile import archives, programs, scripts

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def load(path: Path, *, trusted: bool) -> torch.export.ExportedProgram | torch.jit.ScriptModule:
    """A torch.export program or TorchScript, on the CPU and for inference.

    Refuses pickles, code that runs as it is loaded, what is no model, and what is in training mode;
    a trusted file is loaded as PyTorch does, with all of it.
    """
    archive = archives.read(path)
    if archive.form == "script":
        return scripts.load(archive, trusted=trusted)
    program = programs.load(archive, trusted=trusted)
    programs.check_inference(program)
    return program
