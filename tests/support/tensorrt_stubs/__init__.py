"""Machines with TensorRT that there are none of here: stub libraries and a stand-in package."""

from __future__ import annotations

import subprocess
from pathlib import Path

STUBS = Path(__file__).parent
FAKE = STUBS / "fake"
"""To be put on `sys.path`: the stand-in for the `tensorrt` package."""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def build_libcuda(directory: Path) -> Path:
    """Compile the stand-in for the driver's library; returns its path."""
    library = directory / "libcuda.so.1"
    _compile(STUBS / "libcuda.c", library)
    return library


def build_libraries(directory: Path, major: int) -> Path:
    """Compile what the vendor's bindings of TensorRT 10 or 11 link; returns the directory."""
    directory.mkdir(parents=True)
    for name in LIBRARIES:
        _compile(STUBS / "libraries.c", directory / f"lib{name}.so.{major}")
    return directory


def _compile(source: Path, library: Path) -> None:
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), f"-Wl,-soname,{library.name}"]
    subprocess.run([*command, str(source)], check=True)
