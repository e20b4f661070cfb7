"""What the agent must not import, since it would hold it in memory for ever."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"not on a device: {{name}}", name=name)

sys.meta_path.insert(0, Blocked())
import edgectl.agent.loop, edgectl.agent.resolve, edgectl.agent.config, edgectl.agent.report
import edgectl.agent.profile, edgectl.cli.agent, edgectl.trust.client, edgectl.oci.transfer
print("imported")
"""
BLOCKED = (
    "docker", "jinja2", "nacl", "numpy", "onnx", "onnxruntime", "PIL", "pydantic", "rich",
    "sigstore", "sklearn", "uv",
)  # fmt: skip
HEAVY = ("cryptography", "http", "numpy", "oras", "requests", "tuf", "yaml")


def python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return result.stdout


def test_the_agent_needs_no_build_dependency_and_no_engine() -> None:
    assert python(CODE.format(blocked=BLOCKED)) == "imported\n"


def test_an_idle_agent_has_nothing_heavy_in_memory() -> None:
    code = (
        "import sys, edgectl.agent.loop, edgectl.oci.layout\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert python(code) == "[]\n"
