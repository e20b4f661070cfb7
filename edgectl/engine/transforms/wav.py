"""WAV files to one channel of samples at the rate that a model takes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import InputError
from edgectl.engine.transforms import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
_STREAMED = 0xFFFFFFFF
_RATES = (1_000, 384_000)
_MAX_CHANNELS = 64
_MAX_CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class Audio:
    """An encoded WAV file to float32 [samples] from -1 to 1: its channels averaged, resampled to
    `rate` samples per second.

    PCM of 8, 16, 24 and 32 bits and floats of 32 and 64 are read, also in the extensible form.
    """

    rate: int = 16_000
    max_seconds: float = 60
    max_bytes: int = 1 << 25

    def __post_init__(self) -> None:
        parameters.whole("rate", self.rate, least=_RATES[0], most=_RATES[1])
        parameters.positive("maxSeconds", self.max_seconds)
        parameters.whole("maxBytes", self.max_bytes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after this transform: as many samples as there are."""
        return (-1,)

    def apply(self, encoded: bytes) -> NDArray[Any]:
        """Decode; raises InputError for bytes that are no such file, truncated or too long."""
        from edgectl.engine.transforms.resampling import resample

        if len(encoded) > self.max_bytes:
            raise InputError(f"the audio has {len(encoded)} bytes, more than {self.max_bytes}")
        form, data = _parse(encoded)
        frames = len(data) // form.frame_bytes
        if frames == 0:
            raise InputError("the WAV file holds no samples")
        if frames > self.max_seconds * form.rate:
            raise InputError(
                f"the audio lasts {frames / form.rate:.1f} seconds, more than {self.max_seconds:g}"
            )
        samples = form.samples(data[: frames * form.frame_bytes])
        return resample(samples, form.rate, self.rate)


@dataclass(frozen=True, slots=True)
class _Form:
    """What a `fmt ` chunk says of the samples."""

    code: int
    channels: int
    rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    def samples(self, data: memoryview) -> NDArray[Any]:
        """float32 [frames], the mean of the channels."""
        import numpy as np

        if self.code == _FLOAT:
            values = np.frombuffer(data, f"<f{self.bits // 8}")
            if not np.isfinite(values).all():
                raise InputError("the WAV file holds NaN or infinite samples")
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
            if not np.isfinite(values).all():
                raise InputError("the WAV file holds samples beyond the range of 32-bit floats")
        elif self.bits == 8:  # The only size that is unsigned.
            values = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
        elif self.bits == 24:
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)
        else:
            whole = np.frombuffer(data, f"<i{self.bits // 8}")
            values = whole.astype(np.float32) / np.float32(1 << (self.bits - 1))
        if self.channels == 1:
            return values
        mixed: NDArray[Any] = values.reshape(-1, self.channels).mean(axis=1, dtype=np.float32)
        return mixed


def _parse(encoded: bytes) -> tuple[_Form, memoryview]:
    """The form of the samples, and the samples: RIFF chunks as in Microsoft's and IBM's
    "Multimedia Programming Interface and Data Specifications 1.0" and WAVEFORMATEXTENSIBLE."""
    if encoded[:4] != b"RIFF" or encoded[8:12] != b"WAVE":
        raise InputError("the data is not a WAV file")
    form = None
    for name, body, declared in _chunks(memoryview(encoded)):
        if name == b"fmt ":
            form = _form(body)
        elif name == b"data":
            if form is None:
                raise InputError("the WAV file does not say what its samples are before them")
            if len(body) < declared != _STREAMED:
                raise InputError(
                    f"the WAV file is truncated: {len(body)} of {declared} bytes are there"
                )
            return form, body
    raise InputError("the WAV file holds no samples")


def _chunks(encoded: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    position, count = 12, 0
    while position + 8 <= len(encoded):
        count += 1
        if count > _MAX_CHUNKS:
            raise InputError(f"the WAV file has more than {_MAX_CHUNKS} chunks")
        name, size = struct.unpack_from("<4sI", encoded, position)
        body = encoded[position + 8 : position + 8 + size]
        yield name, body, size
        position += 8 + size + size % 2


def _form(body: memoryview) -> _Form:
    if len(body) < 16:
        raise InputError("the WAV file is truncated")
    code, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 40:
        (code,) = struct.unpack_from("<H", body, 24)
    form = _Form(code, channels, rate, bits)
    if code not in _BITS:
        raise InputError(f"the WAV file is compressed (format {code}); send PCM or floats")
    if bits not in _BITS[code]:
        raise InputError(f"the WAV file has samples of {bits} bits, which nobody writes")
    if not 0 < channels <= _MAX_CHANNELS or align != form.frame_bytes:
        raise InputError(f"the WAV file has {channels} channels in frames of {align} bytes")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(f"the WAV file has {rate} samples per second")
    return form
