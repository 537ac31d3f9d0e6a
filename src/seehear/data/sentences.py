"""The grammar of the synthetic corpus: commands such as "take blue bat nine please".

Its words are chosen so that the eye and the ear need each other. The lips cannot tell bat from mat, fan from van, coat
from goat (each pair begins with one viseme), so lips alone err on every second object; noise hides what the lips show
plainly, as in five and nine. They are few, so that a hundred clips say each about twenty times.
"""

import numpy as np

VERBS = ("take", "move", "find", "show")
COLOURS = ("white", "red", "blue", "black")
OBJECTS = ("bat", "mat", "fan", "van", "coat", "goat")
NUMBERS = ("one", "four", "five", "nine")
ADVERBS = ("now", "please")

COLOUR_SHARE, ADVERB_SHARE = 0.7, 0.5
"""Share of the commands that name a colour, or end in an adverb."""


def vocabulary() -> frozenset[str]:
    """Every word of the grammar (20)."""
    return frozenset(VERBS + COLOURS + OBJECTS + NUMBERS + ADVERBS)


def command(rng: np.random.Generator) -> str:
    """A command at random, of three to five words: verb, colour or none, object, number, adverb or none."""
    slots = [VERBS, OBJECTS, NUMBERS]
    if rng.random() < COLOUR_SHARE:
        slots.insert(1, COLOURS)
    if rng.random() < ADVERB_SHARE:
        slots.append(ADVERBS)
    return " ".join(str(rng.choice(words)) for words in slots)
