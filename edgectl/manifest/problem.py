"""What is wrong with manifests, and where: a `Problem` each, all of a run in `ManifestErrors`."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.errors import ManifestError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_SHOWN = 20
"""Most words to choose from; edgectl ships fewer targets."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest begins; lines count from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong at one place; line and column count from 1."""

    path: Path
    line: int
    column: int
    message: str
    field: str = ""
    """Dotted path of the field, `spec.inputs[0].datatype`; empty for the document or file."""
    suggestion: str | None = None
    """What to do instead, as a clause: `did you mean 'datatype'?`."""
    of_guess: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether it can come from what was put in the place of something wrong: then it is no news."""

    def __str__(self) -> str:
        text = f"{self.path}:{self.line}:{self.column}: "
        if self.field:
            text += f"{self.field}: "
        text += self.message
        return f"{text} ({self.suggestion})" if self.suggestion else text

    def to_json(self) -> dict[str, Any]:
        """The problem for machines: the `validate -o json` item."""
        return {
            "path": str(self.path),
            "line": self.line,
            "column": self.column,
            "field": self.field,
            "message": self.message,
            "suggestion": self.suggestion,
        }


class ManifestErrors(ManifestError):  # noqa: N818 - it holds several
    """Everything that is wrong with the manifests of one run, in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems, text = _told(problems)
        super().__init__(
            f"{text} in the manifests:\n{_lines(self.problems)}",
            hint="correct the lines above and run `edgectl validate` again",
        )


class SourceErrors(SourceError):  # noqa: N818 - it holds several
    """Every file that is not what the manifests say, in the order of the manifests."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems, text = _told(problems)
        super().__init__(
            f"{text} with the files that the manifests name:\n{_lines(self.problems)}",
            hint="restore the files, or correct the lines above if the change is meant",
        )


def _told(problems: Iterable[Problem]) -> tuple[tuple[Problem, ...], str]:
    """Problems, each once and in order, and how many there are."""
    by_place = {  # of an alias, what is wrong at its anchor is wrong at several fields
        (each.path, each.line, each.column, each.message, each.field.rpartition(".")[2]): each
        for each in sorted(problems, key=_order, reverse=True)
    }
    told = tuple(sorted(by_place.values(), key=_order))
    return told, "1 problem" if len(told) == 1 else f"{len(told)} problems"


def _lines(problems: Iterable[Problem]) -> str:
    return "\n".join(f"  {problem}" for problem in problems)


def _order(problem: Problem) -> tuple[Any, ...]:
    return (problem.path, problem.line, problem.column, problem.field, problem.message)


def dotted(path: tuple[str | int, ...]) -> str:
    """`spec.inputs[0].name` for `("spec", "inputs", 0, "name")`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(wrong: object, known: Iterable[str]) -> str | None:
    """`did you mean 'x'?` where known words are close, else the words to choose from."""
    words = sorted(set(known))
    if longer := _longer(wrong, words):
        return f"did you mean {_either(longer)}?"
    if (close := closest(wrong, words)) is not None:
        return f"did you mean {close!r}?"
    if not words:
        return None
    shown = ", ".join(words[:_SHOWN])
    return f"known: {shown}, …" if len(words) > _SHOWN else f"known: {shown}"


def _longer(wrong: object, words: Iterable[str]) -> list[str]:
    """The words of which a word is one part or several: `nuc` of `intel-nuc`."""
    if not isinstance(wrong, str) or not wrong:
        return []
    return [word for word in words if f"-{wrong.lower()}-" in f"-{word.lower()}-"]


def _either(words: list[str]) -> str:
    *first, last = [repr(word) for word in words]
    return f"{', '.join(first)} or {last}" if first else last


def closest(wrong: object, words: Iterable[str]) -> str | None:
    """The word that a misspelt one most likely means; case does not count."""
    if not isinstance(wrong, str) or len(wrong) > 100:
        return None
    by_lower = {word.lower(): word for word in words}
    found = difflib.get_close_matches(wrong.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
