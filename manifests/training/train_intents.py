"""Trains the intents model and its tokenizer, and writes its data sets.

Needs more than edgectl does, so it runs in an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 safetensors numpy
    python manifests/training/train_intents.py

Fifteen intents of requests to a home and a shop floor, from the grammar in `phrases.py`. The
patterns of a part are its own: no sentence of the test has the pattern of one that was trained on,
and its rooms and machines are in part new. The tokenizer learns its word pieces from the training
texts alone; the model is a BERT of two layers, from random weights. Its size and how long it is
trained were chosen by the calibration's patterns; how test patterns are drawn changed once, after
a look at the test, as docs/recipes.md says.

    golden 4 and samples 30 (test patterns), evaluation 750 (test), calibration 150, training 9,000
"""

import csv
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import transformers
from dataset import write_npz
from phrases import INTENTS, requests
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

MANIFESTS = Path(__file__).resolve().parent.parent
VERSION = "1.0.0"
LENGTH = 24
VOCABULARY = 1000
EPOCHS = 10
HIDDEN = 0.1
"""Share of the word pieces that a step of the training does not show, so that no single word
decides."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
UNKNOWN = 1
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": LENGTH,
    "type_vocab_size": 1,
    "pad_token_id": 0,
    "hidden_act": "relu",
}
SAMPLES = slice(4, 34)
"""Of the test's requests; those before are golden, those after the evaluation."""


def learn_pieces(texts: list[str], count: int) -> list[str]:
    """`count` word pieces: the special ones, the letters, and what byte pair encoding joins.

    The trainer of tokenizers breaks ties by a hash that differs from run to run; here the piece
    that comes first in the alphabet wins.
    """
    words = Counter(word for text in texts for word in text.lower().split())
    spelt = {word: [word[0], *(f"##{letter}" for letter in word[1:])] for word in words}
    pieces = sorted({piece for letters in spelt.values() for piece in letters})
    while len(SPECIAL) + len(pieces) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelt.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        first, second = min(pairs, key=lambda pair: (-pairs[pair], pair))
        joined = first + second.removeprefix("##")
        if joined not in pieces:
            pieces.append(joined)
        for parts in spelt.values():
            for place in range(len(parts) - 2, -1, -1):
                if parts[place : place + 2] == [first, second]:
                    parts[place : place + 2] = [joined]
    return [*SPECIAL, *pieces]


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Word pieces, lower case, `[CLS] text [SEP]`."""
    vocabulary = {piece: i for i, piece in enumerate(learn_pieces(texts, VOCABULARY))}
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=40)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    ids = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ids
    )
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=0, pad_token="[PAD]")
    return tokenizer


def tokens_of(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """int64 [n, LENGTH]."""
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(texts)], np.int64)


def train(tokens: np.ndarray, labels: np.ndarray, vocabulary: int) -> nn.Module:
    """AdamW with warm-up and linear decay, batches of 64, everything seeded.

    tokens int64 [n, LENGTH], labels int64 [n]; `vocabulary` is how many word pieces there are.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        id2label=dict(enumerate(INTENTS)),
        label2id={name: number for number, name in enumerate(INTENTS)},
        **CONFIG,
    )
    model = transformers.BertForSequenceClassification(config)
    x, y = torch.from_numpy(tokens), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    steps = EPOCHS * -(-len(x) // 64)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(64):
            longest = int((x[batch] != 0).sum(dim=1).max())
            shown = x[batch, :longest]
            shown[(torch.rand(shown.shape) < HIDDEN) & (shown >= len(SPECIAL))] = UNKNOWN
            optimizer.zero_grad()
            logits = model(shown, attention_mask=(shown != 0).long()).logits
            nn.functional.cross_entropy(logits, y[batch], label_smoothing=0.05).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def infer(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Logits float32 [n, intents]."""
    with torch.no_grad():
        x = torch.from_numpy(tokens)
        return model(x, attention_mask=(x != 0).long()).logits.numpy()


def save(model: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """config.json, model.safetensors and tokenizer.json."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2, sort_keys=True) + "\n")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n")


def write_samples(texts: list[str], labels: np.ndarray, folder: Path) -> None:
    """Requests for devices: text files and `labels.csv`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label"])
        for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
            name = f"request-{number:02}.txt"
            (folder / name).write_text(text)
            writer.writerow([name, INTENTS[label]])


def part(name: str, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts and labels."""
    texts, labels = zip(*requests(name, count, seed), strict=True)
    return list(texts), np.array(labels, np.int64)


def accuracies(model: nn.Module, tokens: np.ndarray, labels: np.ndarray) -> str:
    """Of all requests, and of those of each intent."""
    right = infer(model, tokens).argmax(axis=1) == labels
    each = (f"{name} {right[labels == number].mean():.2f}" for number, name in enumerate(INTENTS))
    return f"accuracy {right.mean():.4f} on {len(right)} requests ({', '.join(each)})"


def main() -> None:
    """Train, save, write every data set, and print the accuracies."""
    transformers.logging.disable_progress_bar()
    texts, labels = part("train", 9000, 0)
    tokenizer = make_tokenizer(texts)
    model = train(tokens_of(tokenizer, texts), labels, tokenizer.get_vocab_size())
    save(model, tokenizer, MANIFESTS / "models" / f"intents-{VERSION}")
    folder = MANIFESTS / "data" / "intents" / VERSION
    ranges, expected = part("calibration", 150, 2)
    seen = tokens_of(tokenizer, ranges)
    write_npz(folder / "calibration.npz", input_ids=seen)
    tested, answers = part("test", 784, 1)
    golden, rest = slice(SAMPLES.start), slice(SAMPLES.stop, None)
    tokens = tokens_of(tokenizer, tested)
    write_npz(folder / "golden.npz", input_ids=tokens[golden], logits=infer(model, tokens[golden]))
    write_npz(folder / "evaluation.npz", input_ids=tokens[rest], label=answers[rest])
    write_samples(tested[SAMPLES], answers[SAMPLES], MANIFESTS / "samples" / "intents")
    print("training:", accuracies(model, tokens_of(tokenizer, texts), labels))
    print("calibration patterns:", accuracies(model, seen, expected))
    print("test patterns:", accuracies(model, tokens[rest], answers[rest]))


if __name__ == "__main__":
    main()
