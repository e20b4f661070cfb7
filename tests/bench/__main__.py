"""Run the benchmarks: every module of this folder that has a `main`, or those named."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path


def _benchmarks() -> list[str]:
    own = {"__init__", "__main__"}
    modules = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    return [name for name in modules if name not in own and not name.startswith("_")]


def main() -> None:
    """Run them one after the other, since they share the machine that they measure."""
    known = _benchmarks()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}")
    for name in names:
        print(f"## {name}\n", flush=True)
        sys.argv[1:] = []  # a benchmark that takes options of its own gets its defaults
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
