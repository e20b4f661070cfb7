"""The ONNX toolchain: import (check, clean, fold), optimize (int8, fp16) and evaluate.

Everything written is the same byte for byte when the same request runs again: names are given by
position, clocks and paths are stripped, and every library runs on one thread.
"""

from __future__ import annotations

from edgectl.build.kit.evaluating import evaluate
from edgectl.build.protocol import main
from importing import import_model
from optimizing import optimize

if __name__ == "__main__":
    main({"import": import_model, "optimize": optimize, "evaluate": evaluate})
