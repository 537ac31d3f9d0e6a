"""The normal form of a text."""

import unicodedata

import pytest

from seehear.text import DEFAULT_NORMALISER, NORMALISERS

LOWER, UPPER = NORMALISERS["lower-words-1"], NORMALISERS["upper-words-1"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Bin  BLUE,\tat\nF 2 now!", "bin blue at f 2 now"),
        ("don't 'quote' rock 'n' roll dogs'", "don't quote rock n roll dogs"),
        ("It’s ﬁne — well-known…", "it's fine well known"),
        ("ＦＵＬＬ ①", "full 1"),
        ("Cafe\u0301 naïve", "café naïve"),
        ("नमस्ते!", "नमस्ते"),
        ("", ""),
        (" ?! '' ", ""),
        ("\ufeff-->\x00a_b", "a b"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert LOWER(text) == normal
    assert LOWER(normal) == normal


def test_upper_case() -> None:
    assert UPPER("It's a straße") == "IT'S A STRASSE"


def test_a_normal_form_is_its_own_normal_form() -> None:
    for normaliser in NORMALISERS.values():
        for start in range(0x20, 0x3000, 16):
            text = "".join(chr(code) for code in range(start, start + 16) if unicodedata.category(chr(code)) != "Cs")
            once = normaliser(text)
            assert normaliser(once) == once, ascii(text)


def test_names_are_their_keys() -> None:
    assert all(name == normaliser.name for name, normaliser in NORMALISERS.items())
    assert DEFAULT_NORMALISER in NORMALISERS
