"""YAML read safely, with the position of every key and value.

Built on libyaml's event stream and an explicit stack, so that depth is bounded and no recursion
runs on hostile input. Scalars are resolved as YAML 1.1 does (PyYAML's tables), except that dates
stay text and `1e-3` is a number; each keeps its text, so that errors can quote what was written.
"""

from __future__ import annotations

import codecs
import functools
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from edgectl.manifest.problem import Origin, Problem, dotted
from edgectl.oci.filesystem import read_at_most

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Nodes of one document with every alias expanded: a document of aliases to aliases stops here."""
MAX_DEPTH = 64
MAX_PROBLEMS = 100
"""Problems told of one document; a file with more is not a manifest gone slightly wrong."""

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TEXT = f"{_TAG}str"
_TEXT_TAGS = frozenset({_TEXT, "!", f"{_TAG}timestamp", f"{_TAG}value"})

_LOADER = yaml.SafeLoader("")
_LONGEST_WORD = 40
_EXPONENT = (f"{_TAG}float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"))
_IMPLICIT: dict[str, list[tuple[str, re.Pattern[str]]]] = {
    first: [*known, _EXPONENT] if first in {*"-+0123456789"} else known
    for first, known in _LOADER.yaml_implicit_resolvers.items()
}
"""First character to the tags that a plain scalar can have, and what it then looks like."""
_CONSTRUCT: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    f"{_TAG}bool": _LOADER.construct_yaml_bool,
    f"{_TAG}int": _LOADER.construct_yaml_int,
    f"{_TAG}float": _LOADER.construct_yaml_float,
    f"{_TAG}null": _LOADER.construct_yaml_null,
}


@dataclass(slots=True)
class Node:
    """One value and where it is written; lines and columns count from 1.

    `value` is the plain Python value of the whole subtree. Aliases share nodes and values, so the
    tree is never larger in memory than the file.
    """

    line: int
    column: int
    value: Any
    text: str | None = None
    """A scalar as written; None for mappings and sequences."""
    size: int = 1
    """Nodes of the subtree with aliases expanded."""
    depth: int = 1
    """Levels of the subtree with aliases expanded."""
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Line and column of each key of a mapping."""

    def find(self, path: tuple[str | int, ...]) -> Node:
        """The deepest node on the path; where a field is missing, the mapping that lacks it."""
        node = self
        for part in path:
            child = node.children.get(part)
            if child is None:
                break
            node = child
        return node


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document is written: a problem with one of its values is told at that value."""

    path: Path
    node: Node
    is_guess: Callable[[tuple[str | int, ...]], bool] = lambda _: False
    """Whether a field is not the user's, or depends on one that is not."""

    @property
    def origin(self) -> Origin:
        """The file and line where the document begins."""
        return Origin(self.path, self.node.line)

    def problem(
        self, field: tuple[str | int, ...], message: str, suggestion: str | None = None
    ) -> Problem:
        """A problem with the value of a field of this document."""
        node = self.node.find(field)
        return Problem(
            self.path,
            node.line,
            node.column,
            message,
            dotted(field),
            suggestion,
            of_guess=self.is_guess(field),
        )


