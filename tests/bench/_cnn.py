"""ResNet-50 and MobileNetV2 with random weights, by architecture alone: they serve for latency.

`python -m tests.bench._cnn DIRECTORY` in the environment of the builder `huggingface` writes
`DIRECTORY/NAME` as `save_pretrained` does. Batch normalisation gets the statistics of noise: with
the initial ones the activations of a random network grow from block to block, and int8 would be
measured on ranges that no trained network has.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

NAMES = {"resnet50": "ResNet", "mobilenetv2": "MobileNetV2"}
"""What the models are called here, to what transformers calls their classes."""
SIZE = 224
CLASSES = 1000
_ROWS = 8


def write(name: str, path: Path) -> None:
    """Make a network of the default config, which is that of its paper."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = getattr(transformers, f"{NAMES[name]}Config")(num_labels=CLASSES)
    model = getattr(transformers, f"{NAMES[name]}ForImageClassification")(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what comes
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.randn(_ROWS, 3, SIZE, SIZE))
    model.eval().save_pretrained(path)


if __name__ == "__main__":
    for each in NAMES:
        write(each, Path(sys.argv[1]) / each)
