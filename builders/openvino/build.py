"""The OpenVINO toolchain: optimize (ONNX or IR to IR, in fp32, fp16, bf16, int8
or int4) and evaluate.

Everything written is the same byte for byte when the same request runs again: what OpenVINO and
NNCF name by counting is named by position, the runtime's version and the paths of the conversion
are stripped, and calibration runs on one core.
"""

from __future__ import annotations

import sys

# OpenVINO and NNCF report each use to a statistics server, unless this package of theirs is
# missing; a build has no network, and would wait for it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

from edgectl.build.protocol import main  # noqa: E402
from evaluating import evaluate  # noqa: E402
from optimizing import optimize  # noqa: E402

if __name__ == "__main__":
    main({"optimize": optimize, "evaluate": evaluate})
