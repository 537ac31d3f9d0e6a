"""METHOD §2–§5 a second time, to hold the objectives against: plain Python, clip by clip, no padding and no tensors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Row = list[float]
"""A number for each token of the vocabulary: logits of a frame or of a decoder position."""
Decoder = Callable[[list[int]], list[Row]]
"""From a prefix that begins with sos to the logits of what follows each of its tokens."""

BLANK = 0


@dataclass(frozen=True)
class Settings:
    """What METHOD leaves open; a table has a number for each of the modalities "a", "v" and "av"."""

    ctc_weight: float
    label_smoothing: float
    modality_weights: dict[str, float]
    gamma: dict[str, float]
    supervised_steps: int
    gamma_rise_steps: int
    ar_probability: float
    ar_schedule: Literal["constant", "linear", "cosine"]
    ctc_targets: Literal["collapsed", "frames"]
    attention_target_weight: float
    ctc_driven_ctc_attention_weight: float
    ctc_attention_weight: float
    ctc_threshold: dict[str, float]
    decoder_ctc_threshold: dict[str, float] | None
    attention_threshold: dict[str, float]
    ctc_attention_threshold: dict[str, float] | None
    attention_filter: Literal["token", "sequence"]
    teacher_momentum: float
    max_label_ratio: float
    blank_penalty: float

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> "Settings":
        """These, picked from more."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def same(value: float) -> dict[str, float]:
    """One number for the three modalities."""
    return {"v": value, "a": value, "av": value}


USR2 = Settings(
    ctc_weight=0.1,
    label_smoothing=0.1,
    modality_weights={"v": 0.3, "a": 0.7, "av": 0.7},
    gamma={"v": 0.97, "a": 0.75, "av": 0.75},
    supervised_steps=0,
    gamma_rise_steps=0,
    ar_probability=0.5,
    ar_schedule="constant",
    ctc_targets="collapsed",
    attention_target_weight=0.5,
    ctc_driven_ctc_attention_weight=0.0,
    ctc_attention_weight=0.5,
    ctc_threshold=same(0.8),
    decoder_ctc_threshold=None,
    attention_threshold=same(0.8),
    ctc_attention_threshold=None,
    attention_filter="token",
    teacher_momentum=0.998,
    max_label_ratio=1 / 5,
    blank_penalty=0.0,
)
"""The paper's settings (low resource)."""
USR = replace(USR2, ar_probability=1.0, ctc_targets="frames", ctc_attention_weight=0.0, teacher_momentum=0.999)
"""Its predecessor's: always autoregressive, each head against its own branch."""


# §2 Teacher and student, §4 and §5 schedules


def moving_average(teacher: Sequence[float], student: Sequence[float], momentum: float) -> list[float]:
    """θT ← τ·θT + (1−τ)·θS."""
    return [momentum * t + (1 - momentum) * s for t, s in zip(teacher, student, strict=True)]


def momentum(settings: Settings, step: int, steps: int) -> float:
    """τ: on a cosine from τ₀ at the first step to 1."""
    fallen = (1 + math.cos(math.pi * step / steps)) / 2  # from 1 to 0
    return settings.teacher_momentum * fallen + 1.0 * (1 - fallen)


def ar_probability(settings: Settings, step: int, steps: int) -> float:
    """p: constant, or from 0 to 1 linearly or on a cosine."""
    if settings.ar_schedule == "constant":
        return settings.ar_probability
    if settings.ar_schedule == "linear":
        return step / steps
    return 1 - (1 + math.cos(math.pi * step / steps)) / 2


def gamma(settings: Settings, modality: str, step: int) -> float:
    """γ_m: 0 in the supervised start, then up to its value in equal steps."""
    made = step + 1 - settings.supervised_steps
    if made <= 0:
        return 0.0
    if made < settings.gamma_rise_steps:
        return settings.gamma[modality] * made / settings.gamma_rise_steps
    return settings.gamma[modality]


# §3 Pseudo-labels


