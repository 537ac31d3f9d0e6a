"""A language model of token n-grams, learnt from text alone, for searches to ask."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK
from seehear.errors import ModelError
from seehear.files import write_atomically

DISCOUNT = 0.75
"""Taken off each count, for what was never seen (absolute discounting)."""

Context = tuple[int, ...]


class NGram:
    """P(token | the last n − 1): discounted counts, and what they lack from a context one shorter.

    P(w | h) = max(c(hw) − d, 0) / c(h) + d·(kinds of tokens seen after h) / c(h) · P(w | h but its first),
    down to all tokens alike. sos = eos stands before and after each sequence.
    """

    def __init__(self, order: int, vocab_size: int, counts: Mapping[Context, Mapping[int, int]]) -> None:
        """`counts` of each token after each context of up to `order` − 1 tokens."""
        self.order = order
        self.vocab_size = vocab_size
        self.counts = counts
        self._known: dict[Context, Tensor] = {}

    @classmethod
    def learn(cls, sequences: Iterable[Sequence[int]], vocab_size: int, order: int = 4) -> "NGram":
        """From sequences of ids without specials."""
        end = vocab_size - 1
        counts: dict[Context, Counter[int]] = {}
        for sequence in sequences:
            tokens = [end, *sequence, end]
            for place in range(1, len(tokens)):
                for length in range(min(order, place + 1)):
                    counts.setdefault(tuple(tokens[place - length : place]), Counter())[tokens[place]] += 1
        if not counts:
            raise ModelError("a language model needs text to learn from")
        return cls(order, vocab_size, counts)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Of the next token, (N, V), after `tokens` (N, U), which begin with sos; blank is impossible."""
        contexts = tokens[:, max(0, tokens.shape[1] - self.order + 1) :].tolist()
        return torch.stack([self._distribution(tuple(context)) for context in contexts]).log().to(tokens.device)

    def _distribution(self, context: Context) -> Tensor:
        """(V,) P(· | context), remembered."""
        if context not in self._known:
            self._known[context] = self._interpolate(context)
        return self._known[context]

    def _interpolate(self, context: Context) -> Tensor:
        if context:
            shorter = self._distribution(context[1:])
        else:
            shorter = torch.full((self.vocab_size,), 1.0 / (self.vocab_size - 1))
            shorter[BLANK] = 0.0
        seen = self.counts.get(context)
        if not seen:
            return shorter
        total = sum(seen.values())
        probability = shorter * (DISCOUNT * len(seen) / total)
        tokens = torch.tensor(list(seen))
        probability[tokens] += (torch.tensor(list(seen.values())) - DISCOUNT) / total
        return probability

    def save(self, path: Path) -> None:
        """As JSON: order, vocabulary size, and the counts by context."""
        counts = {" ".join(map(str, context)): dict(seen) for context, seen in self.counts.items()}
        content = {"order": self.order, "vocab_size": self.vocab_size, "counts": counts}
        write_atomically(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: Path, vocab_size: int) -> "NGram":
        """What `save` wrote. Raises `ModelError` if it is something else, or for another vocabulary."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            counts = {
                tuple(map(int, context.split())): {int(token): int(count) for token, count in seen.items()}
                for context, seen in content["counts"].items()
            }
            model = cls(int(content["order"]), int(content["vocab_size"]), counts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a language model that `seehear lm` wrote ({error})") from error
        if model.vocab_size != vocab_size:
            raise ModelError(f"{path} is for {model.vocab_size} tokens, and the model has {vocab_size}")
        return model
