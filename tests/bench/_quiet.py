"""Whether a measurement had the machine to itself: what others computed meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_BUSY = (0, 1, 2, 5, 6, 7)
"""User, nice, system, irq, softirq and steal of /proc/stat (proc_stat(5))."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A moment: the wall's time, and what was computed until then, in seconds."""

    wall: float
    machine: float
    """By all processes on all cores."""
    own: float
    """By this process and by those of its children that have ended."""

    @classmethod
    def now(cls) -> Self:
        """Read the kernel's counters."""
        fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
        ticks = sum(int(fields[index]) for index in _BUSY)
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]))

    def since(self) -> str:
        """How long ago that is, and how many cores others kept busy, as a sentence."""
        now = type(self).now()
        taken = now.wall - self.wall
        cores = max(0.0, (now.machine - self.machine) - (now.own - self.own)) / taken
        return (
            f"Measuring took {taken:.0f} s, in which other processes kept {cores:.2f} of "
            f"{os.cpu_count()} cores busy."
        )