def readable(streams: str) -> list[str]:
    """The modalities in which a clip with sound "a", a picture "v" or both "av" can be recognised."""
    return [m for m in ("a", "v", "av") if all(stream in streams for stream in m)]


def richest(streams: str) -> str:
    """The one of them by which the teacher labels such a clip: that with most streams."""
    return max(readable(streams), key=len)


@dataclass(frozen=True)
class Labels:
    """What the teacher says of one clip."""

    frames: list[int]
    frame_confidence: list[float]
    ctc: list[int]
    ctc_confidence: float
    prefix: list[int]
    """What the decoder has read."""
    attention: list[int]
    """ỹ_Att, a token for each of the prefix."""
    token_confidence: list[float]
    attention_confidence: float


def log_softmax(row: Row) -> Row:
    """Logits to log-probabilities."""
    largest = max(row)
    log_sum = largest + math.log(sum(math.exp(x - largest) for x in row))
    return [x - log_sum for x in row]


def best(row: Row) -> tuple[int, float]:
    """The most probable token and its probability."""
    log_probs = log_softmax(row)
    token = max(range(len(row)), key=lambda k: log_probs[k])
    return token, math.exp(log_probs[token])


def without_blank(row: Row, penalty: float) -> Row:
    """Logits of which the blank's is lowered (ours)."""
    return [logit - penalty if token == BLANK else logit for token, logit in enumerate(row)]


def collapse(frames: list[int]) -> list[int]:
    """Merge repeats, drop blanks."""
    merged = [token for t, token in enumerate(frames) if t == 0 or token != frames[t - 1]]
    return [token for token in merged if token != BLANK]


def geometric_mean(confidences: list[float]) -> float:
    """exp(mean of logarithms)."""
    return math.exp(sum(math.log(c) for c in confidences) / len(confidences))


def longest_label(settings: Settings, frames: int) -> int:
    """Tokens of a decoded label, at most, in a batch whose longest clip has so many frames: ⌊T/5⌋ in USR's code."""
    return max(1, math.floor(frames * settings.max_label_ratio))


def label(ctc_logits: list[Row], decoder: Decoder, eos: int, autoregressive: bool, max_tokens: int) -> Labels:
    """The teacher's labels of one clip, from its CTC logits (one row a frame) and its decoder."""
    frames = [best(row) for row in ctc_logits]
    ctc = collapse([token for token, _ in frames])
    prefix = [eos]  # sos is the same token
    attention: list[tuple[int, float]] = []
    if autoregressive:
        for _ in range(max_tokens):
            attention.append(best(decoder(prefix)[-1]))
            if attention[-1][0] == eos:
                break
            prefix.append(attention[-1][0])
        prefix = prefix[: len(attention)]
    else:
        prefix = [eos, *ctc]
        attention = [best(row) for row in decoder(prefix)]
    return Labels(
        frames=[token for token, _ in frames],
        frame_confidence=[confidence for _, confidence in frames],
        ctc=ctc,
        ctc_confidence=geometric_mean([confidence for _, confidence in frames]),
        prefix=prefix,
        attention=[token for token, _ in attention],
        token_confidence=[confidence for _, confidence in attention],
        attention_confidence=geometric_mean([confidence for _, confidence in attention]),
    )


@dataclass(frozen=True)
class Trusted:
    """Which labels of one clip reach the student in one modality."""

    frames: list[bool]
    """ỹ_CTC frame by frame, on the CTC head (USR)."""
    ctc: bool
    """ỹ_CTC on the CTC head."""
    decoder_ctc: bool
    """ỹ_CTC on the decoder."""
    tokens: list[bool]
    """ỹ_Att on the decoder, position by position."""
    ctc_attention: bool
    """ỹ_Att on the CTC head."""


