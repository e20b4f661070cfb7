"""The energy of what runs meanwhile: from the processor's counter or the board's power monitor."""

from __future__ import annotations

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


@dataclass(slots=True)
class EnergyMeter:
    """Measures between entering and leaving it; `joules` stays None where nothing can be read.

    RAPL (Documentation/power/powercap in the kernel) counts whole processor packages, an INA power
    monitor (hwmon) a board's supply: both include what else the machine does meanwhile.
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
            monitors = _monitors(self.root)
            self._sampler = _Sampler(monitors) if monitors else None
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


def _monitors(root: Path) -> list[Path]:
    """The power readings, in microwatts, of the board's INA monitors: the first channel of each."""
    found = []
    for directory in sorted((root / "class/hwmon").glob("hwmon*")):
        try:
            known = (directory / "name").read_text().strip() in _MONITORS
        except OSError:
            continue
        if known and (directory / "power1_input").exists():
            found.append(directory / "power1_input")
    return found


class _Sampler:
    """Adds up power readings over time in a thread of its own."""

    def __init__(self, monitors: list[Path]) -> None:
        self._monitors = monitors
        self._joules = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self._joules

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            ended = self._done.wait(_SAMPLE_SECONDS)
            watts = sum(int(monitor.read_text()) for monitor in self._monitors) / 1e6
            now = time.monotonic()
            self._joules += watts * (now - last)
            last = now
            if ended:
                return
