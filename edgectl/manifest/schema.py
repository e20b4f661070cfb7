"""JSON Schema 2020-12 of the kinds, for editors and for other people's tools.

A schema says all that fields say for themselves. What holds between fields (exactly one source,
no two rings of one name) and between manifests is left to `edgectl validate`.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from edgectl.manifest.document import KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "https://edgectl.dev/schemas/v1alpha1"


def kind_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind; KeyError for a kind that is none."""
    schema = KINDS[kind].model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, "$id": f"{_BASE}/{kind.lower()}.json", **schema}


def combined_schema() -> dict[str, Any]:
    """The schema of a document of any kind: what an editor is given for a whole repository."""
    references, definitions = models_json_schema(
        [(model, "validation") for model in KINDS.values()], by_alias=True
    )
    return {
        "$schema": DIALECT,
        "$id": f"{_BASE}/edgectl.json",
        "title": "edgectl manifest",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": references[model, "validation"],
            }
            for kind, model in KINDS.items()
        ],
        "$defs": definitions["$defs"],
    }


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its file name."""
    return {
        **{f"{kind.lower()}.json": kind_schema(kind) for kind in KINDS},
        "edgectl.json": combined_schema(),
    }