def trusted(labels: Labels, settings: Settings, modality: str) -> Trusted:
    """Labels that are sure enough, of a clip of which CTC says anything (§6: an empty ỹ_CTC gives no loss at all)."""
    speaks = len(labels.ctc) > 0
    on_ctc_head = settings.ctc_threshold[modality]
    on_decoder = settings.attention_threshold[modality]
    ctc_on_decoder, attention_on_ctc_head = on_ctc_head, on_decoder
    if settings.decoder_ctc_threshold is not None:
        ctc_on_decoder = settings.decoder_ctc_threshold[modality]
    if settings.ctc_attention_threshold is not None:
        attention_on_ctc_head = settings.ctc_attention_threshold[modality]
    confidence = labels.token_confidence
    if settings.attention_filter == "sequence":
        confidence = [labels.attention_confidence] * len(confidence)
    return Trusted(
        frames=[speaks and c >= on_ctc_head for c in labels.frame_confidence],
        ctc=speaks and labels.ctc_confidence >= on_ctc_head,
        decoder_ctc=speaks and labels.ctc_confidence >= ctc_on_decoder,
        tokens=[speaks and c >= on_decoder for c in confidence],
        ctc_attention=speaks and labels.attention_confidence >= attention_on_ctc_head,
    )


# §4 Losses of one clip


def cross_entropy(row: Row, target: int, smoothing: float) -> float:
    """−Σ_k q_k·log p_k, where q has 1 − smoothing at the target and shares the rest among the whole vocabulary."""
    loss = 0.0
    for token, log_prob in enumerate(log_softmax(row)):
        wanted = smoothing / len(row) + (1 - smoothing if token == target else 0.0)
        loss -= wanted * log_prob
    return loss


def ctc_loss(logits: list[Row], target: list[int]) -> float:
    """−log P(target | frames) by the forward recursion; 0 for a target that does not fit."""
    states = [BLANK]  # a blank before, between and after the tokens
    for token in target:
        states += [token, BLANK]
    log_probs = [log_softmax(row) for row in logits]
    forward = [-math.inf] * len(states)
    forward[:2] = [log_probs[0][state] for state in states[:2]]
    for row in log_probs[1:]:
        arrived = []
        for s, state in enumerate(states):
            origins = [forward[s]]
            if s >= 1:
                origins.append(forward[s - 1])
            if s >= 2 and s % 2 == 1 and state != states[s - 2]:  # from one token to a different one, without blank
                origins.append(forward[s - 2])
            arrived.append(log_sum(origins) + row[state])
        forward = arrived
    log_prob = log_sum(forward[-2:])
    return 0.0 if log_prob == -math.inf else -log_prob


def log_sum(logarithms: list[float]) -> float:
    """log Σ exp."""
    largest = max(logarithms)
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(sum(math.exp(x - largest) for x in logarithms))


class Student:
    """What the student says of one clip in one modality."""

    def __init__(self, ctc: list[Row], decoder: list[Row]) -> None:
        self.ctc = ctc
        """Logits of each frame."""
        self.decoder = decoder
        """Logits of what follows each token of the prefix."""


def unlabelled_ctc(
    student: Student, labels: Labels, trust: Trusted, autoregressive: bool, eos: int, settings: Settings
) -> float:
    """L_CTC of §4's table; in CTC-driven mode the paper's Table 4 lets the CTC head take ỹ_Att too."""
    from_ctc = 0.0
    if settings.ctc_targets == "frames":
        for row, token, kept in zip(student.ctc, labels.frames, trust.frames, strict=True):
            from_ctc += cross_entropy(row, token, smoothing=0.0) if kept else 0.0
    elif trust.ctc:
        from_ctc = ctc_loss(student.ctc, labels.ctc)
    from_attention = 0.0
    words = [token for token in labels.attention if token not in (BLANK, eos)]
    if trust.ctc_attention and words:
        from_attention = ctc_loss(student.ctc, words)
    v = settings.ctc_attention_weight if autoregressive else settings.ctc_driven_ctc_attention_weight
    return (1 - v) * from_ctc + v * from_attention


