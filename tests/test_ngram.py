"""The language model of token n-grams: its probabilities, its file, and the command that makes it."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from seehear.decoding.ctc import BLANK
from seehear.decoding.ngram import NGram
from seehear.errors import ModelError

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
    assert torch.equal(NGram.load(file, V).log_probs(context), learnt.log_probs(context))
    with pytest.raises(ModelError, match="for 4 tokens, and the model has 5"):
        NGram.load(file, 5)
    file.write_text("[]")
    with pytest.raises(ModelError, match="not a language model"):
        NGram.load(file, V)
    with pytest.raises(ModelError, match="needs text"):
        NGram.learn([], V)
