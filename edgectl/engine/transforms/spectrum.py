"""Audio samples to what models listen to: a fixed window, log-mel spectrograms, MFCC."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Exactly `length` samples: `align` says which part of a longer recording is kept, and where a
    shorter one lies among zeros."""

    length: int
    align: str = "start"

    def __post_init__(self) -> None:
        parameters.whole("length", self.length, most=1 << 24)
        parameters.choice("align", self.align, ("start", "middle", "end"))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform."""
        _require_samples(shape)
        return (self.length,)

    def apply(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Cut or pad [samples]; the dtype stays."""
        import numpy as np

        over = len(samples) - self.length
        before = {"start": 0, "middle": abs(over) // 2, "end": abs(over)}[self.align]
        if over >= 0:
            return samples[before : before + self.length]
        padded = np.zeros(self.length, samples.dtype)
        padded[before : before + len(samples)] = samples
        return padded


@dataclass(frozen=True, slots=True)
class LogMel:
    """Samples to the logarithm of their mel spectrogram, [frames, mels].

    Frames of `window` samples, `hop` apart, under a periodic Hann window, are transformed with
    `fft` points (by default the next power of two); magnitudes to the power of `power` are summed
    by `mels` triangular filters from `low` to `high` hertz; what is below `floor` counts as
    `floor`. With `center`, the recording is mirrored at its ends so that frames are centred on
    multiples of `hop`. `scale` and `norm` are as in librosa, which has `slaney` for both;
    torchaudio and TensorFlow have `htk` and `none`.
    """

    rate: int
    window: int = 400
    hop: int = 160
    fft: int = 0
    mels: int = 40
    low: float = 0
    high: float = 0
    """0 is half of the sampling rate."""
    scale: str = "htk"
    norm: str = "none"
    power: float = 2
    center: bool = False
    log: str = "ln"
    floor: float = 1e-6
    order: str = "time"
    """The first axis: `time` makes [frames, mels], `frequency` [mels, frames]."""

    def __post_init__(self) -> None:
        parameters.whole("rate", self.rate)
        parameters.whole("window", self.window, least=2, most=1 << 16)
        parameters.whole("hop", self.hop)
        parameters.whole("fft", self.fft, least=0, most=1 << 16)
        parameters.whole("mels", self.mels, most=1024)
        parameters.number("low", self.low)
        parameters.number("high", self.high)
        parameters.choice("scale", self.scale, ("htk", "slaney"))
        parameters.choice("norm", self.norm, ("none", "slaney"))
        parameters.positive("power", self.power)
        parameters.flag("center", self.center)
        parameters.choice("log", self.log, ("ln", "log10", "db"))
        parameters.positive("floor", self.floor)
        parameters.choice("order", self.order, ("time", "frequency"))
        if self.fft and self.fft < self.window:
            raise ValueError(f"parameter 'fft' must be at least 'window', {self.window}")
        if not 0 <= self.low < self._high <= self.rate / 2:
            raise ValueError(
                f"parameters 'low' and 'high' must lie between 0 and {self.rate / 2:g}, half of"
                " the rate, in this order"
            )

    @property
    def _high(self) -> float:
        return self.high or self.rate / 2

    @property
    def points(self) -> int:
        """Length of the Fourier transform."""
        return int(self.fft or 1 << (self.window - 1).bit_length())

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform; raises ValueError for less than one window."""
        _require_samples(shape)
        frames = -1
        if shape[0] != -1:
            if shape[0] < self._least():
                raise ValueError(f"needs at least {self._least()} samples, not {shape[0]}")
            frames = 1 + (shape[0] + 2 * self._margin() - self.window) // self.hop
        return (frames, self.mels) if self.order == "time" else (self.mels, frames)

    def apply(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The spectrogram of [samples], float32; raises InputError for less than one window."""
        import numpy as np

        if len(samples) < self._least():
            raise InputError(
                f"the audio has {len(samples)} samples; at least {self._least()} are needed"
            )
        if self.center:
            samples = np.pad(samples, self._margin(), mode="reflect")
        hann, bank = _hann(self.window), _mel_bank(self)
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        energies = np.empty((len(frames), self.mels), np.float32)
        for start in range(0, len(frames), _BLOCK):  # Spectra are wide: a few at a time.
            spectra = np.abs(np.fft.rfft(frames[start : start + _BLOCK] * hann, self.points))
            energies[start : start + _BLOCK] = spectra**self.power @ bank
        logarithms = self._logarithm(np.maximum(energies, np.float32(self.floor)))
        return logarithms if self.order == "time" else logarithms.T

    def _logarithm(self, energies: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if self.log == "ln":
            natural: NDArray[Any] = np.log(energies)
            return natural
        decades: NDArray[Any] = np.log10(energies)
        return decades if self.log == "log10" else decades * np.float32(10)

    def _margin(self) -> int:
        return self.window // 2 if self.center else 0

    def _least(self) -> int:
        """Mirroring needs more samples than it adds."""
        return self._margin() + 1 if self.center else self.window


@dataclass(frozen=True, slots=True)
class Mfcc:
    """A log-mel spectrogram [frames, mels] to its first cepstral coefficients,
    [frames, coefficients]: an orthonormal DCT-II over the mels, as scipy.fft.dct has it."""

    coefficients: int = 13

    def __post_init__(self) -> None:
        parameters.whole("coefficients", self.coefficients)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform; raises ValueError if there are fewer mels."""
        if len(shape) != 2:
            raise ValueError("works on a spectrogram, and so must come right after log_mel")
        if shape[1] < self.coefficients:
            raise ValueError(f"cannot make {self.coefficients} coefficients of {shape[1]} mels")
        return (shape[0], self.coefficients)

    def apply(self, spectrogram: NDArray[Any]) -> NDArray[Any]:
        """Transform, in the spectrogram's dtype."""
        result: NDArray[Any] = spectrogram @ _dct(spectrogram.shape[1], self.coefficients)
        return result.astype(spectrogram.dtype, copy=False)


_BLOCK = 256


@lru_cache(maxsize=8)
def _hann(length: int) -> NDArray[Any]:
    import numpy as np

    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


@lru_cache(maxsize=8)
def _mel_bank(form: LogMel) -> NDArray[Any]:
    """Triangular filters, [fft // 2 + 1, mels]: straight lines in hertz between neighbours'
    centres, which are evenly spaced in mel."""
    import numpy as np

    high = form.high or form.rate / 2
    low_mel, high_mel = (_to_mel(hertz, form.scale) for hertz in (form.low, high))
    edges = np.array(
        [_to_hertz(mel, form.scale) for mel in np.linspace(low_mel, high_mel, form.mels + 2)]
    )
    bins = np.arange(form.points // 2 + 1) * (form.rate / form.points)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    bank: NDArray[Any] = np.maximum(0, np.minimum(rising, falling))
    return bank * (2 / (edges[2:] - edges[:-2])) if form.norm == "slaney" else bank


_SLANEY_HERTZ_PER_MEL = 200 / 3
_SLANEY_BREAK = 1000.0
_SLANEY_STEP = math.log(6.4) / 27


def _to_mel(hertz: float, scale: str) -> float:
    """O'Shaughnessy's formula as in HTK, or Slaney's of the Auditory Toolbox: linear to 1 kHz,
    logarithmic above."""
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < _SLANEY_BREAK:
        return hertz / _SLANEY_HERTZ_PER_MEL
    linear = _SLANEY_BREAK / _SLANEY_HERTZ_PER_MEL
    return linear + math.log(hertz / _SLANEY_BREAK) / _SLANEY_STEP


def _to_hertz(mel: float, scale: str) -> float:
    if scale == "htk":
        return float(700 * (10 ** (mel / 2595) - 1))
    linear = _SLANEY_BREAK / _SLANEY_HERTZ_PER_MEL
    if mel < linear:
        return mel * _SLANEY_HERTZ_PER_MEL
    return _SLANEY_BREAK * math.exp(_SLANEY_STEP * (mel - linear))


@lru_cache(maxsize=8)
def _dct(mels: int, coefficients: int) -> NDArray[Any]:
    import numpy as np

    angles = np.pi / mels * np.outer(np.arange(mels) + 0.5, np.arange(coefficients))
    basis: NDArray[Any] = np.cos(angles) * math.sqrt(2 / mels)
    basis[:, 0] = math.sqrt(1 / mels)
    return basis


def _require_samples(shape: tuple[int, ...]) -> None:
    if len(shape) != 1:
        raise ValueError("works on samples, and so must come right after audio or window")
