"""Small PyTorch models, exported by the toolchain's own PyTorch, and how they are imported."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

from tests.builders.refusals import refused_import

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.build.runner import Result
    from edgectl.errors import ModelError
    from tests.builders.conftest import Build

MAKER = dedent("""
    import sys
    import torch
    from torch import nn

    torch.manual_seed(0)
    BATCH = {0: torch.export.Dim("batch")}


    def export(name, model, example, dynamic=True, train=False):
        model = model.train() if train else model.eval()
        shapes = ((BATCH,) * len(example)) if dynamic else None
        program = torch.export.export(model, example, dynamic_shapes=shapes)
        torch.export.save(program, f"{name}.pt2")


    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.LSTM(4, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])


    class Two(nn.Module):
        def forward(self, left, right):
            return {"sum": left + right, "difference": left - right}


    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return torch.linalg.svdvals(self.linear(x))


    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            for step in range(3):
                if bool(x[0].sum() > step):
                    x = self.linear(x)
                else:
                    x = x - 1.0
            count = int(x.shape[1])
            while count > 0:
                x = x * 0.9
                count -= 1
            return x


    class Writes(nn.Module):
        def forward(self, x):
            torch.save(x, "exploded")
            return x


    class Wakes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.training = False

        def forward(self, x):
            return self.linear(x)

        @torch.jit.export
        def __getstate__(self):
            return self.linear.weight

        @torch.jit.export
        def __setstate__(self, state: torch.Tensor):
            torch.save(state, "exploded")
            self.training = False


    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(36, 3))
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3), nn.Softmax(1))
    rows = torch.zeros(2, 4)
    export("conv", conv, (torch.zeros(2, 1, 8, 8),))
    export("mlp", mlp, (rows,))
    export("fixed", mlp, (torch.zeros(1, 4),), dynamic=False)
    export("attention", Attention(), (torch.zeros(2, 5, 8),))
    export("recurrent", Recurrent(), (torch.zeros(2, 5, 4),), dynamic=False)
    export("two", Two(), (rows, torch.ones(2, 4)))  # one tensor twice would be one input
    export("svd", Spectrum(), (rows,), dynamic=False)
    export("dropout", nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), (rows,), train=True)
    ill = nn.Sequential(nn.Linear(4, 3))
    ill[0].bias.data[1] = float("nan")
    export("ill", ill, (rows,))

    torch.jit.save(torch.jit.script(Steps().eval()), "steps.pt")
    torch.jit.save(torch.jit.trace(conv.eval(), torch.zeros(2, 1, 8, 8)), "traced.pt")
    torch.jit.save(torch.jit.script(Spectrum().eval()), "svd.pt")
    torch.jit.save(torch.jit.script(ill.eval()), "ill.pt")
    torch.jit.save(torch.jit.script(Writes()), "writes.pt")
    torch.jit.save(torch.jit.script(Wakes()), "wakes.pt")
    torch.save(mlp, "module.pt")
    torch.save(mlp.state_dict(), "state.pt")
    torch.save(mlp.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
""")


def tensor(name: str, *shape: int) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": "FP32", "shape": list(shape)}]


ROWS = {"inputs": tensor("x", -1, 4), "outputs": tensor("y", -1, 3)}
TWO = {
    "inputs": tensor("a", -1, 4) + tensor("b", -1, 4),
    "outputs": tensor("total", -1, 4) + tensor("rest", -1, 4),
}
PICTURES = {"inputs": tensor("image", -1, 1, 8, 8), "outputs": tensor("logits", -1, 3)}


def imported(build: Build, source: Path, **params: Any) -> Result:
    return build("pytorch", "import", {"source": source}, params)


def refusal(build: Build, source: Path, **params: Any) -> ModelError:
    return refused_import(build, "pytorch", source, ROWS | params)
