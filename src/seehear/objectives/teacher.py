"""The teacher: a moving average of the student that labels clips nobody has transcribed (METHOD §2 and §3).

It sees each clip unmasked, with sound and lips where the clip has both. Its CTC head gives one label sequence; its
decoder gives another: token by token (autoregressive) or, the idea of USR 2.0, in one parallel pass over the CTC labels
(CTC-driven teacher forcing): ỹ_Att,u = argmax P(· | ỹ_CTC,<u), wrong as a sentence perhaps, but paired token by token
with ỹ_CTC.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seehear.data.batch import Batch
from seehear.decoding.ctc import BLANK, GreedyCTC, ctc_greedy
from seehear.decoding.greedy import attention_greedy
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.losses import position_mask, with_sos


@dataclass(frozen=True)
class PseudoLabels:
    """What the teacher says of B clips; U_c CTC tokens, U decoder positions."""

    autoregressive: bool
    ctc_tokens: Tensor
    """(B, U_c) collapsed greedy CTC labels ỹ_CTC, padded."""
    ctc_lengths: Tensor
    """(B,)"""
    ctc_confidence: Tensor
    """(B,) geometric mean over the clip's frames of the largest CTC probability."""
    frame_tokens: Tensor
    """(B, T) the CTC label of each frame, before collapsing."""
    frame_confidence: Tensor
    """(B, T) the largest CTC probability of each frame."""
    attention_tokens: Tensor
    """(B, U) ỹ_Att. Autoregressive: the decoded sequence, eos included. CTC-driven: position u goes with ỹ_CTC,u and
    the last one with eos, so that U = U_c + 1."""
    attention_lengths: Tensor
    """(B,) positions that count, the one of eos included."""
    attention_confidence: Tensor
    """(B, U) the largest probability at each position."""
    prefix: Tensor
    """(B, U) the decoder input under which the labels hold: sos, then ỹ_CTC or ỹ_Att."""

    @property
    def attention_sequence_confidence(self) -> Tensor:
        """(B,) geometric mean of the token confidences."""
        real = position_mask(self.attention_lengths, self.attention_confidence.shape[1])
        log_confidence = self.attention_confidence.clamp_min(1e-30).log().masked_fill(~real, 0.0)
        return (log_confidence.sum(1) / self.attention_lengths.clamp_min(1)).exp()


class DecoderLabels(NamedTuple):
    """What the teacher's decoder adds; the fields are those of `PseudoLabels`."""

    attention_tokens: Tensor
    attention_lengths: Tensor
    attention_confidence: Tensor
    prefix: Tensor


class Teacher(nn.Module):
    """An exponential moving average of a student; it gets no gradient and is not part of a shipped model."""

    def __init__(
        self,
        student: USR,
        batchnorm: Literal["batch", "ema"],
        max_label_ratio: float,
        blank_penalty: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.batchnorm = batchnorm
        self.max_label_ratio = max_label_ratio
        self.blank_penalty = blank_penalty
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Dropout and stochastic depth stay off; BatchNorm uses the batch's statistics if so configured."""
        super().train(False)
        if mode and self.batchnorm == "batch":
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
                    module.track_running_stats = False  # they follow the student's, see `update`
        return self

    @torch.no_grad()
    def update(self, student: USR, momentum: float) -> None:
        """θT ← τ·θT + (1−τ)·θS for parameters; running statistics follow alike (used when the teacher is evaluated)."""
        for mine, theirs in zip(self.model.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - momentum)
        for own, given in zip(self.model.buffers(), student.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(given, 1.0 - momentum)
            else:
                own.copy_(given)

    @torch.no_grad()
    def label(self, batch: Batch, autoregressive: bool) -> PseudoLabels:
        """Label the unmasked clips of `batch` from all that they have, by the heads of that modality."""
        modality = batch.streams
        features = self.model.encode(batch.video, batch.audio, batch.mask, [modality])[modality]
        logits = self.model.ctc_logits(features, modality)
        if self.blank_penalty:
            logits[..., BLANK] -= self.blank_penalty
        ctc = ctc_greedy(logits, batch.mask)
        decoded = (self._autoregressive if autoregressive else self._ctc_driven)(features, batch.mask, ctc, modality)
        return PseudoLabels(
            autoregressive=autoregressive,
            ctc_tokens=ctc.tokens,
            ctc_lengths=ctc.lengths,
            ctc_confidence=(ctc.frame_log_probs.sum(1) / batch.lengths).exp(),
            frame_tokens=ctc.frame_ids,
            frame_confidence=ctc.frame_log_probs.exp(),
            **decoded._asdict(),
        )

    def _ctc_driven(self, features: Tensor, mask: Tensor, ctc: GreedyCTC, modality: Modality) -> DecoderLabels:
        """One decoder pass on [sos, ỹ_CTC]."""
        prefix = with_sos(ctc.tokens, self.model.sos)
        logits = self.model.logits(self.model.decode(prefix, features, mask), modality)
        probability, tokens = logits.float().softmax(-1).max(-1)
        return DecoderLabels(tokens, ctc.lengths + 1, probability, prefix)

    def _autoregressive(self, features: Tensor, mask: Tensor, ctc: GreedyCTC, modality: Modality) -> DecoderLabels:
        """Greedy decoding, at most ⌊T·max_label_ratio⌋ tokens."""
        max_tokens = max(1, int(features.shape[1] * self.max_label_ratio))
        with _cast_once(self.model):
            greedy = attention_greedy(self.model, features, mask, modality, max_tokens)
        prefix = with_sos(greedy.tokens[:, :-1], self.model.sos)
        return DecoderLabels(greedy.tokens, greedy.lengths, greedy.log_probs.exp(), prefix)


@contextlib.contextmanager
def _cast_once(frozen: nn.Module) -> Iterator[None]:
    """Under autocast, weights are cast to half precision once and not for every token.

    Autocast remembers what it made of weights that learn, so for as long as it takes these pretend to.
    """
    frozen.requires_grad_(True)
    try:
        yield
    finally:
        frozen.requires_grad_(False)
