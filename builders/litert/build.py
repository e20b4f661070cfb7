"""The LiteRT toolchain: TFLite models from ONNX, TensorFlow or TFLite, measured by LiteRT."""

from __future__ import annotations

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # whose sums differ with the processor
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # conversion computes nothing worth a GPU's start-up

from edgectl.build.kit.evaluating import evaluate
from edgectl.build.protocol import Done, Task, main


def optimize(task: Task) -> Done:
    """See `optimizing.optimize`; TensorFlow, which takes seconds, is loaded for it alone."""
    from optimizing import optimize as run

    return run(task)


if __name__ == "__main__":
    main({"optimize": optimize, "evaluate": evaluate})
