"""What builders share, importable in a toolchain's environment beside the protocol.

Each module needs numpy, or onnx, or onnxruntime as it says, and nothing else of edgectl but
`edgectl.engine`; a builder imports only the modules whose packages its lock has. A step's key
covers this code by `edgectl.plan.step.REVISION`.
"""
