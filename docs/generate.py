"""Write docs/reference/ from the code: manifests, shipped targets, command line and errors.

python docs/generate.py           write the pages
python docs/generate.py --check   write nothing; exit with 1 if a page is out of date
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from edgectl import errors
from edgectl.agent import failure as _  # noqa: F401 - declares errors
from edgectl.cli.errors import INTERRUPTED_EXIT, USAGE_EXIT
from edgectl.cli.root import VERBS, root
from edgectl.manifest.document import KINDS
from edgectl.manifest.profiles import profile_files
from edgectl.manifest.schema import kind_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent / "reference"
_GENERATED = "<!-- Written by docs/generate.py from the code. Do not edit. -->"
_QUANTITIES = {"size", "duration", "power", "share", "transform"}
_SCALARS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
}


def main() -> int:
    """Write or check every page; the exit code."""
    pages = {
        "manifests.md": manifest_page(),
        "targets.md": target_page(),
        "cli.md": command_page(),
        "errors.md": error_page(),
    }
    if sys.argv[1:] == ["--check"]:
        stale = [name for name, text in pages.items() if not _is_current(REFERENCE / name, text)]
        for name in stale:
            click.echo(f"docs/reference/{name} is out of date: run python docs/generate.py")
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def manifest_page() -> str:
    """Every field of every kind."""
    lines = [
        "# Manifests",
        "",
        _GENERATED,
        "",
        "Fields in **bold** are required. Sizes are written `512Mi` or `2G`, durations `20ms`,",
        "`30m` or `1h30m`, powers `15W` or `500mW`, shares `10%` or `0.1`. Paths are relative to",
        "the file that names them. `edgectl schema` writes all this as JSON Schema.",
        "",
    ]
    for kind in KINDS:
        lines += _kind_section(kind)
    return "\n".join(lines).rstrip() + "\n"


def _kind_section(kind: str) -> Iterator[str]:
    schema = kind_schema(kind)
    yield from (f"## {kind}", "", _flow(schema["description"]), "")
    waiting: list[tuple[str, dict[str, Any]]] = [("", schema)]
    while waiting:
        path, element = waiting.pop(0)
        if path:
            yield from (f"### {kind}: `{path}`", "", _flow(element["description"]), "")
        yield from ("| field | type | default | example | meaning |", "|---|---|---|---|---|")
        required = element.get("required", [])
        below = []
        for name, field in element["properties"].items():
            yield _field_row(name, field, is_required=name in required)
            reference, suffix = _element_of(field)
            if reference and reference != "Metadata":
                below.append((f"{path}.{name}{suffix}".lstrip("."), schema["$defs"][reference]))
        waiting[:0] = below
        yield ""


def _field_row(name: str, field: dict[str, Any], *, is_required: bool) -> str:
    default = "" if is_required else _value(field.get("default"))
    example = _value(field["examples"][0]) if field.get("examples") else ""
    description = _flow(field.get("description", ""))
    cells = (
        f"**`{name}`**" if is_required else f"`{name}`",
        _type(field),
        default,
        example,
        description,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _type(field: dict[str, Any]) -> str:
    """A field's type in a few words."""
    if field.get("title") in _QUANTITIES:
        return str(field["title"])
    if "$ref" in field:
        return "mapping"
    for alternative in field.get("anyOf", ()):
        if alternative.get("type") != "null":
            return _type(alternative)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        return f"mapping of name to {_type(_values_of(field))}"
    return _SCALARS[field["type"]]


