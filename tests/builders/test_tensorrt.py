"""The TensorRT backend and its adapter, against the real things that can be had without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tensorrt_stubs import STUBS, build_libraries

ROOT = Path(__file__).parents[2]
BINDINGS = ("10.3.0", "10.16.1.11", "11.4.0.106")
"""JetPack 6.1's, the last of 10, and 11, where implicit int8 and fp16 are gone."""
SOURCES = [*sorted((ROOT / "edgectl/engine").glob("*.py")),
           *sorted((ROOT / "builders/tensorrt").glob("*.py"))]  # fmt: skip
SHIM = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
"""What the vendor's `tensorrt` package is, beside the libraries that it brings."""


class Bindings:
    """The vendor's Python bindings of one version, on stub libraries."""

    def __init__(self, directory: Path, version: str) -> None:
        self.version = version
        self._libraries = build_libraries(directory / "lib", int(version.partition(".")[0]))
        self._packages = directory / "packages"
        subprocess.run(
            [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet",
             "--python", sys.executable, "--target", self._packages, "--no-deps",
             "--only-binary", ":all:", f"tensorrt-cu12-bindings=={version}"],
            check=True,
        )  # fmt: skip
        (self._packages / "tensorrt").mkdir()
        (self._packages / "tensorrt" / "__init__.py").write_text(SHIM)

    def python(self, *arguments: str | Path) -> str:
        """What a Python that has these bindings prints."""
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(self._libraries),
            "PYTHONPATH": f"{self._packages}:{ROOT}",
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=BINDINGS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    version: str = request.param
    return Bindings(tmp_path_factory.mktemp("tensorrt"), version)


def check(bindings: Bindings, *sources: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(bindings.python(STUBS / "check_bindings.py", *sources))
    return result


@pytest.mark.slow
def test_everything_that_we_use_exists(bindings: Bindings) -> None:
    """Classes, enum members, methods, attributes that are set, and arguments: as the sources use
    them, in each version of the vendor's bindings."""
    found = check(bindings, *SOURCES)
    assert found["version"] == bindings.version
    assert found["problems"] == []
    # If these were not found, nothing of the sources would be.
    assert set(found["used"]) > {
        "Builder.build_serialized_network", "IBuilderConfig.progress_monitor",
        "IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.set_timing_cache",
        "IExecutionContext.execute_async_v3", "IExecutionContext.set_tensor_address",
        "IOptimizationProfile.set_shape", "IProgressMonitor.step_complete",
        "ITimingCache.serialize", "MemoryPoolType.WORKSPACE", "OnnxParser.parse_from_file",
        "ParserError.node_name", "Runtime.deserialize_cuda_engine", "TensorIOMode.INPUT",
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_used_wrongly_is_found(bindings: Bindings, tmp_path: Path) -> None:
    source = (ROOT / "edgectl/engine/tensorrt_build.py").read_text()
    for right, wrong in {
        "config.builder_optimization_level =": "config.builder_optimisation_level =",
        "ignore_mismatch=False": "ignore_mismatches=False",
        "trt.MemoryPoolType.WORKSPACE": "trt.MemoryPoolType.SCRATCH",
        "create_network(_network_flags(recipe))": "create_network(_network_flags(recipe), 1)",
        "parser.parse_from_file(str(model))": "parser.parse_from_file()",
        "phase_start(self, phase_name": "phase_start(self, phase",
    }.items():
        assert right in source, right
        (tmp_path / "tensorrt_build.py").write_text(source.replace(right, wrong))
        others = [path for path in SOURCES if path.name != "tensorrt_build.py"]
        assert check(bindings, *others, tmp_path / "tensorrt_build.py")["problems"], wrong


CODE = """
import json
import tensorrt
from edgectl.engine import tensorrt_build as build
from edgectl.engine.errors import EngineUnavailableError
from edgectl.engine.recipe import Recipe
import edgectl.engine.tensorrt

told = []
monitor = build.Monitor(lambda progress, message: not told.append(progress))
log = build.Log()
try:
    build._builder(log)
except EngineUnavailableError as error:
    says = str(error)
print(json.dumps({
    "always": build.is_always_typed(),
    "weak": [hasattr(tensorrt.BuilderFlag, name) for name in build.WEAK_FLAGS.values()],
    "levels": [hasattr(tensorrt.HardwareCompatibilityLevel, name)
               for name in build.COMPATIBILITY.values()],
    "flags": build._network_flags(Recipe("int8")),
    "is": [isinstance(monitor, tensorrt.IProgressMonitor), isinstance(log, tensorrt.ILogger)],
    "says": says,
}))
"""


@pytest.mark.slow
def test_the_adapter_imports_and_knows_the_versions_apart(bindings: Bindings) -> None:
    """The modules themselves on the vendor's bindings, whose libraries build nothing here."""
    found = json.loads(bindings.python("-c", CODE))
    is_11 = bindings.version.startswith("11")
    assert found["always"] == is_11
    assert found["weak"] == [not is_11]
    assert found["levels"] == [True, bindings.version != "10.3.0"]
    assert found["flags"] == (0 if is_11 else 2)
    assert found["is"] == [True, True]
    assert f"TensorRT {bindings.version} does not start" in found["says"]
