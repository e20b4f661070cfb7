"""Draws scenes of machine parts on a bench, as a grey camera sees them, for the parts model.

Everything is by chance and of one seed: the parts, their size, turn, metal and wear, the bench
below them, scraps that are no parts (discs without a hole, rods without a head, shavings), light
and grain. Scenes are drawn with a long side of 256 pixels.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

LABELS = ("bolt", "nut", "washer", "gear", "bracket")
LONG_SIDE = 256
MOST_PARTS = 8
_MARGIN = 12
"""Pixels around a part that its shadow and its blurred edges may reach."""
_SIZES = ((256, 192), (256, 256), (192, 256), (256, 160))
"""Width and height of scenes."""

Outline = np.ndarray
"""Corners [n, 2] of a polygon, in units of the part's radius."""


@dataclass(frozen=True)
class Scene:
    """A picture and the parts in it."""

    pixels: np.ndarray
    """uint8 [height, width]."""
    boxes: np.ndarray
    """float32 [n, 4]: x1, y1, x2, y2 in pixels of the picture."""
    classes: np.ndarray
    """int64 [n]: indexes into LABELS."""


def ring(corners: int, radius: float = 1.0, turn: float = 0.0) -> Outline:
    """A regular polygon; with many corners a circle."""
    angles = turn + np.arange(corners) * (2 * np.pi / corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rectangle(left: float, top: float, right: float, bottom: float) -> Outline:
    """An upright rectangle."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _bolt(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    head, shank = rng.uniform(0.38, 0.55), rng.uniform(0.14, 0.22)
    neck = -1 + rng.uniform(0.35, 0.5)
    grooves = np.arange(neck + 0.35, 0.95, rng.uniform(0.14, 0.22))
    threads = [rectangle(at, -shank, at + 0.05, shank) for at in grooves]
    body = [rectangle(-1, -head, neck, head), rectangle(neck, -shank, 1, shank)]
    return body, threads


def _nut(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    return [ring(6)], [ring(24, rng.uniform(0.4, 0.58))]


def _washer(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    return [ring(36)], [ring(24, rng.uniform(0.35, 0.68))]


def _gear(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    teeth, depth = int(rng.integers(9, 17)), rng.uniform(0.74, 0.84)
    angles = np.arange(teeth * 4) * (2 * np.pi / (teeth * 4))
    radii = np.tile([1.0, 1.0, depth, depth], teeth)
    outline = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [outline], [ring(20, rng.uniform(0.18, 0.36))]


def _bracket(rng: np.random.Generator) -> tuple[list[Outline], list[Outline]]:
    wide, reach = rng.uniform(0.4, 0.6), rng.uniform(0.55, 0.85)
    arms = [rectangle(-reach, -reach, -reach + wide, reach),
            rectangle(-reach, reach - wide, reach, reach)]  # fmt: skip
    hole, middle = ring(12, wide * 0.25), wide / 2
    places = [(-reach + middle, -reach + middle), (reach - middle, reach - middle)]
    return arms, [hole + np.array(place) for place in places]


_PARTS = (_bolt, _nut, _washer, _gear, _bracket)


class Bench:
    """Draws scenes, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def scene(self) -> Scene:
        """One scene with none to eight parts."""
        rng = self._random
        width, height = _SIZES[rng.integers(len(_SIZES))]
        picture = self._ground(width, height)
        for _ in range(rng.integers(0, 8)):
            picture = self._lay(picture, self._scrap(width, height))
        boxes: list[tuple[float, ...]] = []
        classes: list[int] = []
        for _ in range(rng.integers(0, MOST_PARTS + 1)):
            kind = int(rng.integers(len(LABELS)))
            placed = self._part(kind, width, height, boxes)
            if placed is not None:
                picture = self._lay(picture, placed)
                boxes.append(tuple(map(float, placed.getbbox())))
                classes.append(kind)
        return Scene(
            self._photographed(picture),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(classes, np.int64),
        )

    def _ground(self, width: int, height: int) -> np.ndarray:
        """The bench: flat, mottled, brushed, of wood or of wire mesh; float [height, width]."""
        rng = self._random
        ground = np.full((height, width), rng.uniform(40, 215))
        kind, depth = rng.integers(5), rng.uniform(4, 22)
        if kind == 1:
            ground += depth * self._smooth(width, height, 10)
        elif kind == 2:
            ground += depth * 0.7 * rng.normal(0, 1, (height, 1))
        elif kind == 3:
            rows = np.arange(height)[:, None] / rng.uniform(5, 14)
            ground += depth * np.sin(rows + 2.5 * self._smooth(width, height, 5))
        elif kind == 4:
            step = int(rng.integers(8, 20))
            ground[::step] -= depth
            ground[:, ::step] -= depth
        return ground.T.copy() if width == height and rng.random() < 0.5 else ground

    def _smooth(self, width: int, height: int, cells: int) -> np.ndarray:
        coarse = self._random.normal(0, 1, (cells, cells)).astype(np.float32)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(fine, np.float64)

    def _part(
        self, kind: int, width: int, height: int, boxes: list[tuple[float, ...]]
    ) -> Image.Image | None:
        """The mask of a part that hides little of the others; None if no place was found."""
        rng = self._random
        body, holes = _PARTS[kind](rng)
        for _ in range(8):
            radius = rng.uniform(18, 52)
            mask = self._mask(body, holes, radius, width, height)
            box = mask.getbbox()
            if box is None or min(box[2] - box[0], box[3] - box[1]) < 14:
                continue
            if all(_share(box, other) < 0.12 for other in boxes):
                return mask
        return None

    def _mask(
        self, body: list[Outline], holes: list[Outline], radius: float, width: int, height: int
    ) -> Image.Image:
        """Outlines turned, foreshortened and put somewhere within the picture."""
        rng = self._random
        angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi)
        lean = _turn(tilt) @ np.diag([1.0, rng.uniform(0.8, 1.0)]) @ _turn(-tilt)
        move = radius * lean @ _turn(angle)
        edge = radius * 0.75
        middle = rng.uniform((edge, edge), (width - edge, height - edge))
        mask = Image.new("L", (width, height))
        draw = ImageDraw.Draw(mask)
        for outlines, fill in ((body, 255), (holes, 0)):
            for outline in outlines:
                draw.polygon([tuple(point) for point in outline @ move.T + middle], fill=fill)
        return mask

    def _scrap(self, width: int, height: int) -> Image.Image:
        """The mask of something that is no part."""
        rng = self._random
        kind = rng.integers(4)
        if kind == 0:
            return self._mask([ring(30)], [], rng.uniform(5, 26), width, height)
        if kind == 1:
            rod = rectangle(-1, -0.1, 1, rng.uniform(0.0, 0.15))
            return self._mask([rod], [], rng.uniform(15, 60), width, height)
        if kind == 2:
            shaving = ring(5) * rng.uniform(0.2, 1.0, (5, 1))
            return self._mask([shaving], [], rng.uniform(8, 30), width, height)
        mask = Image.new("L", (width, height))
        points = rng.uniform((0, 0), (width, height), (3, 2))
        ImageDraw.Draw(mask).line(
            [tuple(point) for point in points], fill=255, width=int(rng.integers(1, 5))
        )
        return mask

    def _lay(self, picture: np.ndarray, mask: Image.Image) -> np.ndarray:
        """The picture with a thing of this outline on it: its shadow, its metal, its lit edges."""
        rng = self._random
        box = mask.getbbox()
        if box is None:
            return picture
        left, top = max(0, box[0] - _MARGIN), max(0, box[1] - _MARGIN)
        right, bottom = min(mask.width, box[2] + _MARGIN), min(mask.height, box[3] + _MARGIN)
        outline = mask.crop((left, top, right, bottom))
        below = picture[top:bottom, left:right]
        cover = np.asarray(outline.filter(ImageFilter.GaussianBlur(0.7)), np.float64) / 255
        soft = np.asarray(outline.filter(ImageFilter.GaussianBlur(2.5)), np.float64) / 255
        across, down = (int(step) for step in rng.integers(-5, 6, 2))
        shadow = np.roll(soft, (down, across), axis=(0, 1)) * rng.uniform(0.15, 0.5)
        relief = np.roll(soft, (1, 1), axis=(0, 1)) - np.roll(soft, (-1, -1), axis=(0, 1))
        metal = self._metal(below.mean()) + relief * rng.uniform(-160, 160)
        metal = metal + rng.uniform(0, 12) * self._smooth(*outline.size, 8)
        laid = picture.copy()
        laid[top:bottom, left:right] = below * (1 - shadow) * (1 - cover) + metal * cover
        return laid

    def _metal(self, bench: float) -> float:
        """How bright a metal is; one as grey as the bench could not be seen."""
        for _ in range(4):
            level = self._random.uniform(20, 235)
            if abs(level - bench) >= 30:
                break
        return level

    def _photographed(self, picture: np.ndarray) -> np.ndarray:
        """Under uneven light, a little out of focus, with the grain of a sensor: uint8."""
        rng = self._random
        height, width = picture.shape
        light = 1 + rng.uniform(0, 0.25) * self._smooth(width, height, 3).clip(-2, 2)
        lit = np.clip(picture * light * rng.uniform(0.7, 1.15) + rng.uniform(-15, 15), 0, 255)
        blurred = Image.fromarray(lit.astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(rng.uniform(0, 1.6))
        )
        grain = rng.normal(0, rng.uniform(0, 8), (height, width))
        return np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _share(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """How much of the smaller box the other covers."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0.0, wide) * max(0.0, high) / smaller
