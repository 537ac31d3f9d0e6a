"""What a search finds, and when one that has no limit may stop looking."""

from collections.abc import Sequence
from dataclasses import dataclass

END_MARGIN = 10.0
"""End detection: ended hypotheses of recent lengths must all be worse than the best by this."""
END_LENGTHS = 3
"""End detection: how many recent lengths are looked at."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished hypothesis."""

    tokens: tuple[int, ...]
    """Without start and end of sentence."""
    score: float
    """What the search ranks by."""
    decoder_score: float = 0.0
    """Sum of the decoder's log-probabilities, unweighted; 0 where it is not asked."""
    ctc_score: float = 0.0
    """CTC log-probability, unweighted; 0 where it is not asked."""
    language_score: float = 0.0
    """Sum of the language model's log-probabilities, unweighted; 0 without one."""
    num_ends: int = 1
    """End-of-sentence tokens: 2 for one that ended just as the length ran out."""

    @property
    def length(self) -> int:
        """Tokens with start and end of sentence."""
        return 1 + len(self.tokens) + self.num_ends


def has_ended(ended: Sequence[Hypothesis], step: int) -> bool:
    """Whether nothing better can be expected after `step`: recent lengths ended much worse than the best."""
    if not ended:
        return False
    best = max(hypothesis.score for hypothesis in ended)
    for length in range(step, step - END_LENGTHS, -1):
        scores = [hypothesis.score for hypothesis in ended if hypothesis.length == length]
        if not scores or max(scores) >= best - END_MARGIN:
            return False
    return True


def best_first(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Sorted by score."""
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
