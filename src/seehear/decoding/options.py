"""How encoder features become tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from numbers import Integral
from typing import Literal

from seehear.errors import ConfigError

DType = Literal["auto", "float32", "bf16", "fp16"]
"""The numbers that a model computes with, or `auto` (see `seehear.devices`)."""

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


_SCORED = ("beam_size", "ctc_weight", "length_bonus", "language_weight")
OPTIONS_OF: Mapping[DecodingMethod, tuple[str, ...]] = {
    DecodingMethod.CTC: (),
    DecodingMethod.ATTENTION: ("max_length_ratio",),
    DecodingMethod.BEAM: (*_SCORED, "max_length_ratio"),
    DecodingMethod.CTC_BEAM: ("beam_size",),
    DecodingMethod.RESCORE: _SCORED,
    DecodingMethod.CTC_DRIVEN: (),
}
"""The fields of `DecodingOptions` that have a say in each method."""


@dataclass(frozen=True)
class DecodingOptions:
    """The settings of decoding; the defaults are the paper's. Raises `ConfigError` for values that cannot be."""

    method: DecodingMethod = DecodingMethod.BEAM
    """Its name, as "ctc", will do."""
    beam_size: int = 40
    ctc_weight: float = 0.1
    """α: the share of the CTC prefix score."""
    length_bonus: float = 0.0
    """β: added for every token."""
    max_length_ratio: float = 1.0
    """Longest output in tokens per video frame; 0: one, and a beam search stops when nothing better is expected."""
    language_weight: float = 0.3
    """Of an external language model, if one is given; 0: it is not asked."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, all of it at once."""
        faults = []
        if self.method in set(DecodingMethod):
            object.__setattr__(self, "method", DecodingMethod(self.method))
        else:
            faults.append(f"method must be one of {', '.join(DecodingMethod)}, not '{self.method}'")
        ratio = self.max_length_ratio
        for possible, fault in (
            (
                isinstance(self.beam_size, Integral) and self.beam_size >= 1,
                f"beam_size must be a whole number from 1 on, not {self.beam_size}",
            ),
            (0 <= self.ctc_weight <= 1, f"ctc_weight must lie between 0 and 1, not be {self.ctc_weight}"),
            (math.isfinite(self.length_bonus), f"length_bonus must be a finite number, not {self.length_bonus}"),
            (0 <= ratio < math.inf, f"max_length_ratio must be a finite number from 0 on, not {ratio}"),
            (  # negative, tokens could raise a score, and no search could know when to stop
                0 <= self.language_weight < math.inf,
                f"language_weight must be a finite number from 0 on, not {self.language_weight}",
            ),
        ):
            if not possible:
                faults.append(fault)
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def asks_language_model(self) -> bool:
        """Whether a language model has a say."""
        return "language_weight" in OPTIONS_OF[self.method] and self.language_weight > 0

    def with_smaller_beam(self) -> "DecodingOptions | None":
        """The same with half as many hypotheses; None if there is but one, or the method has no beam."""
        if "beam_size" not in OPTIONS_OF[self.method] or self.beam_size == 1:
            return None
        return replace(self, beam_size=self.beam_size // 2)

    def require_language_model_asked(self) -> None:
        """Raise `ConfigError` if a language model that a user names would have no say."""
        if not self.asks_language_model:
            asking = " and ".join(method for method, options in OPTIONS_OF.items() if "language_weight" in options)
            why = f"decoding by {self.method}" if self.language_weight else "a language weight of 0"
            raise ConfigError(f"{why} asks no language model: {asking} do, with a weight above 0; or leave it out")

    def max_tokens(self, num_frames: int) -> int:
        """Tokens that a clip of so many frames may have, end of sentence counted; at least one."""
        ratio = self.max_length_ratio or 1.0
        return max(1, int(ratio * num_frames))
