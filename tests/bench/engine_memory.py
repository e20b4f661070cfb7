"""Resident memory of the engine, against plain ONNX Runtime in the same run.

The model has the shape of MobileNet (4.2 million fp32 parameters, 224x224) and random weights. Each
row is a fresh process: after its imports, after loading, after 50 inferences, and at its peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from tests.support.models import write_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STAGES = ("imported", "loaded", "run", "peak")

_MEASURE = """
import json, re, sys
from pathlib import Path
def resident(key="VmRSS"):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{key}:\\s+(\\d+)", status, re.M)[1]) / 1024
import numpy as np
"""

_PROGRAMS = {
    "edgectl.engine": """
import edgectl.engine.onnxruntime
from edgectl.engine.session import load_session
after = [resident()]
session = load_session(Path(sys.argv[1]))
infer = session.run
""",
    "onnxruntime, its defaults, 1 thread": """
import onnxruntime
after = [resident()]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
infer = lambda inputs: session.run(None, inputs)
""",
    "onnxruntime, no arena, no pattern": """
import onnxruntime
after = [resident()]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
infer = lambda inputs: session.run(None, inputs)
""",
}

_RUN = """
after.append(resident())
picture = np.ones((1, 3, 224, 224), np.float32)
for _ in range(50):
    infer({"x": picture})
print(json.dumps([*after, resident(), resident("VmHWM")]))
"""


def write_mobilenet(path: Path) -> Path:
    """MobileNet v1's layers without batch normalisation, weights random."""
    random = np.random.default_rng(0)
    nodes, constants = [], {}
    channels, tensor = 3, "x"
    plan = [(32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]

    def convolve(name: str, shape: tuple[int, ...], **attributes: Any) -> None:
        nonlocal tensor
        weights: NDArray[np.float32] = random.normal(0, 0.1, shape).astype(np.float32)
        constants[f"{name}_w"] = weights
        nodes.append(helper.make_node("Conv", [tensor, f"{name}_w"], [name], **attributes))
        tensor = name

    for layer, (width, stride) in enumerate(plan):
        edge = {"strides": [stride, stride], "pads": [1, 1, 1, 1]}
        if layer == 0:
            convolve("first", (width, channels, 3, 3), **edge)
        else:
            convolve(f"depth{layer}", (channels, 1, 3, 3), group=channels, **edge)
            convolve(f"point{layer}", (width, channels, 1, 1))
        nodes.append(helper.make_node("Relu", [tensor], [f"relu{layer}"]))
        channels, tensor = width, f"relu{layer}"
    constants["classes"] = random.normal(size=(channels, 1000)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "classes"], ["y"]),
    ]
    return write_onnx(
        path,
        nodes,
        inputs={"x": ["N", 3, 224, 224]},
        outputs={"y": ["N", 1000]},
        constants=constants,
    )


def main() -> None:
    """Print a table in MiB, and the engine's memory as a ratio of the defaults'."""
    with tempfile.TemporaryDirectory() as directory:
        model = write_mobilenet(Path(directory) / "mobilenet.onnx")
        print(f"| MiB resident | {' | '.join(_STAGES)} |\n|---|{'---:|' * len(_STAGES)}")
        after_run = {}
        for name, program in _PROGRAMS.items():
            command = [sys.executable, "-c", _MEASURE + program + _RUN, str(model)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            values = json.loads(done.stdout)
            after_run[name] = values[2]
            print(f"| {name} | {' | '.join(f'{value:.0f}' for value in values)} |")
    ours, defaults, *_ = after_run.values()
    print(f"\nthe engine keeps {ours / defaults:.2f} of what the defaults keep")


if __name__ == "__main__":
    main()
