from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgectl.engine import transforms
from edgectl.engine.errors import EngineError, InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.text import Tokenize

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "stop": 4, "the": 5, "pump": 6}


def write_tokenizer(path: Path, *, padding: int | None = None, words: Any = None) -> Path:
    """A tokenizer of few words that adds [CLS] and [SEP], as BERT's do."""
    tokenizer = Tokenizer(models.WordLevel(words or WORDS, unk_token="[UNK]"))  # type: ignore[no-untyped-call,unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[no-untyped-call,unused-ignore]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    if padding is not None:
        tokenizer.enable_padding(pad_id=padding, pad_token="x", length=512)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder / "tokenizer.json")
    return folder


def _ids(step: Tokenize, text: str, assets: Path) -> list[int]:
    made = step.apply(text.encode(), assets)
    assert made.shape == step.shape(())
    assert made.dtype == np.int64
    ids: list[int] = made.tolist()
    return ids


def test_texts_are_padded_and_cut_with_their_special_tokens(assets: Path) -> None:
    step = Tokenize("tokenizer.json", 6)
    assert _ids(step, "stop the pump", assets) == [1, 4, 5, 6, 2, 0]
    assert _ids(step, "", assets) == [1, 2, 0, 0, 0, 0]
    assert _ids(step, "stop the stop the stop pump", assets) == [1, 4, 5, 4, 5, 2]
    left = Tokenize("tokenizer.json", 4, truncate="start")
    assert _ids(left, "stop the pump", assets) == [1, 5, 6, 2]
    assert _ids(Tokenize("tokenizer.json", 5, pad=99), "pump", assets) == [1, 6, 2, 99, 99]
    assert _ids(Tokenize("tokenizer.json", 5, "mask"), "pump", assets) == [1, 1, 1, 0, 0]
    assert _ids(Tokenize("tokenizer.json", 5, "types"), "pump", assets) == [0] * 5


@given(words=st.lists(st.sampled_from([*list(WORDS)[4:], "Ärger", "pumpkin"]), max_size=12))
def test_ids_are_the_librarys_own(assets: Path, words: list[str]) -> None:
    text = " ".join(words)
    reference = Tokenizer.from_file(str(assets / "tokenizer.json"))
    reference.enable_truncation(8)
    reference.enable_padding(length=8)
    wanted = reference.encode(text)
    assert _ids(Tokenize("tokenizer.json", 8), text, assets) == wanted.ids
    assert _ids(Tokenize("tokenizer.json", 8, "mask"), text, assets) == wanted.attention_mask


def test_padding_that_the_file_declares(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json", padding=3)
    assert _ids(Tokenize("t.json", 5), "pump", tmp_path) == [1, 6, 2, 3, 3]
    nameless = {"<none>" if word == "[PAD]" else word: number for word, number in WORDS.items()}
    write_tokenizer(tmp_path / "n.json", words=nameless)
    with pytest.raises(EngineError, match="does not say which id pads: give 'pad'"):
        Tokenize("n.json", 5).apply(b"pump", tmp_path)
    assert _ids(Tokenize("n.json", 4, pad=7), "pump", tmp_path) == [1, 6, 2, 7]


def test_a_new_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    import os

    path = write_tokenizer(tmp_path / "t.json")
    assert _ids(Tokenize("t.json", 3), "pump", tmp_path) == [1, 6, 2]
    write_tokenizer(path, words={**WORDS, "pump": 9})
    os.utime(path, ns=(1, 1))
    assert _ids(Tokenize("t.json", 3), "pump", tmp_path) == [1, 9, 2]


def _spec(**parameters: Any) -> TensorSpec:
    step = {"tokenize": {"vocabulary": "tokenizer.json", "length": 4, **parameters}}
    return TensorSpec("ids", "INT32", (-1, 4), (step,))


def test_one_text_is_for_all_inputs_that_take_text(assets: Path) -> None:
    ids, mask = _spec(), _spec(give="mask")
    other = TensorSpec("x", "FP32", (-1, 4))
    assert transforms.sharing([ids, other, mask], mask) == [ids, mask]
    assert transforms.sharing([ids, other], other) == []
    made = transforms.preprocess(ids, b"pump", assets).array
    assert made.dtype == np.dtype(np.int32)
    assert made.tolist() == [[1, 6, 2, 0]]
    transforms.check(ids, "input")
    assert transforms.asset_names(ids) == ("tokenizer.json",)


def test_what_is_missing_shows_before_a_request(tmp_path: Path, assets: Path) -> None:
    transforms.load_assets([_spec()], assets)
    with pytest.raises(EngineError, match=r"input 'ids': cannot read the tokenizer .*tokenizer"):
        transforms.load_assets([_spec()], tmp_path)
    with pytest.raises(EngineError, match="no directory of the model was given"):
        transforms.load_assets([_spec()], None)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineError, match="is not a usable tokenizer"):
        transforms.load_assets([_spec()], tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(EngineError, match="bytes, more than 67108864"):
        transforms.load_assets([_spec()], tmp_path)


def test_wrong_texts_are_refused(assets: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        transforms.preprocess(_spec(), b"\xff\xfe", assets)
    with pytest.raises(InputError, match="5 bytes, more than 4"):
        transforms.preprocess(_spec(maxBytes=4), b"pumps", assets)


@pytest.mark.parametrize(
    "name", ["", "../tokenizer.json", "a/b.json", "/etc/passwd", ".hidden", "c:x", "a\\b", 3]
)
def test_a_vocabulary_is_a_plain_name(name: Any) -> None:
    with pytest.raises(ValueError, match="must be the plain name of a file beside the model"):
        transforms.canonical({"tokenize": {"vocabulary": name, "length": 4}})


def test_a_device_without_the_library_says_what_to_install(assets: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.modules["tokenizers"] = None
from edgectl.engine import transforms
from edgectl.engine.errors import EngineUnavailableError
from edgectl.engine.transforms.text import Tokenize
try:
    Tokenize("tokenizer.json", 4).open(Path({str(assets)!r}))
except EngineUnavailableError as error:
    assert "pip install 'edgectl[device,text]'" in str(error)
else:
    raise SystemExit("nothing was said")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
