"""The language model of token n-grams: its probabilities, its file, and the command that makes it."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seehear.cli.lm import lm
from seehear.decoding import ngram
from seehear.decoding.ctc import BLANK
from seehear.decoding.ngram import NGram
from seehear.errors import ConfigError, ModelError
from seehear.tokenizer import UNKNOWN_ID, Tokenizer

V, EOS = 4, 3
TEXTS = [[1, 2, 1], [1, 2], [2, 2, 1], []]


def test_an_n_gram_interpolates_discounted_counts() -> None:
    """By hand: alone, each token was seen 4 times of 12; at the start 1 twice, 2 and the end once each, of 4."""
    alone = (4 - 0.75) / 12 + 0.75 * 3 / 12 / 3
    start = [0, (2 - 0.75) / 4, (1 - 0.75) / 4, (1 - 0.75) / 4]
    expected = torch.tensor([0.0, *(p + 0.75 * 3 / 4 * alone for p in start[1:])])
    learnt = NGram.learn(TEXTS, V, order=2)
    torch.testing.assert_close(learnt.log_probs(torch.tensor([[EOS]])).exp()[0], expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_n_gram_is_a_distribution_after_anything(order: int) -> None:
    learnt = NGram.learn(TEXTS, V, order=order)
    for context in itertools.product((1, 2, EOS), repeat=3):
        found = learnt.log_probs(torch.tensor([[EOS, *context]]))
        assert float(found.exp().sum()) == pytest.approx(1.0)
        assert found[0, BLANK] == -math.inf
        assert found[0, 1:].isfinite().all()
    seen, unseen = (probability_of(learnt, text) for text in ([1, 2, 1], [1, 1, 1]))
    assert seen > unseen or order == 1


def probability_of(language_model: NGram, tokens: list[int]) -> float:
    """Log-probability of a sequence and its end."""
    total, prefix = 0.0, [EOS]
    for token in (*tokens, EOS):
        total += float(language_model.log_probs(torch.tensor([prefix]))[0, token])
        prefix.append(token)
    return total


def test_an_n_gram_is_saved_and_one_of_another_vocabulary_refused(tmp_path: Path) -> None:
    learnt, file = NGram.learn(TEXTS, V, order=3), tmp_path / "lm.json"
    learnt.save(file)
    context = torch.tensor([[EOS, 1, 2], [EOS, 2, 2]])
    assert torch.equal(NGram.load(file, V, ()).log_probs(context), learnt.log_probs(context))
    with pytest.raises(ModelError, match="for 4 tokens, and the model has 5"):
        NGram.load(file, 5, ())
    file.write_text("[]")
    with pytest.raises(ModelError, match="not a language model"):
        NGram.load(file, V, ())
    with pytest.raises(ModelError, match="needs text"):
        NGram.learn([], V)


PIECES = ("<unk>", "a")


def test_an_n_gram_of_other_pieces_is_refused(tmp_path: Path) -> None:
    """Also of as many, which the size of the vocabulary does not tell."""
    learnt, file = NGram.learn(TEXTS, V, pieces=PIECES), tmp_path / "lm.json"
    learnt.save(file)
    assert NGram.load(file, V, PIECES).counts == learnt.counts
    for others in (("<unk>", "b"), ("a", "<unk>"), ()):
        with pytest.raises(ModelError, match=r"lm\.json is for another vocabulary of as many tokens: learn one"):
            NGram.load(file, V, others)
    content = json.loads(file.read_text())
    del content["vocabulary"]
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not a language model"):
        NGram.load(file, V, PIECES)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ({"order": 0}, "its order is 0"),
        ({"order": -3}, "its order is -3"),
        ({"order": 1}, "a context has 1 tokens, and the order is 1"),
        ({"counts": {}}, "it has counted nothing"),
        ({"counts": {"": {}}}, "it has counted nothing"),
        ({"counts": {"": {"99": 5}}}, "there is no token 99 among 4"),
        ({"counts": {"": {"-1": 5}}}, "there is no token -1 among 4"),
        ({"counts": {"": {"0": 5}}}, "there is no token 0 among 4"),
        ({"counts": {"": {"1": 5}, "4": {"1": 1}}}, "there is no token 4 among 4"),
        ({"counts": {"": {"1": 0}}}, "a count is not above 0"),
    ],
)
def test_a_damaged_n_gram_is_refused(tmp_path: Path, damage: dict[str, Any], fault: str) -> None:
    file = tmp_path / "lm.json"
    NGram.learn(TEXTS, V, order=3, pieces=PIECES).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(ModelError, match=rf"^[^\n]*lm\.json is damaged: {fault}; learn it again with `seehear lm`$"):
        NGram.load(file, V, PIECES)


def test_an_n_gram_remembers_few_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "KEPT", 3)
    bounded = NGram.learn(TEXTS, V, order=4)
    contexts = list(itertools.product((1, 2, EOS), repeat=4))
    every = torch.tensor(contexts)
    monkeypatch.undo()
    assert torch.equal(bounded.log_probs(every), NGram.learn(TEXTS, V, order=4).log_probs(every))
    assert bounded._distribution.cache_info().currsize == 3


def test_the_command_tells_what_it_leaves_out(
    model_folder: Path, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, unspoken, output = tmp_path / "text.txt", tmp_path / "unspoken.txt", tmp_path / "lm.json"
    text.write_text("bin blue\n—\n\n...\nset ñ red\n")
    lm([text], str(model_folder), output, 2)
    sentences = [tokenizer.encode(line) for line in ("bin blue", "set ñ red")]
    unknown, tokens = sum(row.count(UNKNOWN_ID) for row in sentences), sum(map(len, sentences))
    assert unknown > 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{output}: 2 sentences, ")
    assert others == ["left out: 2 lines without words", f"unknown to the model: {unknown} of {tokens} tokens"]
    learnt = NGram.load(output, tokenizer.vocab_size, tokenizer.pieces)
    assert learnt.counts == NGram.learn(sentences, tokenizer.vocab_size, 2).counts

    text.write_text("bin blue\n")
    lm([text], str(model_folder), output, 2)
    assert len(capsys.readouterr().out.splitlines()) == 1
    unspoken.write_text("—\n...\n")
    with pytest.raises(ConfigError, match=r"unspoken\.txt holds no words: a language model needs text"):
        lm([text, unspoken], str(model_folder), output, 2)
