"""Vocabularies: learnt from text, saved, damaged, and the published list of units."""

import json
from pathlib import Path

import pytest

from seehear.errors import ConfigError, ModelError
from seehear.tokenizer import DESCRIPTION_FILE, PIECES_FILE, Tokenizer

GRID = [
    f"{verb} {colour} {preposition} {letter} {digit} {adverb}"
    for verb, colour, preposition, letter, digit, adverb in zip(
        ("bin", "lay", "place", "set") * 12,
        ("blue", "green", "red", "white", "blue") * 10,
        ("at", "by", "in", "with", "by", "at") * 8,
        [*"abcdefghijklmnopqrstuvxyz"] * 2,
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine") * 5,
        ("again", "now", "please", "soon", "now") * 10,
        strict=False,
    )
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(GRID, 50)


def test_ids_lie_between_blank_and_end_of_sentence(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size <= 50
    assert tokenizer.pieces[0] == "<unk>"
    assert tokenizer.vocab_size == len(tokenizer.pieces) + 2
    for text in GRID:
        ids = tokenizer.encode(text)
        assert all(1 < id < tokenizer.vocab_size - 1 for id in ids)
        assert tokenizer.decode(ids) == text


def test_text_is_normalised_before_it_is_split(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("  Bin BLUE, at a!") == tokenizer.encode("bin blue at a")


def test_specials_are_passed_over_when_decoding(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("set red")
    assert tokenizer.decode([0, *ids, 0, tokenizer.vocab_size - 1]) == "set red"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_unknown_characters_become_unk(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("bin ж")
    assert ids[-1] == 1
    assert "<unk>" in tokenizer.decode(ids)


def test_a_small_vocabulary_has_a_token_for_each_word_of_one_letter() -> None:
    """Forty-four characters, each at the start of words or inside, would leave room for three words more."""
    lines = 3 * GRID
    small = Tokenizer.train(lines, 50)
    assert len(small.pieces) <= 48
    assert all(len(small.encode(letter)) == 1 for letter in "abcdefghijklmnopqrstuvxyz")
    assert "▁" not in small.pieces
    assert "▁place" in small.pieces
    assert "▁seven" not in small.pieces, "too rare"
    assert all(small.decode(small.encode(line)) == line for line in lines)
    assert sum(len(small.encode(line)) for line in lines) / len(lines) < 12.5


def test_a_vocabulary_too_small_for_that_still_spells_everything() -> None:
    smallest = Tokenizer.train(GRID, 31)
    assert all(smallest.decode(smallest.encode(line)) == line for line in GRID)
    assert "▁" in smallest.pieces


def test_learning_is_deterministic(tokenizer: Tokenizer) -> None:
    again = Tokenizer.train(GRID, 50)
    assert again.pieces == tokenizer.pieces
    assert again.sentencepiece_model == tokenizer.sentencepiece_model


def test_a_size_that_the_text_does_not_support_is_reduced() -> None:
    assert Tokenizer.train(["a b c"], 1000).vocab_size < 12


def test_long_transcripts_are_learnt_from_too() -> None:
    tokenizer = Tokenizer.train(["ab " * 3000, "c d"], 20)
    assert 1 not in tokenizer.encode("ab c d")


@pytest.mark.parametrize(
    ("texts", "size", "message"), [([], 50, "no words"), (["", " ?! "], 50, "no words"), (["abcdef"], 6, "at least 10")]
)
def test_what_cannot_be_learnt_is_an_error(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tokenizer.train(texts, size)


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "t")
    loaded = Tokenizer.load(tmp_path / "t")
    assert loaded.pieces == tokenizer.pieces
    assert loaded.normaliser is tokenizer.normaliser
    assert loaded.encode(GRID[0]) == tokenizer.encode(GRID[0])
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [DESCRIPTION_FILE, PIECES_FILE]


def test_what_is_damaged_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=DESCRIPTION_FILE):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    description = tmp_path / DESCRIPTION_FILE
    complete = json.loads(description.read_text(encoding="utf-8"))
    for damaged, message in (
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps({**complete, "normaliser": "shout-3"}), "shout-3"),
        (json.dumps({"normaliser": "lower-words-1"}), "pieces"),
        (json.dumps({**complete, "pieces": complete["pieces"][:-1]}), "different pieces"),
    ):
        description.write_text(damaged, encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / PIECES_FILE).write_bytes(b"\x00\x01 not a model")
    with pytest.raises(ModelError, match=PIECES_FILE):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "lines", ["<unk>\n▁THE\nS\n", "<unk> 1\r\n▁THE 2\r\nS 3\r\n", "<blank>\n<unk>\n▁THE\nS\n<eos>\n"]
)
def test_a_published_list_decodes(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "units.txt"
    path.write_text(lines, encoding="utf-8", newline="")
    units = Tokenizer.from_units(path)
    assert units.vocab_size == 5
    assert units.decode([2, 2, 3]) == "THE THES"
    assert units.normaliser.name == "upper-words-1"
    with pytest.raises(ModelError, match="only decode"):
        units.encode("the")
    units.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").decode([2]) == "THE"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first piece"),
        ("▁THE\n<unk>\n", "first piece"),
        ("<unk>\nA\nA\n", "twice"),
        ("<unk> 1\nA 3\n", "ids"),
        ("<unk>\nA 2\n", "ids"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "units.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_units(path)
    with pytest.raises(ModelError, match="no unit list"):
        Tokenizer.from_units(tmp_path / "missing.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="UTF-8"):
        Tokenizer.from_units(path)
