"""Put right by guess what is wrong with a document, so that the rest of it is checked in one run.

What was guessed stays a problem: nothing is ever built from a mended document.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgectl.manifest.base import Element
from edgectl.manifest.fields import choices, fields_of, meant_choice, type_at
from edgectl.manifest.problem import closest
from edgectl.manifest.yaml import Node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]


class Mending:
    """A document that is changed until it says nothing wrong by itself."""

    def __init__(self, kind: type[Element], node: Node) -> None:
        self.kind = kind
        self.node = node
        """With the positions of what is written, also of a field under its right name."""
        self.touched: set[Path] = set()
        """What was guessed, or left out."""
        self._blind: set[Path] = set()
        """What of that can be anything."""

    def mend(self, details: Iterable[ErrorDetails]) -> None:
        """Change each place that pydantic refused."""
        for detail in sorted(details, key=lambda each: each["type"] != "extra_forbidden"):
            location = detail["loc"]
            if location and location[-1] == "[key]":
                self._leave_out(location[:-1])
            elif detail["type"] == "extra_forbidden":
                self._rename(location)
            elif location and not (detail["type"] == "missing" and self._has(location)):
                self._guess(location)

    def hides(self, field: Path) -> bool:
        """Whether a problem there can come from a guess: at, below or above it, or beside it in
        a list."""
        return any(
            field[: len(touched)] == touched
            or touched[: len(field)] == field
            or (field[:-1] == touched[:-1] and isinstance(touched[-1], int))
            for touched in self.touched
        )

    def is_blind(self, field: Path) -> bool:
        """Whether a field, or some of it, can be anything: nothing follows from what it is."""
        return any(blind[: len(field)] == field for blind in self._blind)

    def _has(self, location: Path) -> bool:
        parent = _at(self.node, location[:-1])
        return parent is not None and location[-1] in parent.children

    def _rename(self, location: Path) -> None:
        """Take an unknown field for the known one that it must mean, if that is not there."""
        wrong = str(location[-1])
        parent = _at(self.node, location[:-1])
        known = fields_of(type_at(self.kind, location[:-1]))
        right = closest(wrong, known)
        if parent is None or right is None or right in parent.children:
            self._leave_out(location)
            return
        children = {right if key == wrong else key: node for key, node in parent.children.items()}
        keys = {right if key == wrong else key: place for key, place in parent.keys.items()}
        self._put(location[:-1], replace(_with(parent, children), keys=keys))

    def _leave_out(self, location: Path) -> None:
        self.touched.add(location)
        self._blind.add(location)
        parent = _at(self.node, location[:-1])
        if parent is not None:
            rest = {key: node for key, node in parent.children.items() if key != location[-1]}
            self._put(location[:-1], _with(parent, rest))

    def _guess(self, location: Path) -> None:
        self.touched.add(location)
        parent = _at(self.node, location[:-1])
        if parent is None:
            return
        written = parent.children.get(location[-1], parent)
        known = choices(type_at(self.kind, location))
        value: Any = meant_choice(written.value, known) if known else None
        if value is None:
            self._blind.add(location)
            value = next(iter(known), None) or self._example(location)
        guess = _node(value, written.line, written.column)
        keys = parent.keys
        if isinstance(location[-1], str):
            keys = {location[-1]: (parent.line, parent.column), **keys}
        made = _with(parent, {**parent.children, location[-1]: guess})
        self._put(location[:-1], replace(made, keys=keys))

    def _example(self, location: Path) -> Any:
        """The field's own example; of an item of a list or mapping, one of its."""
        parent = type_at(self.kind, location[:-1])
        if isinstance(parent, type) and issubclass(parent, Element):
            info = fields_of(parent).get(str(location[-1]))
            return info.examples[0] if info is not None and info.examples else None
        of_parent = self._example(location[:-1]) if location[:-1] else None
        if isinstance(of_parent, dict):
            of_parent = list(of_parent.values())
        return of_parent[0] if isinstance(of_parent, list) and of_parent else None

    def _put(self, path: Path, node: Node) -> None:
        """Replace one node, and with it those above; nodes that aliases share stay as they are."""
        for depth in range(len(path) - 1, -1, -1):
            parent = _at(self.node, path[:depth])
            if parent is None:
                return
            node = _with(parent, {**parent.children, path[depth]: node})
        self.node = node


def _at(node: Node, path: Path) -> Node | None:
    for part in path:
        child = node.children.get(part)
        if child is None:
            return None
        node = child
    return node


def _with(node: Node, children: dict[str | int, Node]) -> Node:
    """A mapping or list with other children, and the value that they make."""
    values = {key: child.value for key, child in children.items()}
    value = values if isinstance(node.value, dict) else list(values.values())
    return replace(node, children=children, value=value)


def _node(value: Any, line: int, column: int) -> Node:
    """A value that is not in the file, at the place where it is missing."""
    if not isinstance(value, dict | list):
        return Node(line, column, value, str(value))
    items = value.items() if isinstance(value, dict) else enumerate(value)
    children = {key: _node(item, line, column) for key, item in items}
    keys = dict.fromkeys(map(str, children), (line, column))
    return Node(line, column, value, children=children, keys=keys)
