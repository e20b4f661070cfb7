"""Requests to a home and to a shop floor, by intent: a grammar with held-out sentences.

The patterns are in `phrases.yaml`: `[a|b|]` is one of its parts, `{slot}` one of a slot's words.
What a part of the data is made from is never shared: of the patterns of each intent, five are kept
for the test, three for the calibration and the rest for the training, and the test also fills its
slots with rooms and machines that no other part names. All patterns are of one author; what
strangers say is more varied.
"""

import random
import re
from collections import Counter
from pathlib import Path

import yaml

PATTERNS: dict[str, list[str]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)
"""By intent."""
INTENTS = tuple(PATTERNS)
KEPT = {"calibration": 3, "test": 5}
"""Patterns of each intent that the training does not have."""
SLOTS = {
    "light": ("light", "lights", "lamp", "lamps"),
    "room": ("kitchen", "bathroom", "bedroom", "office", "hall", "garage", "workshop", "cellar",
             "attic", "basement", "canteen", "dining room", "stairs", "store", "yard", "lab"),
    "heater": ("heating", "heater", "thermostat", "radiator"),
    "door": ("door", "front door", "gate", "back door"),
    "machine": ("press", "mill", "lathe", "conveyor", "robot", "drill", "saw", "furnace",
                "compressor", "crane", "mixer", "cutter", "printer", "packer", "oven", "sorter"),
    "part": ("filter", "belt", "screw", "bearing", "sensor", "fuse"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "ten", "twelve", "fifteen",
               "twenty", "thirty", "2", "3", "5", "10", "20", "30", "45"),
}  # fmt: skip
TEST_SLOTS = SLOTS | {
    "room": ("living room", "corridor", "warehouse", "laboratory", "kitchen", "office"),
    "machine": ("grinder", "welder", "palletizer", "pump", "press", "robot"),
}
AROUND = (
    "{}", "{}", "{}", "{}", "hey {}", "hello {}", "please {}", "{} please", "{} now", "{} thanks",
    "ok {}", "now {}", "{} right now", "can you {}", "could you {}", "i want that you {}", "so {}",
    "and {}", "{} again", "{} for me", "we want {}", "i would like that {}", "well {}",
)  # fmt: skip
"""What is said around a request that is trained on, whatever it is for."""
TYPOS = {"train": 0.3, "calibration": 0.3, "test": 0.3}
"""The share of requests with one slip of the keyboard."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CHOICE = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def fill(pattern: str, slots: dict[str, tuple[str, ...]], chance: random.Random) -> str:
    """One sentence of a pattern."""
    text = _CHOICE.sub(lambda match: chance.choice(match[1].split("|")), pattern)
    text = _SLOT.sub(lambda match: chance.choice(slots[match[1]]), text)
    return " ".join(text.split())


def slip(text: str, chance: random.Random) -> str:
    """The text with one letter dropped, doubled, replaced, or exchanged with the next."""
    place = chance.randrange(len(text))
    letter = text[place]
    changed = chance.choice(("", letter * 2, chance.choice(_LETTERS), None))
    if changed is None:
        return text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
    return text[:place] + changed + text[place + 1 :]


def patterns_of(part: str) -> tuple[tuple[str, ...], ...]:
    """The patterns of each intent for `train`, `calibration` or `test`.

    Chosen by lot from those whose every word another pattern of the same intent for training has:
    what is new in the test is the sentence, a slot's word, or a slip. What words mean that were
    never seen in an intent can be learned from larger texts, not from these.
    """
    chance = random.Random(0)
    train = {intent: list(patterns) for intent, patterns in PATTERNS.items()}
    kept: dict[str, list[list[str]]] = {name: [] for name in KEPT}
    for patterns in train.values():
        known = Counter(word for text in patterns for word in words(text))
        for name, chosen in kept.items():
            chosen.append([])
            for text in chance.sample(patterns, len(patterns)):
                if len(chosen[-1]) < KEPT[name] and all(known[word] > 1 for word in words(text)):
                    known.subtract(words(text))
                    patterns.remove(text)
                    chosen[-1].append(text)
    return tuple(map(tuple, kept[part] if part in kept else train.values()))


def words(pattern: str) -> set[str]:
    """The words that a pattern can say itself."""
    return set(re.findall(r"\w+", _SLOT.sub(" ", pattern)))


def requests(part: str, count: int, seed: int) -> list[tuple[str, int]]:
    """`count` different requests of a part with the number of their intent, the intents in turn
    for as long as they have new ones."""
    chance = random.Random(seed)
    slots = TEST_SLOTS if part == "test" else SLOTS
    patterns = patterns_of(part)
    made: dict[str, int] = {}
    attempts = 0
    while len(made) < count and attempts < 100 * count:
        label = attempts % len(INTENTS)
        attempts += 1
        text = fill(chance.choice(patterns[label]), slots, chance)
        if part == "train":
            text = chance.choice(AROUND).format(text)
        if chance.random() < TYPOS[part]:
            text = slip(text, chance)
        made.setdefault(text, label)
    return list(made.items())
