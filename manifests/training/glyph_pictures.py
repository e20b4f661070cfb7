"""Draws pictures of printed characters in Debian's fonts: the data of the glyphs model.

    apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-liberation fonts-freefont-ttf \
        fonts-urw-base35 fonts-lato fonts-roboto-unhinted fonts-cantarell fonts-ebgaramond \
        fonts-inconsolata fonts-courier-prime fonts-play fonts-dosis fonts-comfortaa \
        fonts-crosextra-carlito fonts-crosextra-caladea fonts-oldstandard \
        fonts-sil-charis fonts-go fonts-karla fonts-anonymous-pro fonts-opendin \
        fonts-open-sans fonts-vollkorn fonts-cabin fonts-sil-gentium-basic fonts-jetbrains-mono \
        fonts-linuxlibertine fonts-b612 fonts-quattrocento fonts-tuffy

Ten typefaces are held out: no drawing of theirs, in no weight, is seen before the test. Clones of
one design stay on one side (Liberation Sans, Nimbus Sans and FreeSans are all for training).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 64
FONTS = Path("/usr/share/fonts")
CLASSES = (
    "0Oo", "1Iil", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B", "Cc", "D", "E", "F", "G", "H",
    "Jj", "Kk", "L", "Mm", "N", "Pp", "Q", "R", "Ss", "T", "Uu", "Vv", "Ww", "Xx", "Yy", "Zz",
    "a", "b", "d", "e", "f", "g", "h", "n", "q", "r", "t",
)  # fmt: skip
"""Characters that one picture, without a line of text around it, cannot tell apart are one class:
the two cases of a letter of one shape (as EMNIST's "by merge" has them), 0 and O, 1, I, i and l."""
LABELS = tuple(each[0] for each in CLASSES)

TEST_FONTS = (
    "OpenSans", "Vollkorn", "Cabin", "GenBas", "GenBkBas", "JetBrainsMono", "LinLibertine_R",
    "LinBiolinum_R", "B612", "Quattrocento", "Tuffy",
)  # fmt: skip
TRAIN_FONTS = (
    "DejaVu", "Liberation", "FreeSans", "FreeSerif", "FreeMono", "Nimbus", "C059", "P052",
    "URWBookman", "URWGothic", "Lato", "Roboto", "Cantarell", "EBGaramond", "Inconsolata",
    "Courier", "Play", "Dosis", "Comfortaa", "Carlito", "Caladea", "OldStandard",
    "Charis", "Go-", "Karla", "Anonymous", "OpenDin", "OSP-DIN",
)  # fmt: skip
_LEFT_OUT = ("MathTeXGyre", "Smallcaps", "SC1", "Initials", "Hairline", "Tamil")


def font_files(prefixes: tuple[str, ...]) -> list[Path]:
    """Font files of these typefaces, in the order of their names."""
    found = [
        path
        for path in FONTS.rglob("*")
        if path.suffix in {".ttf", ".otf"}
        and path.name.startswith(prefixes)
        and not any(word in path.name for word in _LEFT_OUT)
    ]
    if not found:
        raise SystemExit("no fonts: install the packages that this module's docstring lists")
    return sorted(found, key=lambda path: path.name)


@dataclass(frozen=True)
class Drawing:
    """A picture and what is to be read in it."""

    pixels: np.ndarray
    """uint8, [SIZE, SIZE]."""
    label: int
    """Index into CLASSES."""


class Artist:
    """Draws characters of given fonts, the same ones for the same seed."""

    def __init__(self, fonts: list[Path], seed: int) -> None:
        self._fonts = [ImageFont.truetype(path, 96) for path in fonts]
        self._random = np.random.default_rng(seed)

    def draw(self, label: int) -> Drawing:
        """One picture of a class, everything about it by chance."""
        rng = self._random
        character = CLASSES[label][rng.integers(len(CLASSES[label]))]
        shape = self._turned(_mask(self._fonts[rng.integers(len(self._fonts))], character))
        ink, paper = self._greys()
        ground = self._background(paper, ink)
        picture = ground + (shape / 255.0) * (ink - ground)
        blurred = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(rng.uniform(0, 1.3))
        )
        grain = rng.normal(0, rng.uniform(0, 10) * (rng.random() < 0.5), (SIZE, SIZE))
        return Drawing(np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8), label)

    def many(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [count, SIZE, SIZE] and labels int64 [count], every class as often."""
        labels = np.arange(count) % len(CLASSES)
        self._random.shuffle(labels)
        pictures = np.stack([self.draw(int(label)).pixels for label in labels])
        return pictures, labels.astype(np.int64)

    def _turned(self, mask: Image.Image) -> np.ndarray:
        """The mask turned by up to 12 degrees, slanted, scaled and moved: uint8 [SIZE, SIZE]."""
        rng = self._random
        angle, slant = np.radians(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
        fill = SIZE * rng.uniform(0.55, 0.9) / max(mask.size)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = turn @ np.array([[1.0, slant], [0.0, 1.0]]) * fill
        back = np.linalg.inv(forward)
        middle = np.array([SIZE / 2, SIZE / 2]) + rng.uniform(-4, 4, 2)
        move = np.array(mask.size) / 2 - back @ middle
        # PIL samples without antialiasing: draw at twice the size and halve.
        twice = mask.transform(
            (SIZE * 2, SIZE * 2),
            Image.Transform.AFFINE,
            (back[0, 0] / 2, back[0, 1] / 2, move[0], back[1, 0] / 2, back[1, 1] / 2, move[1]),
            Image.Resampling.BILINEAR,
        )
        return np.asarray(twice.reduce(2))

    def _greys(self) -> tuple[float, float]:
        """Ink and paper, dark on bright as often as bright on dark, at least 60 levels apart."""
        rng = self._random
        low = rng.uniform(0, 190)
        high = rng.uniform(low + 60, 255)
        return (low, high) if rng.random() < 0.5 else (high, low)

    def _background(self, paper: float, ink: float) -> np.ndarray:
        """Flat, shaded, mottled or ruled paper: float [SIZE, SIZE]."""
        rng = self._random
        ground = np.full((SIZE, SIZE), paper)
        contrast = abs(paper - ink)
        if rng.random() < 0.6:
            ramp = np.linspace(-0.5, 0.5, SIZE)
            slope = rng.uniform(-0.4, 0.4, 2) * contrast
            ground += slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
        if rng.random() < 0.4:
            coarse = rng.normal(0, 1, (8, 8)).astype(np.float32)
            mottle = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            ground += np.asarray(mottle) * rng.uniform(0.03, 0.12) * contrast
        if rng.random() < 0.2:
            rules = Image.new("L", (SIZE, SIZE))
            place = rng.integers(0, SIZE, 4).tolist()
            ImageDraw.Draw(rules).line(place, fill=255, width=int(rng.integers(1, 3)))
            ground += np.asarray(rules) / 255.0 * rng.uniform(0.1, 0.35) * (ink - paper)
        return ground


def _mask(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The character's ink, white on black, cut to its edges."""
    left, top, right, bottom = font.getbbox(character)
    mask = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(mask).text((-left, -top), character, fill=255, font=font)
    return mask
