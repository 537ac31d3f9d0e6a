"""Supervised training: CTC and attention on labelled clips, for sound, lips and both at once (METHOD §5)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seehear.data.batch import Batch
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import Losses, Objective, StepBatch
from seehear.objectives.losses import ctc_loss, position_mask, token_cross_entropy, with_eos, with_sos
from seehear.recipe import ObjectiveConfig


def decode_all(
    student: USR, features: Mapping[Modality, Tensor], mask: Tensor, tokens: Tensor
) -> dict[Modality, Tensor]:
    """Decoder states (B, U, D) of every modality for the same `tokens` (B, U): one stacked pass."""
    count = len(features)
    hidden = student.decode(tokens.repeat(count, 1), torch.cat(list(features.values())), mask.repeat(count, 1))
    return dict(zip(features, hidden.chunk(count), strict=True))


def labelled_losses(
    student: USR, batch: Batch, config: ObjectiveConfig
) -> tuple[dict[Modality, Tensor], dict[str, Tensor]]:
    """The loss of each modality on labelled clips, λ·CTC + (1−λ)·attention, and its detached parts by name.

    The modalities are those that the clips' streams allow.
    """
    assert batch.tokens is not None, "a labelled batch has tokens"
    assert batch.token_lengths is not None
    video, audio = batch.student_view()
    features = student.encode(video, audio, batch.mask, batch.modalities)
    hidden = decode_all(student, features, batch.mask, with_sos(batch.tokens, student.sos))
    targets = with_eos(batch.tokens, batch.token_lengths, student.eos)
    weights = position_mask(batch.token_lengths + 1, targets.shape[1]).float()
    everything = torch.ones(len(targets), device=targets.device)
    losses: dict[Modality, Tensor] = {}
    parts: dict[str, Tensor] = {}
    for modality in features:
        logits = student.ctc_logits(features[modality], modality)
        ctc = ctc_loss(logits, batch.lengths, batch.tokens, batch.token_lengths, everything)
        attention = token_cross_entropy(
            student.logits(hidden[modality], modality), targets, weights, config.label_smoothing
        )
        losses[modality] = config.ctc_weight * ctc + (1 - config.ctc_weight) * attention
        parts[f"{modality.value}/ctc/labelled"] = ctc.detach()
        parts[f"{modality.value}/attention/labelled"] = attention.detach()
    return losses, parts


class Supervised(Objective):
    """Σ_m w_m·L_l,m on the labelled stream alone."""

    def __init__(self, student: USR, config: ObjectiveConfig) -> None:
        super().__init__()
        self.student = student
        self.config = config

    def forward(self, batch: StepBatch, step: int) -> Losses:
        """The weighted sum over the modalities that the clips have."""
        losses, parts = labelled_losses(self.student, batch.labelled, self.config)
        total = torch.stack([self.config.modality_weights[m] * loss for m, loss in losses.items()]).sum()
        return Losses(self.reaching_all(total, batch), parts)
