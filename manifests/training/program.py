"""Writes `torch.export` programs the same way every time."""

from pathlib import Path

import torch


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """A .pt2 without stack traces, which hold the paths of the machine that it was made on, and
    without sample inputs, which are a pickle."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    program.example_inputs = None
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