def _element_of(field: dict[str, Any]) -> tuple[str, str]:
    """The definition that a field's value or items have, and how the path goes on."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2], ""
    for alternative in field.get("anyOf", ()):
        if "$ref" in alternative:
            return _element_of(alternative)
    if "$ref" in field.get("items", {}):
        return _element_of(field["items"])[0], "[]"
    if field.get("type") == "object" and "$ref" in _values_of(field):
        return _element_of(_values_of(field))[0], ".*"
    return "", ""


def _values_of(mapping: dict[str, Any]) -> dict[str, Any]:
    """What the values of a mapping are, whose keys may have to match a pattern."""
    patterns: dict[str, dict[str, Any]] = mapping.get("patternProperties", {})
    for values in patterns.values():
        return values
    below: dict[str, Any] = mapping["additionalProperties"]
    return below


def target_page() -> str:
    """Every hardware profile that edgectl ships."""
    lines = [
        "# Shipped targets",
        "",
        _GENERATED,
        "",
        "Names for `spec.targets` of a Fleet. The first precision is built where the Model sets no",
        "`optimize.precision`. A Target of the same name in your repository takes the place of the",
        "shipped one: [Write a Target](../how-to/target.md).",
        "",
        "| name | board | platform | engine | precisions | limits |",
        "|---|---|---|---|---|---|",
    ]
    for path in profile_files():
        target = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = target["spec"]
        engine = spec["engine"]
        using = [engine["device"]] if "device" in engine else engine.get("providers", [])[:1]
        cells = (
            f"`{target['metadata']['name']}`",
            spec.get("board", spec["cpu"]["model"]),
            f"{spec['platform']['os']}/{spec['platform']['architecture']}",
            f"`{engine['name']}` {engine['version']}" + "".join(f", {name}" for name in using),
            ", ".join(spec["precisions"]),
            ", ".join(f"{name} {limit}" for name, limit in spec.get("constraints", {}).items()),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def command_page() -> str:
    """The help of every command."""
    lines = ["# Command line", "", _GENERATED, ""]
    lines += _command_section(root, "edgectl", None)
    context = click.Context(root, info_name="edgectl")
    for verb in sorted(VERBS):
        if importlib.util.find_spec(f"edgectl.cli.{verb}") is None:
            continue
        command = root.get_command(context, verb)
        if command is not None:
            lines += _command_section(command, verb, context)
    return "\n".join(lines).rstrip() + "\n"


def _command_section(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[str]:
    settings: dict[str, Any] = {
        **root.context_settings,
        **command.context_settings,
        "terminal_width": 100,
    }
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield from (f"## {context.command_path}", "", "```text", command.get_help(context), "```", "")
    if isinstance(command, click.Group) and command is not root:
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                yield from _command_section(found, below, context)


def error_page() -> str:
    """Every code of an error with its exit code."""
    lines = [
        "# Errors",
        "",
        _GENERATED,
        "",
        "Every error says what is wrong and what to do next. Its code and exit code are stable;",
        "with `-o json` or `EDGECTL_ERRORS=json` it is one line of JSON on stderr.",
        "",
        "| exit code | code | retry | meaning |",
        "|---|---|---|---|",
    ]
    rows = [(kind.exit_code, kind.code, kind.retry, _meaning(kind)) for kind in _kinds()]
    rows += [
        (1, "bug", errors.Retry.NEVER, "A fault of edgectl's own: please report it."),
        (USAGE_EXIT, "usage", errors.Retry.NEVER, "A wrong command line."),
        (INTERRUPTED_EXIT, "cancelled", errors.Retry.NEVER, "Ctrl-C, or SIGTERM to an apply."),
    ]
    lines += [
        f"| {exit_code} | `{code}` | {retry} | {meaning} |"
        for exit_code, code, retry, meaning in sorted(rows, key=lambda row: row[0])
    ]
    lines += ["", "| retry | what an automation does |", "|---|---|"]
    lines += [
        "| never | Stops: a person has to change something first. |",
        "| backoff | Tries again after a growing, jittered delay. |",
        "| wait | Waits: somebody else has to finish first, and nothing is wrong. |",
    ]
    return "\n".join(lines) + "\n"


def _kinds() -> list[type[errors.EdgectlError]]:
    """The classes of errors that have a code of their own, each before those made of it."""
    found: list[type[errors.EdgectlError]] = [errors.EdgectlError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if "code" in vars(kind)]


def _meaning(kind: type[errors.EdgectlError]) -> str:
    """The first paragraph of the docstring: what follows is for who raises it."""
    if kind is errors.EdgectlError:
        return "Anything else."
    return _flow((inspect.getdoc(kind) or "").partition("\n\n")[0])


def _flow(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.exit(main())
