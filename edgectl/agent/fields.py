"""A strict reader of one YAML document: every key is taken once, and every problem is kept."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from edgectl.errors import ConfigError, EdgectlError
from edgectl.oci.filesystem import read_at_most
from edgectl.oci.reference import RegistryLocation
from edgectl.quantity import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 1 << 20
T = TypeVar("T")


def read_yaml(path: Path, hint: str) -> Any:
    """The one document of a file; raises ConfigError with `hint` if it cannot be had.

    A key that is given twice is an error: YAML would silently take the last.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is given twice", node.start_mark
                    )
            return super().construct_mapping(node, deep)

    try:
        with path.open("rb") as file:
            data = read_at_most(file, MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes", hint=hint)
    try:
        return yaml.load(data, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {error.problem}", hint=hint) from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # ValueError and AttributeError: a scalar that looks like a date or number, and is none
        raise ConfigError(f"{path} is not YAML: {error}", hint=hint) from error


class Fields:
    """The mapping of a document, whose keys are taken one by one; what is left is unknown."""

    def __init__(self, value: Any, base: Path, name: str = "", problems: list[str] | None = None):
        self.problems: list[str] = [] if problems is None else problems
        self.base = base
        self._name = name
        self._known: list[str] = []
        self._value: dict[Any, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            self.problem(f"{name or 'the document'} has to be a mapping of keys to values")

    def problem(self, text: str) -> None:
        """Note one thing that is wrong."""
        self.problems.append(text)

    def name(self, key: str) -> str:
        """The dotted name of a key, as messages give it."""
        return f"{self._name}.{key}" if self._name else key

    def take(self, key: str, *, required: bool = False) -> Any:
        """A key's raw value, None if it is absent."""
        self._known.append(key)
        value = self._value.get(key)
        if value is None and required:
            self.problem(f"{self.name(key)} is missing")
        return value

    def section(self, key: str, *, required: bool = False) -> Fields:
        """A nested mapping; an empty one if it is absent."""
        value = self.take(key, required=required)
        return Fields({} if value is None else value, self.base, self.name(key), self.problems)

    def text(self, key: str, *, required: bool = False) -> str:
        """A string; empty if it is absent or wrong."""
        value = self.take(key, required=required)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.strip():
            self.problem(f"{self.name(key)} has to be a text, not {_shown(value)}")
            return ""
        return value

    def path(self, key: str, *, required: bool = False) -> Path | None:
        """A path, relative to the file's directory."""
        text = self.text(key, required=required)
        return self.base / text if text else None

    def file(self, key: str, *, required: bool = False) -> Path | None:
        """A path to a file that has to be there."""
        path = self.path(key, required=required)
        if path is not None and not path.is_file():
            self.problem(f"{self.name(key)}: there is no file {path}")
        return path

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number in a range."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(f"{self.name(key)} has to be a number, not {_shown(value)}")
            return default
        if not least <= value <= most:
            self.problem(
                f"{self.name(key)} has to be from {least:g} to {most:g}, not {_shown(value)}"
            )
            return default
        return float(value)

    def seconds(self, key: str, default: float) -> float:
        """A duration such as `30m`."""
        return self.parsed(key, parse_seconds, default)

    def size(self, key: str, default: int) -> int:
        """A number of bytes such as `64Mi`."""
        return self.parsed(key, parse_bytes, default)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, (bool, type(None))):
            self.problem(f"{self.name(key)} has to be true or false, not {_shown(value)}")
        return value is True

    def texts(self) -> dict[str, str]:
        """The whole mapping as strings."""
        for key, value in self._value.items():
            if not isinstance(key, str) or not isinstance(value, str):
                self.problem(
                    f"{self.name(str(key))} has to be a text, not {_shown(value)}: quote it"
                )
        self._known.extend(str(key) for key in self._value)
        return {str(key): str(value) for key, value in self._value.items()}

    def registry(self, key: str) -> RegistryLocation:
        """A registry setting; a layout's directory is relative to the file's."""
        nowhere = RegistryLocation("", is_layout=True)
        location = self.parsed(key, RegistryLocation.parse, nowhere, required=True)
        if location.is_layout:
            return RegistryLocation(str(self.base / location.base), is_layout=True)
        return location

    def url(self, key: str) -> str | None:
        """An http URL without a path, None if it is absent."""
        text = self.text(key)
        if not text:
            return None
        if not _is_server(text):
            self.problem(f"{self.name(key)}: {text!r} is not like http://127.0.0.1:8080")
        return text.rstrip("/")

    def files(self, key: str) -> tuple[Path, ...]:
        """A list of at least one file."""
        value = self.take(key, required=True)
        if value is None:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            self.problem(f"{self.name(key)} has to be a list of at least one file")
            return ()
        paths = tuple(self.base / item for item in value)
        for path in paths:
            if not path.is_file():
                self.problem(f"{self.name(key)}: there is no file {path}")
        return paths

    def directories(self) -> dict[str, Path]:
        """The whole mapping as directories that have to be there."""
        found = {key: self.base / text for key, text in self.texts().items()}
        for key, path in found.items():
            if not path.is_dir():
                self.problem(f"{self.name(key)}: there is no directory {path}")
        return found

    def end(self) -> None:
        """Note every key that was not taken."""
        for key in self._value:
            if key not in self._known:
                close = difflib.get_close_matches(str(key), self._known, n=1)
                meant = f": did you mean {close[0]!r}?" if close else ""
                self.problem(f"{self.name(str(key))} is not a known key{meant}")

    def parsed(
        self, key: str, parse: Callable[[str], T], default: T, *, required: bool = False
    ) -> T:
        """A string that `parse` turns into a value, raising ValueError or EdgectlError."""
        text = self.text(key, required=required)
        if not text:
            return default
        try:
            return parse(text)
        except (ValueError, EdgectlError) as error:
            self.problem(f"{self.name(key)}: {error}")
            return default


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed, and refused, only when asked for
    except ValueError:
        return False
    return parts.scheme == "http" and bool(parts.hostname) and not parts.path.strip("/")


def _shown(value: Any) -> str:
    """A value for a message; what a nested one holds is not repeated, which may be without end."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return reprlib.repr(value)
