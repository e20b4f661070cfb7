"""What is made of a transformers model: one tensor in, one tensor out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification
from transformers import AutoModelForSequenceClassification as AutoModelForText
from transformers.models.auto import modeling_auto as names

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from directories import Directory

MASKED = -100.0
"""Added to the attention scores of padding: e to its power is nothing, and unlike the lowest float
it leaves a quantised range, or one of 16 bits, room for the scores themselves."""
_POOLING = "1_Pooling/config.json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model is for."""

    name: str
    """`image-classification`, `text-classification` or `embedding`."""
    auto: Any
    """The class of transformers that finds the model's own class."""


IMAGE = Kind("image-classification", AutoModelForImageClassification)
TEXT = Kind("text-classification", AutoModelForText)
EMBEDDING = Kind("embedding", AutoModel)
_CLASSES = (
    (IMAGE, names.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    (TEXT, names.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    (EMBEDDING, names.MODEL_MAPPING_NAMES),
)


def network_kind(directory: Directory, *, trusted: bool) -> Kind:
    """What the architecture of a directory is for; refuses what transformers has no class for."""
    name = directory.architecture
    remote = "auto_map" in directory.config
    if trusted and remote and directory.code:
        return next((kind for kind in (IMAGE, TEXT) if _suffix(kind) in name), EMBEDDING)
    for kind, classes in _CLASSES:
        for entry in classes.values():
            if name in ((entry,) if isinstance(entry, str) else entry):
                return kind
    own = ", or code of its own: set source.trustCode: true to run it" if remote else ""
    raise RefusalError(
        "unsupported-architecture",
        f"architecture {name!r} is none for classifying images or text or for embedding text{own}",
        node=name,
        hint="use a ForImageClassification or ForSequenceClassification class or a bare encoder "
        "of transformers; export any other with torch.export.save and source.format: pytorch",
    )


def _suffix(kind: Kind) -> str:
    return "ForImageClassification" if kind is IMAGE else "ForSequenceClassification"


class Network(nn.Module):
    """A model behind one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class ImageNetwork(Network):
    """pixel_values [n, c, h, w] to logits [n, classes]."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.model(pixel_values=pixels).logits


class TextNetwork(Network):
    """input_ids [n, length] to logits [n, classes], or to embeddings [n, size] of length 1."""

    def __init__(self, model: nn.Module, pad: int, pooling: str | None, *, additive: bool) -> None:
        super().__init__(model)
        self.pad = pad
        self.pooling = pooling
        self.additive = additive

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits; with pooling, the mean or first vector of the last layer at length 1."""
        tokens = tokens.long()
        kept = (tokens != self.pad).float()
        mask = (1.0 - kept)[:, None, None, :] * MASKED if self.additive else kept.long()
        outputs = self.model(input_ids=tokens, attention_mask=mask)
        if self.pooling is None:
            return outputs.logits
        hidden = outputs.last_hidden_state
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = kept.unsqueeze(-1)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=1)


def choose_network(
    kind: Kind, model: nn.Module, directory: Directory, example: torch.Tensor
) -> tuple[Network, Network]:
    """The network as transformers runs it, and the one to convert.

    They differ in the attention mask. As numbers to add it needs three operators that every engine
    has, where transformers makes one from indices; some architectures take it so, and do the same.
    """
    if kind is IMAGE:
        return ImageNetwork(model).eval(), ImageNetwork(model).eval()
    pad = getattr(model.config, "pad_token_id", None)
    if getattr(model, "main_input_name", "") != "input_ids" or model.config.is_encoder_decoder:
        raise RefusalError(
            "unsupported-architecture",
            f"{directory.architecture!r} is no encoder of text alone",
            node=directory.architecture,
            hint="export it with torch.export.save and source.format: pytorch",
        )
    if not isinstance(pad, int) or pad < 0:
        raise RefusalError(
            "no-pad-token",
            f"config.json has no pad_token_id (it says {pad!r}), by which padding is told from "
            "text",
            node="pad_token_id",
            hint="set pad_token_id in config.json to the id that the tokenizer pads with",
        )
    pooling = _pooling(directory) if kind is EMBEDDING else None
    source = TextNetwork(model, pad, pooling, additive=False).eval()
    plain = TextNetwork(model, pad, pooling, additive=True).eval()
    return source, plain if _same(source, plain, example, pad) else source


def _same(source: Network, plain: Network, example: torch.Tensor, pad: int) -> bool:
    tokens = example[:2].clone()
    tokens[-1, max(1, tokens.shape[1] // 2) :] = pad
    try:
        with torch.no_grad():
            return torch.allclose(source(tokens), plain(tokens), rtol=1e-3, atol=1e-4)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # it takes a mask of another shape; what else is wrong shows in the export


def _pooling(directory: Directory) -> str:
    """`mean` or `cls`: what sentence-transformers wrote down, else the mean."""
    config = directory.json(_POOLING)
    modes = sorted(name for name, on in config.items() if name.startswith("pooling_mode") and on)
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in known:
        raise RefusalError(
            "unsupported-pooling",
            f"{_POOLING} asks for {', '.join(modes)}",
            node=modes[0],
            hint="use the mean or the first token alone",
        )
    return known[modes[0]]
