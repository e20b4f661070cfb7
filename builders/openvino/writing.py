"""An IR on disk, the same bytes whenever the same model is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import openvino as ov

from edgectl.engine.openvino import PRECISION_INFO

if TYPE_CHECKING:
    from pathlib import Path

_INFO = re.compile(r"\n\t<rt_info>.*?\n\t</rt_info>", re.DOTALL)
_OPTIONS = re.compile(r"\n\t\t<runtime_options>.*?\n\t\t</runtime_options>", re.DOTALL)
_PORTS = frozenset({"Parameter", "Result"})


def name_by_position(model: ov.Model) -> None:
    """Name what only its number in this process names, by its place in the graph instead."""
    for place, node in enumerate(model.get_ordered_ops()):
        numbered = node.get_friendly_name() == node.get_name()
        if numbered and node.get_type_name() not in _PORTS:
            node.set_friendly_name(f"{node.get_type_name()}.{place}")
    for place, result in enumerate(model.get_results()):
        result.set_friendly_name(f"Result.{place}")


def write(model: ov.Model, directory: Path, *, name: str, precision: str) -> None:
    """Write `model.xml` and `model.bin`; float weights become fp16 where that or bf16 is asked for
    (on disk only: the CPU computes in fp32 or bf16 from them).

    Of the runtime info, which holds versions and paths of the conversion, the options that
    OpenVINO reads again are kept, and the precision is added for `edgectl.engine.openvino`.
    """
    directory.mkdir()
    model.set_friendly_name(name)
    file = directory / "model.xml"
    ov.save_model(model, file, compress_to_fp16=precision in {"fp16", "bf16"})
    text = file.read_text(encoding="utf-8")
    kept = "".join(_OPTIONS.findall("".join(_INFO.findall(text))))
    group, key = PRECISION_INFO
    info = f'{kept}\n\t\t<{group}>\n\t\t\t<{key} value="{precision}" />\n\t\t</{group}>'
    text = _INFO.sub("", text)
    head, _, tail = text.rpartition("\n</net>")
    file.write_text(f"{head}\n\t<rt_info>{info}\n\t</rt_info>\n</net>{tail}", encoding="utf-8")
