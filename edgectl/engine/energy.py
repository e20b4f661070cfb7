"""The energy of what runs meanwhile: from the processor's counter or the board's power monitor."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_RAPL = "class/powercap"
_SAMPLE_SECONDS = 0.05
_MONITORS = {"ina3221", "ina219", "ina226", "ina238"}
_CHANNELS = (1, 2, 3)
_INPUTS = {"VDD_IN"}
"""What NVIDIA calls the supply of a whole Jetson Orin NX or Nano; an AGX Orin has none such, and
its rails add up to the module's power."""
_UNUSED = {"NC"}


@dataclass(slots=True)
class EnergyMeter:
    """Measures between entering and leaving it; `joules` stays None where nothing can be read.

    RAPL (Documentation/power/powercap in the kernel) counts whole processor packages, INA power
    monitors (hwmon) a board's supply: both include what else the machine does meanwhile.
    """

    root: Path = Path("/sys")
    joules: float | None = None
    source: str = ""
    """`rapl` or `ina`."""
    _before: dict[Path, int] | None = None
    _sampler: _Sampler | None = None

    def __enter__(self) -> Self:
        self._before = _rapl(self.root)
        if not self._before:
            supplies = _monitors(self.root)
            self._sampler = _Sampler(supplies) if supplies else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._before:
            self.source = "rapl"
            self.joules = sum(
                _advance(counter, before, after)
                for counter, after in _rapl(self.root).items()
                if (before := self._before.get(counter)) is not None
            )
        elif self._sampler is not None:
            self.source, self.joules = "ina", self._sampler.stop()


def _rapl(root: Path) -> dict[Path, int]:
    """The counters of the processor packages, in microjoules; empty where they cannot be read."""
    counters = {}
    for directory in sorted((root / _RAPL).glob("intel-rapl:?")):
        try:
            counters[directory] = int((directory / "energy_uj").read_text())
        except (OSError, ValueError):
            return {}  # readable by root alone since Linux 5.10 (CVE-2020-8694)
    return counters


def _advance(counter: Path, before: int, after: int) -> float:
    """Joules between two readings of a counter that starts again at its range."""
    if after < before:
        after += int((counter / "max_energy_range_uj").read_text())
    return (after - before) / 1e6


def _monitors(root: Path) -> list[_Supply]:
    """What the board's INA monitors measure; only the board's input where one of them says so.

    The input's power is in that of the others, so that they would count twice.
    """
    found = []
    for directory in sorted((root / "class/hwmon").glob("hwmon*")):
        try:
            known = (directory / "name").read_text().strip() in _MONITORS
        except OSError:
            continue
        if known:
            found += _supplies(directory)
    return [supply for supply in found if supply.is_input] or found


def _supplies(directory: Path) -> list[_Supply]:
    """The power readings of a monitor. That of three channels (ina3221) has none, but voltages and
    currents (Documentation/hwmon/ina3221.rst); a channel that is not connected has no current."""
    if (directory / "power1_input").exists():
        return [_Supply((directory / "power1_input",), 1e6, is_input=True)]
    supplies = []
    for channel in _CHANNELS:
        pair = (directory / f"in{channel}_input", directory / f"curr{channel}_input")
        label = directory / f"in{channel}_label"
        try:
            name = label.read_text().strip() if label.exists() else ""
            supply = _Supply(pair, 1e6, is_input=name in _INPUTS)
            supply.watts()
        except (OSError, ValueError):
            continue  # the channel is off, or has no shunt
        if name not in _UNUSED:
            supplies.append(supply)
    return supplies


@dataclass(frozen=True, slots=True)
class _Supply:
    """One power reading: the product of the files' numbers, over what makes it watts."""

    files: tuple[Path, ...]
    unit: float
    is_input: bool = False
    """Whether it is the whole board's."""

    def watts(self) -> float:
        return math.prod(int(file.read_text()) for file in self.files) / self.unit


class _Sampler:
    """Adds up power readings over time in a thread of its own."""

    def __init__(self, supplies: list[_Supply]) -> None:
        self._supplies = supplies
        self._joules: float | None = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """The energy since the start; None where a reading failed, so that some is missing."""
        self._done.set()
        self._thread.join()
        return self._joules

    def _run(self) -> None:
        last, joules = time.monotonic(), 0.0
        ended = False
        while not ended:
            ended = self._done.wait(_SAMPLE_SECONDS)
            try:
                watts = sum(supply.watts() for supply in self._supplies)
            except (OSError, ValueError):
                self._joules = None
                return
            now = time.monotonic()
            joules += watts * (now - last)
            last = now
        self._joules = joules
