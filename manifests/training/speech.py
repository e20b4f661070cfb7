"""Spoken words by espeak-ng, and what disturbs them: the sounds behind the keywords model."""

import io
import subprocess
import wave

import numpy as np

RATE = 16_000
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
           "en-029", "en-us-nyc")  # fmt: skip
BABBLE = (
    "the train to the harbour leaves from platform seven in about a quarter of an hour",
    "we have measured the water level every morning since the beginning of the year",
    "please bring the blue folder and a cup of coffee to the meeting in the large room",
    "my neighbour paints his garden fence each summer in a different shade of green",
)


def speak(text: str, voice: str, rng: np.random.Generator, *, tract: float = 1) -> np.ndarray:
    """A text as float samples of 16 kHz, in a random accent, speed and pitch of the voice.

    A `tract` above 1 makes the speaker's vocal tract longer by that factor, and the word too.
    """
    command = [
        "espeak-ng", "--stdout", "-v", f"{rng.choice(ACCENTS)}+{voice}",
        "-s", str(rng.integers(120, 200)), "-p", str(rng.integers(25, 75)), text,
    ]  # fmt: skip
    encoded = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(encoded)) as file:
        rate = file.getframerate() / tract
        # Streamed, so the header does not know the length; the data are what follows it.
        samples = np.frombuffer(encoded[44:], "<i2").astype(np.float64) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    samples = samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:1]
    wanted = np.arange(0, len(samples), rate / RATE)
    return np.interp(wanted, np.arange(len(samples)), smooth(samples, rate / RATE))


def smooth(samples: np.ndarray, factor: float) -> np.ndarray:
    """Without what a rate lower by `factor` cannot carry."""
    spectrum = np.fft.rfft(samples)
    spectrum[int(len(spectrum) / factor) :] = 0
    return np.fft.irfft(spectrum, len(samples))


def place(word: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One second with the word somewhere in it, at a random loudness; a long one is cut."""
    clip = np.zeros(RATE)
    word = word[:RATE]
    start = rng.integers(0, RATE - len(word) + 1)
    clip[start : start + len(word)] = word / max(np.abs(word).max(), 1e-6)
    return clip * rng.uniform(0.15, 0.6)


def noise(rng: np.random.Generator, babble: list[np.ndarray]) -> np.ndarray:
    """One second of a random kind of noise with a root mean square of 1."""
    kind = rng.choice(["white", "pink", "brown", "hum", "clicks", "babble"])
    if kind == "babble":
        made = sum(_excerpt(babble[rng.integers(len(babble))], rng) for _ in range(3))
    elif kind == "hum":
        turn = 2 * np.pi * rng.choice([50, 60]) * np.arange(RATE) / RATE
        made = sum(rng.uniform(0.1, 1) * np.sin(n * turn + rng.uniform(0, 6)) for n in range(1, 9))
    elif kind == "clicks":
        made = np.where(rng.random(RATE) < 0.002, rng.normal(size=RATE), 0)
        made = np.convolve(made, np.exp(-np.arange(80) / 15))[:RATE] + 0.01 * rng.normal(size=RATE)
    else:
        slope = {"white": 0, "pink": 0.5, "brown": 1}[kind]
        spectrum = np.fft.rfft(rng.normal(size=RATE))
        spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** slope
        made = np.fft.irfft(spectrum, RATE)
    return made / max(np.sqrt((made**2).mean()), 1e-9)


def _excerpt(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(speech, rng.integers(len(speech)))[:RATE]


def disturb(clip: np.ndarray, rng: np.random.Generator, babble: list[np.ndarray]) -> np.ndarray:
    """The clip with noise, 3 to 30 dB below the word where there is one."""
    power = np.sqrt((clip[clip != 0] ** 2).mean()) if clip.any() else 0.1 * rng.uniform(0.02, 1)
    return clip + noise(rng, babble) * power * 10 ** (-rng.uniform(3, 30) / 20)


def wav(clip: np.ndarray) -> bytes:
    """A clip as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(clip, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()
