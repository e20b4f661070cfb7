"""An XGBoost model file, read into a document without XGBoost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import ubjson
from edgectl.build.kit.wording import first_line
from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 256 << 20
_SAVE = 'save it with model.save_model("model.json"), and set source.format: xgboost'


def read(path: Path) -> dict[str, Any]:
    """The document of a .json or .ubj file, whichever it is by its bytes.

    Refuses pickles and XGBoost's old binary format unread (`not-xgboost`), and what is damaged,
    nested too deep or too large (`does-not-load`).
    """
    if path.stat().st_size > MAX_BYTES:
        raise _does_not_load(path, f"larger than {MAX_BYTES} bytes")
    data = path.read_bytes()
    if not data.lstrip()[:1] == b"{":
        raise _not_xgboost(path, data)
    try:
        binary = data[1:2] in {b"i", b"U", b"I", b"l", b"L"}
        document = ubjson.parse(data) if binary else _parse_json(data)
    except (ValueError, RecursionError) as error:
        raise _does_not_load(path, first_line(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("learner"), dict):
        raise _does_not_load(path, 'it has no "learner"')
    return document


def _parse_json(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that is there twice could mean one thing here and another to XGBoost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _not_xgboost(path: Path, data: bytes) -> RefusalError:
    if data[:1] == b"\x80" or path.suffix in {".pkl", ".pickle", ".joblib"}:
        what = "a pickle, which runs the code in it when it is loaded"
    elif data[:4] in {b"binf", b"bs64"} or path.suffix in {".bin", ".model", ".deprecated"}:
        what = "XGBoost's old binary format, which XGBoost 3 does not read either"
    else:
        what = "neither JSON nor UBJSON"
    return RefusalError("not-xgboost", f"{path.name} is {what}", hint=_SAVE)


def _does_not_load(path: Path, why: str) -> RefusalError:
    return RefusalError(
        "does-not-load", f"{path.name} is not a readable XGBoost model: {why}", hint=_SAVE
    )
