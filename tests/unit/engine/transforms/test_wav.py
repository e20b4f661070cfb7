from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import signal
from scipy.io import wavfile

from edgectl.engine.errors import InputError
from edgectl.engine.transforms.resampling import resample
from edgectl.engine.transforms.wav import Audio

FULL = st.integers(-(2**31), 2**31 - 1)
SOUNDS = hnp.arrays(np.int32, st.tuples(st.integers(1, 50), st.integers(1, 3)), elements=FULL)
RATES = st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000])


def wav(samples: Any, rate: int = 16000) -> bytes:
    """What scipy writes: an implementation of the format that is not ours."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples)
    return buffer.getvalue()


def chunks(form: bytes, data: bytes, declared: int | None = None, *others: bytes) -> bytes:
    """A file put together by hand."""
    size = len(data) if declared is None else declared
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + b"".join(others)
    body += struct.pack("<4sI", b"data", size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm(bits: int = 16, channels: int = 1, rate: int = 16000, code: int = 1) -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", code, channels, rate, rate * align, align, bits)


@given(sound=SOUNDS, kind=st.sampled_from(["u1", "i2", "i4", "f4", "f8"]))
def test_samples_are_those_that_scipy_wrote(sound: Any, kind: str) -> None:
    share = sound / 2**31
    if kind == "u1":
        stored = ((sound >> 24) + 128).astype(np.uint8)
        share = (stored.astype(float) - 128) / 128
    elif kind == "i2":
        stored = (sound >> 16).astype(np.int16)
        share = stored / 2**15
    else:
        stored = sound.astype(kind) if kind == "i4" else share.astype(kind)
    made = Audio().apply(wav(stored))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, share.mean(axis=1), atol=1e-6)


@given(sound=SOUNDS)
def test_24_bits_are_read_as_scipy_reads_them(sound: Any) -> None:
    packed = sound.astype("<i4")[:, :1].view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    data = chunks(pcm(24), packed)
    _, wanted = wavfile.read(io.BytesIO(data + b"\0" * (len(packed) % 2)))
    np.testing.assert_allclose(Audio().apply(data), wanted / 2**31, atol=1e-6)


def test_extensible_and_other_chunks() -> None:
    samples = np.array([1, -2, 3], np.int16)
    guid = struct.pack("<HH", 16, 0) + b"\0" * 2 + struct.pack("<H", 1) + b"\0\0\0\0\x10\0\x80\0"
    form = pcm(code=0xFFFE) + struct.pack("<H", 22) + guid + b"\0\xaa\0\x38\x9b\x71"
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    made = Audio().apply(chunks(form, samples.tobytes(), None, odd))
    np.testing.assert_allclose(made, samples / 2**15)


def test_a_file_that_was_streamed_does_not_know_its_length() -> None:
    samples = np.array([1, -2, 3], np.int16)
    made = Audio().apply(chunks(pcm(), samples.tobytes(), 0xFFFFFFFF))
    np.testing.assert_allclose(made, samples / 2**15)


@given(
    seed=st.integers(0, 99), length=st.integers(1, 4000), rate=RATES, wanted=RATES,
)  # fmt: skip
def test_resampling_is_scipys(seed: int, length: int, rate: int, wanted: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)
    divisor = np.gcd(rate, wanted)
    reference = signal.resample_poly(samples.astype(np.float64), wanted // divisor, rate // divisor)
    made = resample(samples, rate, wanted)
    assert made.dtype == np.float32
    assert made.shape == reference.shape
    np.testing.assert_allclose(made, reference, atol=2e-5)


def test_a_tone_stays_the_same_tone() -> None:
    times = np.arange(44100) / 44100
    stored = (np.sin(2 * np.pi * 440 * times) * 20000).astype(np.int16)
    made = Audio(16000).apply(wav(np.stack([stored, stored], axis=1), 44100))
    assert made.shape == (16000,)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) * 20000 / 2**15
    np.testing.assert_allclose(made[100:-100], wanted[100:-100], atol=1e-3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a WAV file"),
        (b"ID3\x04 an mp3", "not a WAV file"),
        (b"RIFF\0\0\0\0WAVE", "holds no samples"),
        (chunks(pcm(), b""), "holds no samples"),
        (chunks(pcm(), b"\0"), "holds no samples"),
        (chunks(pcm(), b"\0\0", 400), "truncated: 2 of 400 bytes"),
        (chunks(b"\1\0", b"\0\0"), "truncated"),
        (chunks(pcm(code=0x55), b"\0\0"), r"compressed \(format 85\); send PCM or floats"),
        (chunks(pcm(bits=12), b"\0\0\0"), "samples of 12 bits"),
        (chunks(pcm(channels=0), b"\0\0"), "0 channels"),
        (chunks(pcm(channels=65), b"\0" * 130), "65 channels"),
        (chunks(pcm(rate=1), b"\0\0"), "1 samples per second"),
        (chunks(pcm(rate=16001), b"\0\0"), "16001 samples per second cannot be resampled to 16000"),
        (wav(np.array([np.nan], np.float32)), "NaN or infinite"),
        (wav(np.array([1e300], np.float64)), "beyond the range"),
        (wav(np.zeros(8000 * 61, np.uint8), 8000), "lasts 61.0 seconds, more than 60"),
        (b"RIFF\0\0\0\0WAVE" + b"none\0\0\0\0" * 1001, "more than 1000 chunks"),
        (
            b"RIFF\0\0\0\0WAVEdata\2\0\0\0\0\0" + chunks(pcm(), b"\0\0")[12:],
            "does not say what its samples are",
        ),
    ],
)
def test_what_cannot_be_heard_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Audio().apply(data)


def test_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(InputError, match="46 bytes, more than 45"):
        Audio(max_bytes=45).apply(wav(np.zeros(1, np.int16)))


@given(data=st.binary(max_size=80), form=st.binary(min_size=16, max_size=40))
def test_hostile_files_are_read_or_refused(data: bytes, form: bytes) -> None:
    for encoded in (data, b"RIFF\0\0\0\0WAVE" + data, chunks(form, data)):
        with contextlib.suppress(InputError):
            assert np.isfinite(Audio().apply(encoded)).all()
