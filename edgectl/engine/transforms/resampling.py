"""Audio to another sampling rate, with numpy alone."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgectl.engine.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ZERO_CROSSINGS = 10
_KAISER_BETA = 5.0
_MAX_FACTOR = 4096


def resample(samples: NDArray[Any], rate: int, wanted: int) -> NDArray[Any]:
    """float32 [samples] at `rate` to [ceil(samples * wanted / rate)] at `wanted`.

    A polyphase filter with the Kaiser-windowed sinc of `scipy.signal.resample_poly`, and its
    results. Raises InputError for two rates that have next to no common divisor: the filter would
    be larger than the sound.
    """
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    if up == down:
        return samples
    if max(up, down) > _MAX_FACTOR:
        raise InputError(
            f"audio of {rate} samples per second cannot be resampled to {wanted};"
            " record it at a common rate such as 16000, 44100 or 48000"
        )
    bank, delay = _polyphase(up, down)
    taps = bank.shape[1]
    count = -(-len(samples) * up // down)
    last = ((count - 1) * down + delay) // up
    padded = np.zeros(taps + max(last, len(samples) - 1), np.float32)
    padded[taps - 1 : taps - 1 + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    made = np.empty(count, np.float32)
    for start in range(min(up, count)):  # Outputs `up` apart share the same taps.
        place = start * down + delay
        part = made[start::up]
        part[:] = windows[place // up :: down][: len(part)] @ bank[place % up]
    return made


@lru_cache(maxsize=4)
def _polyphase(up: int, down: int) -> tuple[NDArray[Any], int]:
    """The filter's taps for each phase, [up, taps], last tap first; and its delay in samples of
    the rate that is `up` times higher."""
    largest = max(up, down)
    delay = _ZERO_CROSSINGS * largest
    places = np.arange(-delay, delay + 1) / largest
    taps = np.sinc(places) * np.kaiser(2 * delay + 1, _KAISER_BETA)
    taps *= up / taps.sum()
    each = -(-len(taps) // up)
    padded = np.zeros(each * up)
    padded[: len(taps)] = taps
    bank = np.ascontiguousarray(padded.reshape(each, up)[::-1].T, np.float32)
    return bank, delay
