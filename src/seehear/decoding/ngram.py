"""A language model of token n-grams, learnt from text alone, for searches to ask."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK
from seehear.errors import ModelError
from seehear.files import write_atomically

DISCOUNT = 0.75
"""Taken off each count, for what was never seen (absolute discounting)."""

KEPT = 4096
"""Contexts of which the distribution is remembered: 17 MB in a vocabulary of a thousand tokens."""

Context = tuple[int, ...]


class NGram:
    """P(token | the last n − 1): discounted counts, and what they lack from a context one shorter.

    P(w | h) = max(c(hw) − d, 0) / c(h) + d·(kinds of tokens seen after h) / c(h) · P(w | h but its first),
    down to all tokens alike. sos = eos stands before and after each sequence.
    """

    def __init__(
        self, order: int, vocab_size: int, counts: Mapping[Context, Mapping[int, int]], vocabulary: str = ""
    ) -> None:
        """`counts` of each token after each context of up to `order` − 1 tokens; `vocabulary` is its `fingerprint`."""
        self.order = order
        self.vocab_size = vocab_size
        self.counts = counts
        self.vocabulary = vocabulary
        self._distribution = lru_cache(KEPT)(self._interpolate)

    @classmethod
    def learn(
        cls, sequences: Iterable[Sequence[int]], vocab_size: int, order: int = 4, pieces: Sequence[str] = ()
    ) -> "NGram":
        """From sequences of ids without specials, which number `pieces`."""
        end = vocab_size - 1
        counts: dict[Context, Counter[int]] = {}
        for sequence in sequences:
            tokens = [end, *sequence, end]
            for place in range(1, len(tokens)):
                for length in range(min(order, place + 1)):
                    counts.setdefault(tuple(tokens[place - length : place]), Counter())[tokens[place]] += 1
        if not counts:
            raise ModelError("a language model needs text to learn from")
        return cls(order, vocab_size, counts, fingerprint(pieces))

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Of the next token, (N, V), after `tokens` (N, U), which begin with sos; blank is impossible."""
        contexts = tokens[:, max(0, tokens.shape[1] - self.order + 1) :].tolist()
        return torch.stack([self._distribution(tuple(context)) for context in contexts]).log().to(tokens.device)

    def _interpolate(self, context: Context) -> Tensor:
        """(V,) P(· | context)."""
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
        """As JSON: order, vocabulary, and the counts by context."""
        counts = {" ".join(map(str, context)): dict(seen) for context, seen in self.counts.items()}
        content = {"order": self.order, "vocab_size": self.vocab_size, "vocabulary": self.vocabulary, "counts": counts}
        write_atomically(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: Path, vocab_size: int, pieces: Sequence[str]) -> "NGram":
        """What `save` wrote. Raises `ModelError` if it is something else, or for another vocabulary than `pieces`."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            counts = {
                tuple(map(int, context.split())): {int(token): int(count) for token, count in seen.items()}
                for context, seen in content["counts"].items()
            }
            vocabulary = str(content["vocabulary"])
            model = cls(int(content["order"]), int(content["vocab_size"]), counts, vocabulary)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path} is not a language model that `seehear lm` of this version wrote ({error})"
            ) from error
        if fault := model._fault():
            raise ModelError(f"{path} is damaged: {fault}; learn it again with `seehear lm`")
        if model.vocab_size != vocab_size:
            raise ModelError(f"{path} is for {model.vocab_size} tokens, and the model has {vocab_size}")
        if vocabulary != fingerprint(pieces):
            raise ModelError(
                f"{path} is for another vocabulary of as many tokens: learn one for this with `seehear lm`"
            )
        return model

    def _fault(self) -> str:
        """What makes it no language model, if anything does."""
        if self.order < 1:
            return f"its order is {self.order}"
        ids = range(BLANK + 1, self.vocab_size)
        for context, seen in self.counts.items():
            if len(context) >= self.order:
                return f"a context has {len(context)} tokens, and the order is {self.order}"
            if unknown := [token for token in (*context, *seen) if token not in ids]:
                return f"there is no token {unknown[0]} among {self.vocab_size}"
            if not all(count > 0 for count in seen.values()):
                return "a count is not above 0"
        return "" if self.counts.get(()) else "it has counted nothing"


def fingerprint(pieces: Sequence[str]) -> str:
    """What tells a vocabulary from others."""
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()
