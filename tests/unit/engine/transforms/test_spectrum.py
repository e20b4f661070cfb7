from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, signal

from edgectl.engine import transforms
from edgectl.engine.errors import InputError
from edgectl.engine.signature import TensorSpec
from edgectl.engine.transforms.spectrum import LogMel, Mfcc, Window


def _sound(seed: int, length: int) -> Any:
    return np.random.default_rng(seed).normal(0, 0.3, length).astype(np.float32)


def _bank(form: LogMel) -> Any:
    """One triangle after the other, bin by bin, as textbooks draw them."""

    def mel(hertz: float) -> float:
        if form.scale == "htk":
            return 2595 * math.log10(1 + hertz / 700)
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def hertz(value: float) -> float:
        low, high = 0.0, 1e6
        for _ in range(100):  # By bisection, so that no inverse formula has to be right.
            middle = (low + high) / 2
            low, high = (middle, high) if mel(middle) < value else (low, middle)
        return low

    points = form.fft or 2 ** math.ceil(math.log2(form.window))
    first, last = mel(form.low), mel(form.high or form.rate / 2)
    step = (last - first) / (form.mels + 1)
    edges = [hertz(first + step * place) for place in range(form.mels + 2)]
    bank = np.zeros((points // 2 + 1, form.mels))
    for number in range(form.mels):
        left, peak, right = edges[number : number + 3]
        for place in range(points // 2 + 1):
            at = place * form.rate / points
            if left < at <= peak:
                bank[place, number] = (at - left) / (peak - left)
            elif peak < at < right:
                bank[place, number] = (right - at) / (right - peak)
        if form.norm == "slaney":
            bank[:, number] *= 2 / (right - left)
    return bank


FORMS = st.builds(
    LogMel,
    rate=st.sampled_from([8000, 16000, 22050]),
    window=st.sampled_from([200, 256, 400, 401]),
    hop=st.sampled_from([80, 160, 199]),
    fft=st.sampled_from([0, 512, 600]),
    mels=st.integers(1, 40),
    low=st.sampled_from([0, 20.0, 125]),
    high=st.sampled_from([0, 3800]),
    scale=st.sampled_from(["htk", "slaney"]),
    norm=st.sampled_from(["none", "slaney"]),
    power=st.sampled_from([1, 2]),
    center=st.booleans(),
    log=st.sampled_from(["ln", "log10", "db"]),
    order=st.sampled_from(["time", "frequency"]),
)


@settings(max_examples=40)
@given(form=FORMS, seed=st.integers(0, 99), length=st.integers(401, 3000))
def test_log_mel_is_scipys_transform_through_textbook_triangles(
    form: LogMel, seed: int, length: int
) -> None:
    samples = _sound(seed, length)
    made = form.apply(samples)
    assert made.dtype == np.float32
    assert made.shape == form.shape((length,))
    margin = form.window // 2 if form.center else 0
    padded = np.pad(samples.astype(np.float64), margin, mode="reflect")
    points = form.fft or 2 ** math.ceil(math.log2(form.window))
    _, _, spectra = signal.stft(
        padded, window="hann", nperseg=form.window, noverlap=form.window - form.hop, nfft=points,
        boundary=None, padded=False, detrend=False,
    )  # fmt: skip
    spectra *= signal.get_window("hann", form.window).sum()  # scipy divides by it.
    energies = np.abs(spectra.T) ** form.power @ _bank(form)
    scale = {"ln": 1, "log10": 1 / math.log(10), "db": 10 / math.log(10)}[form.log]
    wanted = np.log(np.maximum(energies, form.floor)) * scale
    got = made if form.order == "time" else made.T
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-3)


def test_a_tone_is_loudest_where_it_is() -> None:
    form = LogMel(16000, mels=40, scale="slaney")
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    loudest = form.apply(tone).argmax(axis=1)
    assert len(set(loudest.tolist())) == 1
    bank = _bank(form)
    assert bank[round(1000 * 512 / 16000)].argmax() == loudest[0]


def test_silence_is_the_floor() -> None:
    made = LogMel(16000, floor=1e-5).apply(np.zeros(800, np.float32))
    np.testing.assert_allclose(made, math.log(1e-5), rtol=1e-6)


@given(seed=st.integers(0, 99), mels=st.integers(2, 60), count=st.integers(1, 60))
def test_mfcc_is_scipys_cosine_transform(seed: int, mels: int, count: int) -> None:
    count = min(count, mels)
    spectrogram = _sound(seed, 5 * mels).reshape(5, mels)
    wanted = fft.dct(spectrogram.astype(np.float64), type=2, norm="ortho", axis=1)[:, :count]
    made = Mfcc(count).apply(spectrogram)
    assert made.shape == Mfcc(count).shape((5, mels))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, wanted, atol=1e-5)


@given(length=st.integers(0, 30), to=st.integers(1, 30))
def test_windows_cut_and_pad(length: int, to: int) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    over = max(0, to - length)
    wanted = {
        "start": np.pad(samples, (0, over))[:to],
        "end": np.pad(samples, (over, 0))[max(0, length - to) :],
        "middle": np.pad(samples, (over // 2, over - over // 2))[max(0, length - to) // 2 :][:to],
    }
    for align, expected in wanted.items():
        np.testing.assert_array_equal(Window(to, align).apply(samples), expected)


def test_too_short_a_recording_is_refused() -> None:
    with pytest.raises(InputError, match="has 399 samples; at least 400 are needed"):
        LogMel(16000).apply(np.zeros(399, np.float32))
    with pytest.raises(InputError, match="at least 201 are needed"):
        LogMel(16000, center=True).apply(np.zeros(200, np.float32))


AUDIO = {"audio": {"rate": 16000}}
SECOND = {"window": {"length": 16000}}


def _input(*steps: Any, shape: tuple[int, ...] = (-1, 98, 40)) -> TensorSpec:
    return TensorSpec("sound", "FP32", shape, steps)


def test_a_keyword_spotter_is_declared() -> None:
    transforms.check(_input(AUDIO, SECOND, {"log_mel": {"rate": 16000}}), "input")
    steps = (AUDIO, SECOND, {"log_mel": 16000}, {"mfcc": 10}, {"reshape": [98, 10, 1]})
    transforms.check(_input(*steps, shape=(-1, 98, 10, 1)), "input")
    assert transforms.encoded_kind(_input(AUDIO)) == "audio"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((AUDIO, SECOND, {"log_mel": {"rate": 8000}}), "is for 8000 samples per second, but"),
        ((AUDIO, {"resize": {"width": 4, "height": 4}}), "'resize' works on images, but 'audio'"),
        (({"decode": "L"}, SECOND), "'window' works on audio, but 'decode' makes it take images"),
        ((AUDIO, {"window": 100}, {"log_mel": 16000}), "needs at least 400 samples, not 100"),
        ((AUDIO, {"log_mel": 16000}, SECOND), "'window' works on samples"),
        ((AUDIO, {"mfcc": 13}), "'mfcc' works on a spectrogram"),
        ((AUDIO, SECOND, {"log_mel": 16000}, {"mfcc": 41}), "41 coefficients of 40 mels"),
        ((AUDIO, SECOND, {"log_mel": {"rate": 16000, "mels": 32}}), "make [1, 98, 32], but its"),
    ],
)
def test_inputs_that_cannot_work(steps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"input 'sound'") as caught:
        transforms.check(_input(*steps), "input")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"log_mel": {"rate": 16000, "high": 9000}}, "must lie between 0 and 8000"),
        ({"log_mel": {"rate": 16000, "low": 300, "high": 200}}, "must lie between 0 and 8000"),
        ({"log_mel": {"rate": 16000, "fft": 256}}, "'fft' must be at least 'window', 400"),
        ({"log_mel": {"rate": 16000, "floor": 0}}, "'floor' must be above 0"),
        ({"log_mel": {}}, "needs parameter 'rate'"),
        ({"audio": {"rate": 10}}, "'rate' must be a whole number from 1000"),
        ({"window": {"length": 9, "align": "left"}}, "'align' must be one of start, middle, end"),
    ],
)
def test_wrong_parameters(declared: Any, message: str) -> None:
    with pytest.raises(ValueError, match="transform") as caught:
        transforms.canonical(declared)
    assert message in str(caught.value)
