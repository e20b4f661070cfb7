"""Every recipe on every engine that takes it and runs here, against the framework it came from.

The variants are made by edgectl's plan and builders. All of a recipe run in turns, each in its own
process, on one thread, one row at a time; then all rows of the test data for the metric.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.build.gates import violations
from edgectl.engine.host import describe_host
from edgectl.engine.npz import read_npz
from edgectl.engine.scoring import Answers, score
from edgectl.engine.tasks import main_metric
from edgectl.quantity import format_bytes, format_seconds
from tests.bench._quiet import Clock
from tests.bench._race import Contender, Timing, race, ratio
from tests.bench._sources import TOOLCHAINS
from tests.bench._variants import ENGINES, Recipe, make, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgectl.desired import DesiredModel
    from edgectl.engine.signature import TensorSpec

SOURCE = "source"
PLAIN = "plain"
REFUSED = " ✗"
"""Behind a metric that the gates of the manifest do not let pass."""
_HEAD = ("size", "p50", "p99", "CPU", "peak memory", "speed / source", "speed / ONNX Runtime")


def main() -> None:
    """Print a table for each recipe, and what was not measured and why."""
    print(f"{describe_host()['cpu']}, one thread, batch 1\n")
    refused: dict[str, Mapping[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        desired = plan(Path(folder) / "project")
        made = make(desired, Path(folder) / "work", at_once=os.cpu_count() or 1)
        started = Clock.now()
        for recipe in made:
            timings, failed = race(contenders_of(recipe), answers=True)
            refused[recipe.model.name] = recipe.refused | failed
            if timings:
                print("\n".join(table(recipe.model, timings)), end="\n\n", flush=True)
    print("Not in the tables:\n")
    print("\n".join(f"- {line}" for line in reasons(refused)))
    print(f"\n{started.since()}")


def contenders_of(recipe: Recipe) -> list[Contender]:
    """What runs against what: the source and plain ONNX Runtime first."""
    model = recipe.model
    assert model.source.path is not None
    assert model.evaluation is not None
    contender = partial(
        Contender,
        data=str(model.evaluation.path),
        inputs=_specs(model.inputs),
        outputs=_specs(model.outputs),
    )
    found = []
    if form := model.source_format if model.source_format in TOOLCHAINS else "":
        source = str(model.source.path)
        found.append(contender(SOURCE, TOOLCHAINS[form], source, form=form))
    variants = sorted(recipe.variants, key=lambda each: list(ENGINES).index(each.engine))
    found += [
        contender(PLAIN, each.toolchain, str(each.path))
        for each in variants
        if (each.engine, each.precision) == ("onnxruntime", "fp32") and form != "onnx"
    ]
    for each in variants:
        title = f"{each.engine} {each.precision}"
        found.append(contender(title, each.toolchain, str(each.path), engine=each.engine))
    return found


def table(model: DesiredModel, timings: Sequence[Timing]) -> Iterable[str]:
    """A Markdown table of one recipe."""
    by_title = {each.contender.title: each for each in timings}
    source = by_title.get(SOURCE)
    plain = source if model.source_format == "onnx" else by_title.get(PLAIN)
    scores = [metrics(model, each) for each in timings]
    metric = main_metric(scores[0]) or next(iter(scores[0]))
    rows = len(next(iter(read_npz(Path(timings[0].contender.data)).values())))
    yield f"| {model.name}, {rows} rows | {metric} | {' | '.join(_HEAD)} |"
    yield f"|---|{'---:|' * (len(_HEAD) + 1)}"
    for each, found in zip(timings, scores, strict=True):
        cells = [
            title_of(each, model.source_format),
            f"{found[metric]:.4g}" + (REFUSED if gated(model, found, scores[0]) else ""),
            format_bytes(size_of(Path(each.contender.model))),
            format_seconds(each.seconds(50)),
            format_seconds(each.seconds(99)),
            format_seconds(each.cpu_seconds),
            format_bytes(each.peak),
            *(times(base, each) for base in (source, plain)),
        ]
        yield f"| {' | '.join(cells)} |"


def title_of(timing: Timing, form: str) -> str:
    """What a row is called: the framework and that it is the source, or the engine's variant."""
    title = timing.contender.title
    if title == SOURCE:
        return f"{timing.engine}: the source" + (" as it is" if form == "onnx" else "")
    return f"{timing.engine}, as it comes" if title == PLAIN else f"edgectl, {title}"


def metrics(model: DesiredModel, timing: Timing) -> dict[str, float]:
    """What the task says of the outputs."""
    assert timing.outputs is not None
    arrays = read_npz(Path(timing.contender.data))
    answers = Answers(arrays, model.evaluation_labels, model.inputs, model.outputs, timing.outputs)
    return score(model.task, answers)


def gated(model: DesiredModel, found: Mapping[str, float], baseline: Mapping[str, float]) -> bool:
    """Whether the manifest's gates keep an apply from releasing it."""
    report = {"metrics": found, "sizeBytes": 0, "latency": {}}
    bounds = {name: gate for name, gate in model.gates.items() if name in baseline}
    return bool(violations(report, gates=bounds, limits={}, baseline=baseline))


def times(base: Timing | None, timing: Timing) -> str:
    """The speed as a multiple of the base's."""
    return "" if base is None else f"{ratio(base, timing):.2f}"


def size_of(path: Path) -> int:
    """Bytes of a model: of its file, or of the files of a directory that belong to it.

    The sources of a project for a board, beside `model.tflite`, do not.
    """
    if path.is_file():
        return path.stat().st_size
    files = [each for each in path.rglob("*") if each.is_file()]
    own = [each for each in files if each.name.startswith("model.")] or files
    return sum(each.stat().st_size for each in own)


def reasons(refused: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Who was not measured and why: one line for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, several in refused.items():
        for what, reason in several.items():
            text = reason.partition("refuses to ")[2].partition(" it: ")[2] or reason
            by_reason.setdefault((name, text.partition("; target ")[0]), []).append(what)
    return [
        f"`{name}` on {', '.join(engines)}: {reason}"
        for (name, reason), engines in by_reason.items()
    ]


def _specs(tensors: Iterable[TensorSpec]) -> tuple[Mapping[str, object], ...]:
    return tuple({"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors)


if __name__ == "__main__":
    main()
