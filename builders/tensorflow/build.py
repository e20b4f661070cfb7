"""The TensorFlow toolchain: SavedModels, Keras files and TFLite models become ONNX."""

from __future__ import annotations

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # whose sums differ with the processor
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # conversion computes nothing worth a GPU's start-up

from edgectl.build.protocol import Done, Task, main


def import_model(task: Task) -> Done:
    """See `importing.import_model`; TensorFlow, which takes seconds, is loaded for it alone."""
    from importing import import_model as run

    return run(task)


if __name__ == "__main__":
    main({"import": import_model})
