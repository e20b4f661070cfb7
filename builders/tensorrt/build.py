"""The TensorRT toolchain: typed ONNX with a recipe for the engine that the device builds of it.

`compile` takes the ONNX that the onnx builder optimised, checks that TensorRT will read it, and
writes the recipe. `optimize` passes an engine that is built already through, pinned to what it runs
on. Neither needs TensorRT or a GPU.
"""

from __future__ import annotations

from compiling import compile_model
from edgectl.build.protocol import main
from evaluating import evaluate
from passing import pass_through

if __name__ == "__main__":
    main({"optimize": pass_through, "compile": compile_model, "evaluate": evaluate})
