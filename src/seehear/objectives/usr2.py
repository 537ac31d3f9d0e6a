"""USR 2.0: the student learns from few labelled clips and from what its teacher says of many others (METHOD §4, §5).

Each step draws one mode (mixed sampling, §4). CTC-driven: the decoder input is the teacher's CTC labels, and the
student's decoder predicts the teacher's attention and CTC labels at once. Autoregressive: the decoder input is the
teacher's decoded labels, and the student's CTC head learns from both kinds.

USR, the predecessor, is a corner of the same settings (`recipe.USR_SETTINGS`): every step is autoregressive, and each
head learns from its own branch alone, the CTC head frame by frame.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seehear.data.batch import Batch
from seehear.decoding.ctc import BLANK
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import Losses, Objective, StepBatch
from seehear.objectives.collapse import CollapseAlarm
from seehear.objectives.losses import ctc_loss, position_mask, token_cross_entropy, with_eos, without
from seehear.objectives.schedules import draws_autoregressive, teacher_momentum, unlabelled_share
from seehear.objectives.supervised import decode_all, labelled_losses
from seehear.objectives.teacher import PseudoLabels, Teacher
from seehear.recipe import ObjectiveConfig


class TrustedLabels(NamedTuple):
    """Weights in [0, 1] that say which pseudo-labels count; a label that does not stays in the mean as 0."""

    ctc: Tensor
    """(B,) CTC label sequences, as targets of the CTC head."""
    frame: Tensor
    """(B, T) CTC labels frame by frame, as targets of the CTC head."""
    attention_sequence: Tensor
    """(B,) attention label sequences, as targets of the CTC head."""
    decoder_ctc: Tensor
    """(B, U) CTC labels, as targets of the decoder."""
    attention_token: Tensor
    """(B, U) attention labels, as targets of the decoder."""
    position: Tensor
    """(B, U) decoder positions that are no padding, of clips that count."""


class USR2(Objective):
    """L = Σ_m w_m·[γ_m·L_u,m + (1−γ_m)·L_l,m]; holds the student, its teacher and the heads for pseudo-labels."""

    def __init__(self, student: USR, config: ObjectiveConfig, steps: int, seed: int) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.steps = steps
        self.seed = seed
        self.teacher = Teacher(student, config.teacher_batchnorm, config.max_label_ratio, config.blank_penalty)
        self.alarm = CollapseAlarm()
        separate = config.pseudo_label_heads == "separate"
        self.ctc_heads = _copy_of(student.ctc_heads) if separate else None
        self.output_heads = _copy_of(student.output_heads) if separate else None

    def teacher_model(self) -> USR:
        """The moving average of the student."""
        return self.teacher.model

    def warnings(self, numbers: Mapping[str, float]) -> list[str]:
        """Signs that the teacher has collapsed."""
        return self.alarm(numbers)

    def needs_unlabelled(self, step: int) -> bool:
        """Not in the supervised start."""
        return step >= self.config.supervised_steps

    def rests_at_first(self) -> bool:
        """The heads for pseudo-labels do, in the supervised start."""
        return self.ctc_heads is not None and not self.needs_unlabelled(0)

    def after_step(self, step: int) -> None:
        """Move the teacher; as the supervised start ends, the heads for pseudo-labels start from the labelled ones."""
        self.teacher.update(self.student, teacher_momentum(self.config.teacher_momentum, step, self.steps))
        self._start_heads(step)

    def after_refusal(self, step: int) -> None:
        """The supervised start ends with a refused step too."""
        self._start_heads(step)

    def _start_heads(self, step: int) -> None:
        if step + 1 == self.config.supervised_steps and self.ctc_heads is not None and self.output_heads is not None:
            self.ctc_heads.load_state_dict(self.student.ctc_heads.state_dict())
            self.output_heads.load_state_dict(self.student.output_heads.state_dict())

    def forward(self, batch: StepBatch, step: int) -> Losses:
        """The labelled and unlabelled losses of every modality, weighted.

        A modality that only the labelled or only the unlabelled clips have keeps the weight of that part.
        """
        labelled, parts = labelled_losses(self.student, batch.labelled, self.config)
        unlabelled: dict[Modality, Tensor] = {}
        if self.needs_unlabelled(step):
            assert batch.unlabelled is not None, "this step needs unlabelled clips"
            autoregressive = draws_autoregressive(self.config, step, self.steps, self.seed)
            labels = self.teacher.label(batch.unlabelled, autoregressive)
            unlabelled, more = self.unlabelled_losses(batch.unlabelled, labels)
            parts |= more
        total = batch.labelled.lengths.new_zeros((), dtype=torch.float32)
        for modality in (m for m in Modality if m in labelled or m in unlabelled):
            gamma = unlabelled_share(self.config, modality, step)
            mixed = (1 - gamma) * labelled.get(modality, 0.0) + gamma * unlabelled.get(modality, 0.0)
            total = total + self.config.modality_weights[modality] * mixed
        return Losses(self.reaching_all(total, batch), parts)

    def unlabelled_losses(self, batch: Batch, labels: PseudoLabels) -> tuple[dict[Modality, Tensor], dict[str, Tensor]]:
        """λ·L_CTC + (1−λ)·L_Att of each modality on clips that the teacher labelled, and what is worth watching."""
        video, audio = batch.student_view()
        features = self.student.encode(video, audio, batch.mask, batch.modalities)
        hidden = decode_all(self.student, features, batch.mask, labels.prefix)
        losses: dict[Modality, Tensor] = {}
        parts: dict[str, Tensor] = {}
        for modality in features:
            trusted = self.trusted(labels, batch.mask, modality)
            ctc = self.ctc_part(self.ctc_head(modality)(features[modality]), batch.lengths, labels, trusted)
            attention = self.attention_part(self.output_head(modality)(hidden[modality]), labels, trusted)
            losses[modality] = self.config.ctc_weight * ctc + (1 - self.config.ctc_weight) * attention
            parts[f"{modality.value}/ctc/unlabelled"] = ctc.detach()
            parts[f"{modality.value}/attention/unlabelled"] = attention.detach()
        return losses, parts | _watched(labels, self.trusted(labels, batch.mask, batch.streams))

    def trusted(self, labels: PseudoLabels, mask: Tensor, modality: Modality) -> TrustedLabels:
        """Confidence filtering (METHOD §3): per sequence for CTC labels, per token for attention labels.

        `mask` (B, T) are the real frames. A clip of which the teacher's CTC says nothing costs nothing at all (§6).
        """
        config = self.config
        ctc, attention = config.ctc_threshold[modality], config.attention_threshold[modality]
        decoder_ctc = (config.decoder_ctc_threshold or config.ctc_threshold)[modality]
        ctc_attention = (config.ctc_attention_threshold or config.attention_threshold)[modality]
        clip = (labels.ctc_lengths > 0).float()
        position = position_mask(labels.attention_lengths, labels.prefix.shape[1]).float() * clip[:, None]
        sequence = labels.attention_sequence_confidence
        sure = labels.attention_confidence if config.attention_filter == "token" else sequence[:, None]
        return TrustedLabels(
            ctc=clip * (labels.ctc_confidence >= ctc),
            frame=clip[:, None] * mask * (labels.frame_confidence >= ctc),
            attention_sequence=clip * (sequence >= ctc_attention),
            decoder_ctc=position * (labels.ctc_confidence >= decoder_ctc)[:, None],
            attention_token=position * (sure >= attention),
            position=position,
        )

    def ctc_part(self, logits: Tensor, lengths: Tensor, labels: PseudoLabels, trusted: TrustedLabels) -> Tensor:
        """L_CTC of the table in METHOD §4, from the student's CTC logits (B, T, V)."""
        config = self.config
        if config.ctc_targets == "frames":
            from_ctc = token_cross_entropy(logits, labels.frame_tokens, trusted.frame, label_smoothing=0.0)
        else:
            from_ctc = ctc_loss(logits, lengths, labels.ctc_tokens, labels.ctc_lengths, trusted.ctc)
        v = config.ctc_attention_weight if labels.autoregressive else config.ctc_driven_ctc_attention_weight
        if v == 0.0:
            return from_ctc
        specials = (BLANK, self.student.eos)  # what a decoder may say and CTC has no use for
        tokens, token_lengths = without(specials, labels.attention_tokens, labels.attention_lengths)
        weights = trusted.attention_sequence * (token_lengths > 0)
        return (1 - v) * from_ctc + v * ctc_loss(logits, lengths, tokens, token_lengths, weights)

    def attention_part(self, logits: Tensor, labels: PseudoLabels, trusted: TrustedLabels) -> Tensor:
        """L_Att of the table in METHOD §4, from the student's decoder logits (B, U, V)."""
        smoothing = self.config.label_smoothing
        from_attention = token_cross_entropy(logits, labels.attention_tokens, trusted.attention_token, smoothing)
        if labels.autoregressive:
            return from_attention
        w = self.config.attention_target_weight
        ctc_targets = with_eos(labels.ctc_tokens, labels.ctc_lengths, self.student.eos)
        return w * from_attention + (1 - w) * token_cross_entropy(logits, ctc_targets, trusted.decoder_ctc, smoothing)

    def ctc_head(self, modality: Modality) -> nn.Module:
        """The CTC layer that pseudo-labels train."""
        return (self.ctc_heads or self.student.ctc_heads)[modality.value]

    def output_head(self, modality: Modality) -> nn.Module:
        """The decoder's output layer that pseudo-labels train."""
        return (self.output_heads or self.student.output_heads)[modality.value]


def _copy_of(heads: nn.ModuleDict) -> nn.ModuleDict:
    """Layers of the same shape that start from the same values."""
    copies = {name: nn.Linear(head.in_features, head.out_features) for name, head in heads.items()}  # type: ignore[arg-type]
    result = nn.ModuleDict(copies)
    result.load_state_dict(heads.state_dict())
    return result


def _watched(labels: PseudoLabels, trusted: TrustedLabels) -> dict[str, Tensor]:
    """How sure the teacher is, how much of what it says is kept, how long its labels are."""
    positions = trusted.position.sum().clamp_min(1)
    return {
        "teacher/autoregressive": torch.tensor(float(labels.autoregressive)),
        "teacher/ctc_confidence": labels.ctc_confidence.mean(),
        "teacher/attention_confidence": (labels.attention_confidence * trusted.position).sum() / positions,
        "teacher/ctc_kept": trusted.ctc.mean(),
        "teacher/attention_kept": trusted.attention_token.sum() / positions,
        "teacher/ctc_length": labels.ctc_lengths.float().mean(),
    }
