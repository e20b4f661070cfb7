"""Accuracy of a model on the labelled samples that a device holds."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from edgectl.agent.server import BusyServerError, RefusedSampleError
from edgectl.agent.stopping import pause
from edgectl.agent.warmup import UnhealthyModelError, require_healthy, warm_up
from edgectl.engine.errors import InputError
from edgectl.engine.labels import read_samples
from edgectl.engine.signature import ModelSignature
from edgectl.errors import ConfigError
from edgectl.serve.slot import compiled_cache, model_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from edgectl.agent.device import Device
    from edgectl.agent.server import Server
    from edgectl.digest import Digest
    from edgectl.engine.labels import Sample
    from edgectl.serve.slot import SlotModel

_AGAIN = 0.5
"""Seconds until a busy server is asked again."""
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def measure_accuracy(device: Device, slot: Digest, model: SlotModel) -> float | None:
    """Share of the samples that a model gets right, 0 to 1; None if the device has none of it.

    Pictures go to the server as a client would send them. Other samples, or any without a server,
    are answered in a sub-process. Raises UnhealthyModelError, ServerUnavailableError, and
    ConfigError if the samples are not usable.
    """
    samples = device.config.samples.get(model.name)
    if samples is None:
        return None
    listed = labelled(samples)
    directory = model_path(device.config.state, slot, model.name)
    if device.server is not None and all(sample.file.suffix in _PICTURES for sample in listed):
        patience = device.config.switch_timeout
        return _through_server(device.server, directory, model, listed, patience, device.stop)
    return _in_process(device, directory, model, samples)


def labelled(directory: Path) -> list[Sample]:
    """The samples of a directory; raises ConfigError."""
    try:
        return read_samples(directory)
    except InputError as error:
        raise _unusable(str(error)) from error


def _unusable(reason: str) -> ConfigError:
    return ConfigError(
        f"the labelled samples are not usable: {reason}",
        hint="correct the directory, or take it out of `samples` in device.yaml",
    )


def _through_server(
    server: Server,
    directory: Path,
    model: SlotModel,
    samples: list[Sample],
    patience: float,
    stop: Event,
) -> float:
    try:
        signature = ModelSignature.from_json((directory / "signature.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UnhealthyModelError(model.name, f"{model.name}: {error}") from error
    if len(signature.inputs) != 1 or not signature.outputs:
        raise ConfigError(
            f"{model.name} does not take one picture and nothing else",
            hint="give its samples as .json files",
        )
    source, output = signature.inputs[0].name, signature.outputs[0].name
    right, refused = 0, []
    for sample in samples:
        try:
            image = sample.file.read_bytes()
        except OSError as error:
            raise _unusable(str(error)) from error
        classify = partial(server.classify, model.name, model.version, source, output, image)
        try:
            right += _patiently(classify, patience, stop) == sample.label
        except RefusedSampleError as error:
            refused.append(f"{sample.file.name}: {error}")
    if len(refused) == len(samples):
        raise UnhealthyModelError(
            model.name, f"{model.name} takes none of the samples: {refused[0]}"
        )
    if refused:
        raise _unusable(refused[0])
    return right / len(samples)


def _patiently(classify: Callable[[], str], patience: float, stop: Event) -> str:
    """Ask again while the server is busy: its other requests are no fault of a model."""
    deadline = time.monotonic() + patience
    while True:
        pause(0, stop)
        try:
            return classify()
        except BusyServerError:
            if time.monotonic() > deadline:
                raise
        pause(_AGAIN, stop)


def _in_process(device: Device, directory: Path, model: SlotModel, samples: Path) -> float | None:
    config = device.config
    report = warm_up(
        model.name, directory, threads=config.threads, timeout=config.warmup_timeout,
        stop=device.stop, samples=samples, runs=1, engine=model.engine,
        cache=compiled_cache(config.state, model.manifest),
    )  # fmt: skip
    if report.unusable_samples:
        raise _unusable(report.unusable_samples)
    require_healthy(model.name, report, {}, simulated=True)
    return report.accuracy
