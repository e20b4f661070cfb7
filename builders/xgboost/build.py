"""The XGBoost toolchain: a model saved as JSON or UBJSON becomes an ONNX model.

The file is parsed and checked here first, and converted from what was read: its trees keep their
thresholds, leaves and directions for missing values bit by bit. XGBoost itself gets the checked
document, to compare with. A pickle is refused unread: loading one runs whatever code is in it.
"""

from __future__ import annotations

from edgectl.build.protocol import main
from importing import import_model

if __name__ == "__main__":
    main({"import": import_model})
