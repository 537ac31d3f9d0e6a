"""How encoder features become tokens."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

DType = Literal["float32", "bf16"]
"""The numbers that a model computes with; weights stay float32, as do sums and probabilities."""

NO_SPEECH = 0.12
"""Probability, by CTC, that nothing is said, above which nothing is written: 2 nats of evidence for a token."""


class DecodingMethod(StrEnum):
    """The ways to decode (METHOD §7)."""

    CTC = "ctc"
    """Greedy CTC."""
    ATTENTION = "attention"
    """Greedy attention."""
    BEAM = "beam"
    """Joint CTC/attention beam search."""
    CTC_BEAM = "ctc-beam"
    """CTC prefix beam search."""
    RESCORE = "rescore"
    """What a CTC prefix beam search finds, ranked by CTC and decoder, which reads it all at once."""
    CTC_DRIVEN = "ctc-driven"
    """The decoder's choice at each position after greedy CTC, at once: the teacher's labels (the paper's Table 12)."""


@dataclass(frozen=True)
class DecodingOptions:
    """The settings of decoding; the defaults are the paper's."""

    method: DecodingMethod = DecodingMethod.BEAM
    beam_size: int = 40
    ctc_weight: float = 0.1
    """α: the share of the CTC prefix score."""
    length_bonus: float = 0.0
    """β: added for every token."""
    max_length_ratio: float = 1.0
    """Longest output in tokens per video frame; 0: one, and a beam search stops when nothing better is expected."""
    language_weight: float = 0.0
    """Of an external language model, if one is given."""

    def max_tokens(self, num_frames: int) -> int:
        """Tokens that a clip of so many frames may have, end of sentence counted; at least one."""
        ratio = self.max_length_ratio or 1.0
        return max(1, int(ratio * num_frames))
