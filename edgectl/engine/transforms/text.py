"""Text to token ids by a Hugging Face tokenizer.

The `tokenizers` library does the work, and is imported only when there is text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError, EngineUnavailableError, InputError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_VOCABULARY_BYTES = 64 << 20
_PADDING_NAMES = ("[PAD]", "<pad>", "<|padding|>")


@dataclass(frozen=True, slots=True)
class Tokenize:
    """UTF-8 text to int64 [length]: ids cut or padded to `length`, special tokens included.

    `vocabulary` is the tokenizer's file, which lies beside the model. `give` says which of a
    tokenizer's answers this input takes: its `ids`, the `mask` that is 1 where there is text, or
    the `types` of sentences. `pad` is the id that fills up; without it, the tokenizer's own.
    """

    vocabulary: str
    length: int
    give: str = "ids"
    pad: Any = None
    truncate: str = "end"
    max_bytes: int = 1 << 18

    def __post_init__(self) -> None:
        parameters.file_name("vocabulary", self.vocabulary)
        parameters.whole("length", self.length, most=1 << 16)
        parameters.choice("give", self.give, ("ids", "mask", "types"))
        if self.pad is not None:
            parameters.whole("pad", self.pad, least=0, most=(1 << 31) - 1)
        parameters.choice("truncate", self.truncate, ("end", "start"))
        parameters.whole("maxBytes", self.max_bytes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        return (self.length,)

    def open(self, assets: Path | None) -> Vocabulary:
        """The tokenizer, loaded once; raises EngineError if its file is missing or none, and
        EngineUnavailableError where the `tokenizers` library is not installed."""
        if assets is None:
            raise EngineError(
                f"the tokenizer {self.vocabulary!r} is looked for beside the model's file, but no"
                " directory of the model was given"
            )
        path = assets / self.vocabulary
        try:
            status = path.stat()
        except OSError as error:
            raise EngineError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        if status.st_size > MAX_VOCABULARY_BYTES:
            raise EngineError(
                f"the tokenizer {path} has {status.st_size} bytes, more than {MAX_VOCABULARY_BYTES}"
            )
        vocabulary = _load(path, status.st_mtime_ns, self.length, self.truncate)
        if self.give == "ids" and self.pad is None and vocabulary.pad is None:
            raise EngineError(f"the tokenizer {path} does not say which id pads: give 'pad'")
        return vocabulary

    def apply(self, encoded: bytes, assets: Path | None) -> NDArray[Any]:
        """Tokenize; raises InputError for what is not UTF-8 or too long, else as `open`."""
        import numpy as np

        if len(encoded) > self.max_bytes:
            raise InputError(f"the text has {len(encoded)} bytes, more than {self.max_bytes}")
        try:
            text = encoded.decode()
        except UnicodeDecodeError as error:
            raise InputError("the text is not UTF-8") from error
        vocabulary = self.open(assets)
        answer = vocabulary.tokenizer.encode(text)
        fill: Any = 0
        if self.give == "ids":
            tokens, fill = answer.ids, vocabulary.pad if self.pad is None else self.pad
        else:
            tokens = answer.attention_mask if self.give == "mask" else answer.type_ids
        made = np.full(self.length, fill, np.int64)
        made[: len(tokens)] = tokens
        return made


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A loaded tokenizer. It is changed no more, and so may be used by several threads at once."""

    tokenizer: Any
    pad: int | None
    """The id that pads, where the file says so."""


@lru_cache(maxsize=4)
def _load(path: Path, _modified: int, length: int, truncate: str) -> Vocabulary:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EngineUnavailableError(
            "this model takes text, which needs the package tokenizers:"
            " pip install 'edgectl[device,text]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
        pad = _padding(tokenizer)
        tokenizer.no_padding()
        direction = "right" if truncate == "end" else "left"
        tokenizer.enable_truncation(length, direction=direction)
    except Exception as error:  # The library raises nothing narrower.
        raise EngineError(f"{path} is not a usable tokenizer: {error}") from error
    return Vocabulary(tokenizer, pad)


def _padding(tokenizer: Any) -> int | None:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    known = (tokenizer.token_to_id(name) for name in _PADDING_NAMES)
    return next((token for token in known if token is not None), None)
