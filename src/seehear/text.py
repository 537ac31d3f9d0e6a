"""Normal forms of a transcript, named, so that the name can stand beside every error rate."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Normaliser:
    """A function from text to text that is known by its name; a change of behaviour takes a new name."""

    name: str
    change_case: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """One case, NFKC, only letters, their marks, digits and inner apostrophes, words parted by one space."""
        cased = self.change_case(unicodedata.normalize("NFKC", text))
        folded = unicodedata.normalize("NFKC", cased).replace("’", "'")
        words = (word.strip("'") for word in "".join(char if _spoken(char) else " " for char in folded).split())
        return " ".join(word for word in words if word)


def _spoken(char: str) -> bool:
    """Letters, digits, the marks that belong to letters, and the apostrophe."""
    return char.isalnum() or char == "'" or unicodedata.category(char).startswith("M")


NORMALISERS = {
    normaliser.name: normaliser
    for normaliser in (Normaliser("lower-words-1", str.lower), Normaliser("upper-words-1", str.upper))
}
"""`upper-words-1` is the case of the published models' vocabulary."""

DEFAULT_NORMALISER = "lower-words-1"
