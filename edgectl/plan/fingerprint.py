"""What a model version is made from, input by input: for saying what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.plan.backends import used
from edgectl.plan.step import REVISION

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgectl.desired import Desired, DesiredModel, PinnedFile
    from edgectl.plan.step import StepKind


EDGECTL = "edgectl itself"
"""The name of edgectl's own code among the inputs."""


def model_inputs(
    model: DesiredModel, desired: Desired, kinds: Collection[StepKind]
) -> dict[str, str]:
    """What a model version is made from, by the name a person knows it by; `kinds` are those of its
    steps, of whose code the revision counts."""
    files: dict[str, PinnedFile | None] = {
        "source": model.source,
        "calibration data": model.calibration,
        "evaluation data": model.evaluation,
        "golden data": model.golden,
        "model card template": desired.model_card,
    }
    files |= {f"metric {name}": file for name, (file, _) in model.own_metrics.items()}
    files |= {f"asset {name}": file for name, file in model.assets.items()}
    values = {name: str(file.digest) for name, file in files.items() if file is not None}
    values |= {
        f"the {each.name} builder": str(each.digest) for each in used(desired.builders, model)
    }
    values[EDGECTL] = ", ".join(f"{kind} {REVISION[kind]}" for kind in sorted(kinds))
    values["source date epoch"] = str(desired.source_date_epoch)
    values["signing keys"] = _fingerprint(list(desired.signers))
    values["gates"] = _fingerprint({m: dict(gate) for m, gate in model.gates.items()})
    values["calibration settings"] = _fingerprint(dict(model.calibration_params))
    tensors = (*model.inputs, *model.outputs)
    values["signature"] = _fingerprint(
        [[t.name, t.datatype, t.shape, [dict(x) for x in t.transforms], t.labels] for t in tensors]
    )
    values["source settings"] = _fingerprint([model.source_format, model.trust_code])
    values["compression"] = _fingerprint(dict(model.compression))
    values["golden tolerance"] = _fingerprint(dict(model.golden_tolerance))
    values["description"] = _fingerprint([model.task, model.description, model.license])
    for variant in model.variants:
        target = variant.target
        values[f"target {target.name}"] = _fingerprint(
            [
                variant.precision,
                target.platform.to_json(),
                target.engine,
                target.engine_version,
                dict(target.engine_options),
                target.cores,
                dict(target.quantization),
                dict(target.limits),
                target.requirements(),
            ]
        )
    return values


def _fingerprint(value: Any) -> str:
    return str(Digest.of(canonical_json(value)))
