"""What an objective makes of margins, and of the base score in the file.

XGBoost's `ObjFunction::ProbToMargin` and `PredTransform` (src/objective).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Link:
    """From margins to predictions."""

    operators: tuple[str, ...]
    """ONNX operators that turn margins into predictions, in order."""
    base: str = "identity"
    """How the base score becomes a margin: `identity`, `logit` or `log`."""

    def margin(self, base_score: NDArray[np.float32]) -> NDArray[np.float32]:
        """The base margin; refuses a base score outside the link's range."""
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = {
                "identity": lambda score: score,
                "logit": lambda score: -np.log(1 / score - 1),
                "log": np.log,
            }[self.base](base_score.astype(np.float64))
        if not np.isfinite(margin).all():
            raise RefusalError(
                "base-score",
                f"the base score {base_score.tolist()} has no {self.base}",
                hint="train again with a base_score inside the range of the objective",
            )
        return margin.astype(np.float32)


_SIGMOID = Link(("Sigmoid",), "logit")
_PROBABILITIES = Link(("Softmax",))
_EXP = Link(("Exp",), "log")
_SCORE = Link(())

LINKS = {
    "binary:logistic": _SIGMOID,
    # Its base score is a margin already, whatever it is called in the file.
    "binary:logitraw": _SCORE,
    "binary:hinge": Link(("Greater", "Cast")),
    # Both: the file of a model that answers with the class holds the same trees.
    "multi:softprob": _PROBABILITIES,
    "multi:softmax": _PROBABILITIES,
    "reg:logistic": _SIGMOID,
    "reg:squarederror": _SCORE,
    "reg:linear": _SCORE,
    "reg:squaredlogerror": _SCORE,
    "reg:pseudohubererror": _SCORE,
    "reg:absoluteerror": _SCORE,
    "reg:quantileerror": _SCORE,
    "reg:gamma": _EXP,
    "reg:tweedie": _EXP,
    "count:poisson": _EXP,
    "survival:cox": _EXP,
    "survival:aft": _EXP,
    "rank:ndcg": _SCORE,
    "rank:map": _SCORE,
    "rank:pairwise": _SCORE,
}


def link_of(objective: str) -> Link:
    """The link of an objective; refuses one that is not known."""
    if objective not in LINKS:
        raise RefusalError(
            "unsupported-objective",
            f"the objective {objective!r} is not known to this builder",
            node=objective,
            hint=f"train with one of: {', '.join(LINKS)}",
        )
    return LINKS[objective]