class _Refused(Exception):  # noqa: N818 - control flow inside this module
    """Reading of a file ends here; what came before it stays good."""

    def __init__(self, line: int, column: int, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.line, self.column = line, column
        self.message, self.suggestion = message, suggestion


def read_documents(path: Path) -> tuple[list[Node], list[Problem]]:
    """Every document of a file, and everything wrong with its YAML. One that is null (`~`, or
    nothing at all) is empty, and left out.

    Raises nothing for bad input: an unreadable, oversized, non-UTF-8 or malformed file gives the
    documents before the fault, and a problem.
    """
    try:
        text = _read_text(path)
    except _Refused as refused:
        return [], [_problem(path, refused)]
    return parse_documents(text, path)


def parse_documents(text: str, path: Path) -> tuple[list[Node], list[Problem]]:
    """As `read_documents`, of text that was read from `path`."""
    composer = _Composer(path)
    try:
        composer.run(text)
    except _Refused as refused:
        composer.problems.append(_problem(path, refused))
    except yaml.YAMLError as error:
        composer.problems.append(_problem(path, _syntax_error(error, text)))
    return composer.documents, composer.problems


def _problem(path: Path, refused: _Refused) -> Problem:
    return Problem(
        path, refused.line, refused.column, refused.message, suggestion=refused.suggestion
    )


def _read_text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Refused(1, 1, "is not a regular file")
        with path.open("rb") as file:
            data = read_at_most(file, MAX_BYTES + 1)
    except OSError as error:
        raise _Refused(1, 1, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise _Refused(
            1,
            1,
            f"is larger than {MAX_BYTES >> 20} MiB, which no manifest needs",
            "split it, or move the data out of the manifest",
        )
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line_start = before.rfind(b"\n") + 1
        raise _Refused(
            before.count(b"\n") + 1,
            len(before[line_start:].decode()) + 1,
            f"is not UTF-8: byte 0x{text[error.start]:02x}",
            "save the file as UTF-8",
        ) from error


def _syntax_error(error: yaml.YAMLError, text: str) -> _Refused:
    if isinstance(error, yaml.reader.ReaderError):
        before = text.encode()[: error.position].decode(errors="ignore")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return _Refused(line, column, f"YAML does not allow the character U+{error.character:04X}")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = ", ".join(
        part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part
    )
    lines = text.split("\n")
    if line > len(lines) or (line == len(lines) and not lines[-1]):
        last = text.rstrip()  # the end came too early: tell it where the text ends
        line, column = last.count("\n") + 1, len(last) - last.rfind("\n")
    elif lines[line - 1][column - 1 : column] == "\t":
        return _Refused(line, column, "YAML does not allow tabs here", "indent with spaces")
    if "mapping values are not allowed" in message:
        remedy = "quote a text that contains ': ', and begin the keys of a mapping in one column"
        return _Refused(line, column, f"not YAML: {message}", remedy)
    return _Refused(line, column, f"not YAML: {message or error}")


def _plain_tag(text: str) -> str:
    """The tag of a plain scalar, by PyYAML's tables of YAML 1.1."""
    for tag, pattern in _IMPLICIT.get(text[:1], ()):
        if pattern.match(text):
            return tag
    return _TEXT


_tag_of_word = functools.lru_cache(maxsize=1024)(_plain_tag)
"""Manifests say the same few words again and again."""


def _position(event: yaml.Event) -> tuple[int, int]:
    mark: Any = event.start_mark
    return mark.line + 1, mark.column + 1


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end has not come yet."""

    node: Node
    is_mapping: bool
    anchor: str | None
    key: Node | None = None
    merges: list[Node] = field(default_factory=list)


class _Composer:
    """Builds nodes from parser events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents: list[Node] = []
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}

    def run(self, text: str) -> None:
        handlers: dict[type[yaml.Event | None], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: lambda _: self._anchors.clear(),
        }
        parser = yaml.CSafeLoader(text)
        try:
            while (event := parser.get_event()) is not None:
                if (handle := handlers.get(type(event))) is not None:
                    handle(event)
        finally:
            parser.dispose()

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        line, column = _position(event)
        text = event.value
        tag = event.tag or _TEXT
        if event.tag is None and event.implicit[0]:
            tag = _tag_of_word(text) if len(text) <= _LONGEST_WORD else _plain_tag(text)
        node = Node(line, column, text, text)
        if tag not in _TEXT_TAGS:
            if tag == _MERGE:
                node.text = None
            else:
                node.value = self._construct(tag, text, line, column)
        self._complete(node, event.anchor)

    def _construct(self, tag: str, text: str, line: int, column: int) -> Any:
        construct = _CONSTRUCT.get(tag)
        if construct is None:
            shown = tag.replace(_TAG, "!!")
            self._report(line, column, f"the YAML tag {shown} is not supported", "remove the tag")
            return text
        try:
            value = construct(yaml.ScalarNode(tag, text))
            if isinstance(value, int) and abs(value) >= 1 << 63:
                raise ValueError("no manifest needs more than 64 bits")
            return value
        except (ValueError, KeyError, IndexError):
            suggestion = f"write '{text[:80]}' in quotes, if it is text"
            self._report(line, column, f"{text[:80]!r} is not a number that fits", suggestion)
            return text

    def _start(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        line, column = _position(event)
        if len(self._stack) == MAX_DEPTH:
            raise _Refused(line, column, f"is nested deeper than {MAX_DEPTH} levels")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        tag = event.tag
        if tag not in {None, "!", f"{_TAG}map", f"{_TAG}seq"}:
            shown = str(tag).replace(_TAG, "!!")
            self._report(line, column, f"the YAML tag {shown} is not supported", "remove the tag")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = Node(line, column, {} if is_mapping else [])
        self._stack.append(_Open(node, is_mapping, event.anchor))

    def _end(self, _: yaml.Event) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            self._merge(done.node, merged)
        node = done.node
        for child in node.children.values():
            node.size += child.size
            node.depth = max(node.depth, child.depth + 1)
        if node.size > MAX_NODES:
            raise _Refused(
                node.line,
                node.column,
                f"has more than {MAX_NODES} values once its aliases are expanded",
                "use fewer aliases, or split the document",
            )
        if node.depth > MAX_DEPTH:
            raise _Refused(node.line, node.column, f"is nested deeper than {MAX_DEPTH} levels")
        self._complete(node, done.anchor)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line, column = _position(event)
        if event.anchor not in self._anchors:
            raise _Refused(line, column, f"no anchor &{event.anchor} comes before this alias")
        node = self._anchors[event.anchor]
        if node is None:
            raise _Refused(line, column, f"the alias *{event.anchor} is inside its own anchor")
        self._complete(node, None)

    def _complete(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            if node.value is not None:
                self.documents.append(node)
            return
        parent = self._stack[-1]
        if not parent.is_mapping:
            parent.node.children[len(parent.node.value)] = node
            parent.node.value.append(node.value)
        elif parent.key is None:
            parent.key = node
        else:
            key, parent.key = parent.key, None
            self._pair(parent, key, node)

    def _pair(self, parent: _Open, key: Node, node: Node) -> None:
        if key.value == "<<" and key.text is None:
            parent.merges.append(node)
        elif not isinstance(key.value, str):
            if key.text is None:
                self._report(key.line, key.column, "a key must be text")
                return
            self._report(
                key.line,
                key.column,
                f"YAML reads the key {key.text[:40]} as {kind_of(key.value)}",
                f"write '{key.text[:40]}' in quotes",
            )
        elif key.value in parent.node.keys:
            first = parent.node.keys[key.value][0]
            self._report(
                key.line, key.column, f"the key {key.value[:80]!r} is already set on line {first}"
            )
        else:
            parent.node.keys[key.value] = (key.line, key.column)
            parent.node.children[key.value] = node
            parent.node.value[key.value] = node.value

    def _merge(self, into: Node, merged: Node) -> None:
        """YAML's merge key: what the mapping says itself wins, then the earlier of a list."""
        sources = list(merged.children.values()) if isinstance(merged.value, list) else [merged]
        for source in sources:
            if not isinstance(source.value, dict):
                self._report(merged.line, merged.column, "<< takes a mapping or a list of mappings")
                continue
            for key, child in source.children.items():
                if isinstance(key, str) and key not in into.children:
                    into.keys[key] = source.keys[key]
                    into.children[key] = child
                    into.value[key] = child.value

    def _report(self, line: int, column: int, message: str, suggestion: str | None = None) -> None:
        if len(self.problems) == MAX_PROBLEMS:
            raise _Refused(line, column, f"has more than {MAX_PROBLEMS} problems")
        self.problems.append(Problem(self.path, line, column, message, suggestion=suggestion))


def kind_of(value: object) -> str:
    """What YAML made of a value, for people."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case _:
            return "a list"
