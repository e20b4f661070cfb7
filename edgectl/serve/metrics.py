"""Counters and histograms in Prometheus' text format, without its client library.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). All
methods belong to the event loop's thread, so there are no locks.
"""

from __future__ import annotations

import resource
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds."""

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number per set of labels that only grows."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self._values: dict[Labels, int] = {}

    def add(self, **labels: str) -> None:
        """Count one."""
        key = tuple(labels.items())
        self._values[key] = self._values.get(key, 0) + 1

    def lines(self) -> Iterable[str]:
        """The metric in the text format."""
        yield from _head(self.name, self.about, "counter")
        for labels, value in self._values.items():
            yield f"{self.name}{_labels(labels)} {value}"


class Histogram:
    """A distribution of seconds per set of labels."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, seconds: float, **labels: str) -> None:
        """Record one duration."""
        key = tuple(labels.items())
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = [0] * (len(_BOUNDS) + 1)
            self._sums[key] = 0.0
        counts[bisect_left(_BOUNDS, seconds)] += 1
        self._sums[key] += seconds

    def lines(self) -> Iterable[str]:
        """The metric in the text format."""
        yield from _head(self.name, self.about, "histogram")
        bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
        for labels, counts in self._counts.items():
            for bound, total in zip(bounds, accumulate(counts), strict=True):
                yield f"{self.name}_bucket{_labels((*labels, ('le', bound)))} {total}"
            yield f"{self.name}_sum{_labels(labels)} {self._sums[labels]!r}"
            yield f"{self.name}_count{_labels(labels)} {sum(counts)}"


class Metrics:
    """What the server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "edgectl_infer_requests_total", "Inference requests by HTTP status code."
        )
        self.request_seconds = Histogram(
            "edgectl_infer_request_seconds",
            "Seconds from a request's headers to its response, for requests that were answered.",
        )
        self.engine_seconds = Histogram(
            "edgectl_infer_engine_seconds", "Seconds that the engine alone took for a request."
        )

    def render(self, gauges: Mapping[str, tuple[str, float]], slot: Labels) -> str:
        """The whole page; `gauges` maps a name to its explanation and value."""
        lines: list[str] = []
        for metric in (self.requests, self.request_seconds, self.engine_seconds):
            lines += metric.lines()
        for name, (about, value) in gauges.items():
            lines += (*_head(name, about, "gauge"), f"{name} {value!r}")
        lines += _head("edgectl_slot_info", "The slot that is being served.", "gauge")
        lines += (f"edgectl_slot_info{_labels(slot)} 1",)
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Physical memory that this process holds, from /proc/self/statm."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return pages * resource.getpagesize()


def _head(name: str, about: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