def unlabelled_attention(
    student: Student, labels: Labels, trust: Trusted, autoregressive: bool, eos: int, settings: Settings
) -> float:
    """L_Att of §4's table."""
    from_attention, from_ctc = 0.0, 0.0
    for row, token, kept in zip(student.decoder, labels.attention, trust.tokens, strict=True):
        from_attention += cross_entropy(row, token, settings.label_smoothing) if kept else 0.0
    if autoregressive:
        return from_attention
    for row, token in zip(student.decoder, [*labels.ctc, eos], strict=True):
        from_ctc += cross_entropy(row, token, settings.label_smoothing) if trust.decoder_ctc else 0.0
    w = settings.attention_target_weight
    return w * from_attention + (1 - w) * from_ctc


# §5 Losses of a batch


class Parts:
    """L_CTC and L_Att of one modality: sums over the clips divided by their number."""

    def __init__(self, ctc: list[float], attention: list[float]) -> None:
        self.ctc = sum(ctc) / len(ctc)
        self.attention = sum(attention) / len(attention)

    def joined(self, ctc_weight: float) -> float:
        """λ·L_CTC + (1−λ)·L_Att."""
        return ctc_weight * self.ctc + (1 - ctc_weight) * self.attention


def labelled_parts(students: list[Student], transcripts: list[list[int]], eos: int, settings: Settings) -> Parts:
    """True CTC loss, and cross-entropy of the tokens and eos with teacher forcing."""
    attention = []
    for student, tokens in zip(students, transcripts, strict=True):
        loss = 0.0
        for row, token in zip(student.decoder, [*tokens, eos], strict=True):
            loss += cross_entropy(row, token, settings.label_smoothing)
        attention.append(loss)
    return Parts([ctc_loss(s.ctc, tokens) for s, tokens in zip(students, transcripts, strict=True)], attention)


def unlabelled_parts(
    students: list[Student], labels: list[Labels], modality: str, autoregressive: bool, eos: int, settings: Settings
) -> Parts:
    """The losses of one modality against the teacher's labels."""
    ctc, attention = [], []
    for student, of_clip in zip(students, labels, strict=True):
        trust = trusted(of_clip, settings, modality)
        ctc.append(unlabelled_ctc(student, of_clip, trust, autoregressive, eos, settings))
        attention.append(unlabelled_attention(student, of_clip, trust, autoregressive, eos, settings))
    return Parts(ctc, attention)


def supervised_total(labelled: dict[str, Parts], settings: Settings) -> float:
    """Σ_m w_m·L_l,m."""
    return sum(settings.modality_weights[m] * labelled[m].joined(settings.ctc_weight) for m in labelled)


def total(labelled: dict[str, Parts], unlabelled: dict[str, Parts], settings: Settings, step: int) -> float:
    """L = Σ_m w_m·[γ_m·L_u,m + (1−γ_m)·L_l,m], of what there is in each modality."""
    loss = 0.0
    for m in settings.modality_weights:
        share = gamma(settings, m, step)
        given = labelled[m].joined(settings.ctc_weight) if m in labelled else 0.0
        guessed = unlabelled[m].joined(settings.ctc_weight) if m in unlabelled else 0.0
        loss += settings.modality_weights[m] * (share * guessed + (1 - share) * given)
    return loss


def watched(labels: list[Labels], autoregressive: bool, settings: Settings, modality: str = "av") -> dict[str, float]:
    """The teacher's numbers that a run records, by the thresholds of the modality that it labels in.

    The decoder's are of clips that CTC labels.
    """
    trust = [trusted(of_clip, settings, modality) for of_clip in labels]
    counted = [(own, given) for own, given in zip(labels, trust, strict=True) if own.ctc]
    positions = max(1, sum(len(own.attention) for own, _ in counted))
    return {
        "teacher/autoregressive": float(autoregressive),
        "teacher/ctc_confidence": sum(own.ctc_confidence for own in labels) / len(labels),
        "teacher/attention_confidence": sum(sum(own.token_confidence) for own, _ in counted) / positions,
        "teacher/ctc_kept": sum(given.ctc for given in trust) / len(labels),
        "teacher/attention_kept": sum(sum(given.tokens) for _, given in counted) / positions,
        "teacher/ctc_length": sum(len(own.ctc) for own in labels) / len(labels),
    }
