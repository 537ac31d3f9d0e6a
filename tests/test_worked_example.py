"""METHOD §3 and §4 by hand: what a teacher that follows a script makes of five clips, and what the student is taught.

The teacher's decoder is asked twice. CTC-driven: what comes after each word of ỹ_CTC, in one pass, so that position u
knows ỹ_CTC,<u and the last position what ends the sentence. Autoregressive: what comes after its own words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import loop_reference as loop
from seehear.config import SIZES
from seehear.data.batch import Batch
from seehear.modality import Modality
from seehear.model.transformer import DecoderCache
from seehear.model.usr import USR
from seehear.objectives.teacher import PseudoLabels, Teacher
from seehear.objectives.usr2 import USR2
from seehear.recipe import ObjectiveConfig

WORDS = ("_", "the", "cat", "sat", "mat", "hat", ".")
"""The vocabulary: blank is the first, sos and eos the last."""
TINY = SIZES["tiny"].model_copy(update={"vocab_size": len(WORDS)})


@dataclass(frozen=True)
class Clip:
    """What the teacher says of a clip."""

    frames: str
    """The best token of each frame."""
    sure: tuple[float, ...]
    """Its probability."""
    answers: dict[str, tuple[str, float]]
    """What the decoder says after the words so far, and its probability."""


AGREED = Clip(
    frames="_ the the _ cat _ sat sat",
    sure=(0.9,) * 8,
    answers={"": ("the", 0.9), "the": ("cat", 0.9), "the cat": ("sat", 0.9), "the cat sat": (".", 0.9)},
)
DISAGREED = Clip(
    frames="cat cat _ cat hat hat",
    sure=(0.9,) * 6,
    answers={
        **{"": ("the", 0.9), "cat": ("sat", 0.9), "cat cat": ("mat", 0.9), "cat cat hat": (".", 0.9)},
        **{"the": ("cat", 0.9), "the cat": ("sat", 0.9), "the cat sat": ("hat", 0.9)},
    },
)
"""The decoder would say "sat" after "cat" and even "mat" after "cat cat", and "the sat mat" is no sentence; left to
itself it is cut before its end."""
DOUBTED = Clip(
    frames="the _ mat mat _",
    sure=(0.95, 0.95, 0.5, 0.95, 0.95),
    answers={"": ("the", 0.9), "the": ("hat", 0.6), "the mat": ("sat", 0.9), "the hat": (".", 0.9)},
)
"""One word, in a sentence of mean 0.79, and one frame, in a clip of mean 0.84. "the mat" is no end for the decoder."""
MUMBLED = Clip(
    frames="hat _ hat",
    sure=(0.99, 0.99, 0.45),
    answers={"": ("hat", 0.9), "hat": ("mat", 0.9), "hat hat": (".", 0.9), "hat mat": (".", 0.9)},
)
"""The arithmetic mean of the frames would pass, 0.81; the geometric one is 0.76."""
SILENT = Clip(frames="_ _ _ _", sure=(0.99,) * 4, answers={"": ("the", 0.95), "the": (".", 0.95)})
CLIPS = (AGREED, DISAGREED, DOUBTED, MUMBLED, SILENT)
LENGTHS = [len(clip.sure) for clip in CLIPS]
LONGEST = max(LENGTHS)
UNCERTAIN = ("hat", 0.3)
"""What the teacher says where there is only padding."""


def logits_for(word: str, probability: float) -> list[float]:
    """The others share the rest."""
    rest = (1 - probability) / (len(WORDS) - 1)
    return [math.log(probability if other == word else rest) for other in WORDS]


class Asked(DecoderCache):
    """Clip and prefix of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, list[str]]] = []

    def select(self, rows: Tensor, clips: Tensor | None = None) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]


class ScriptedTeacher(USR):
    """Encodes a clip as its number, and answers from the script."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = TINY

    def encode(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        mask: Tensor,
        modalities: Sequence[Modality] = tuple(Modality),
        *,
        mask_padding: bool = False,
    ) -> dict[Modality, Tensor]:
        assert list(modalities) == [Modality.AUDIOVISUAL]
        return {Modality.AUDIOVISUAL: torch.arange(len(mask))[:, None, None].expand(*mask.shape, 1)}

    def ctc_logits(self, features: Tensor, modality: Modality) -> Tensor:
        said = []
        for number in features[:, 0, 0].tolist():
            clip = CLIPS[number]
            frames = list(zip(clip.frames.split(), clip.sure, strict=True))
            said.append([logits_for(*frame) for frame in frames + [UNCERTAIN] * (LONGEST - len(frames))])
        return torch.tensor(said)

    def decode(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None = None) -> Tensor:
        asked = cache or Asked()
        assert isinstance(asked, Asked)
        asked.rows = asked.rows or [(number, []) for number in features[:, 0, 0].tolist()]
        said: list[list[list[float]]] = []
        for (number, prefix), new in zip(asked.rows, tokens.tolist(), strict=True):
            said.append([])
            for token in new:
                prefix.append(WORDS[token])
                assert prefix[0] == "."
                padding = "_" in prefix
                said[-1].append(logits_for(*(UNCERTAIN if padding else CLIPS[number].answers[" ".join(prefix[1:])])))
        return torch.tensor(said)

    def new_cache(self) -> Asked:
        return Asked()

    def logits(self, states: Tensor, modality: Modality) -> Tensor:
        assert modality is Modality.AUDIOVISUAL
        return states


BATCH = Batch(
    ids=("agreed", "disagreed", "doubted", "mumbled", "silent"),
    video=torch.zeros(len(CLIPS), LONGEST, 1, 1),
    audio=torch.zeros(len(CLIPS), LONGEST * 640),
    lengths=torch.tensor(LENGTHS),
)


def labels_of(autoregressive: bool) -> PseudoLabels:
    """At most four words, eos counted, where the teacher decodes."""
    return Teacher(ScriptedTeacher(), "batch", max_label_ratio=0.5).label(BATCH, autoregressive)


def objective(**settings: object) -> USR2:
    return USR2(USR(TINY), ObjectiveConfig.model_validate(settings), steps=100, seed=0)


def ids(words: str) -> list[int]:
    return [WORDS.index(word) for word in words.split()]


def words(tokens: Tensor, lengths: Tensor) -> list[str]:
    """The words of each clip, without padding."""
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    return [" ".join(WORDS[token] for token in row[:length]) for row, length in rows]


def taught(loss: Tensor, logits: Tensor) -> list[list[dict[str, float]]]:
    """The weight of each target at each position of each clip, read off the gradient of a loss at logits of 0.

    Of cross-entropies divided by the number of clips B it is, for word k, (Σ weights / V − weight_k) / B.
    """
    (gradient,) = torch.autograd.grad(loss, logits)
    clips = []
    for clip in (gradient * len(logits)).tolist():
        positions = [{word: round(max(row) - x, 4) for word, x in zip(WORDS, row, strict=True)} for row in clip]
        clips.append([{word: weight for word, weight in row.items() if weight} for row in positions])
    return clips


def test_ctc_labels_are_the_collapsed_frames() -> None:
    for labels in (labels_of(False), labels_of(True)):
        said = words(labels.ctc_tokens, labels.ctc_lengths)
        assert said == ["the cat sat", "cat cat hat", "the mat", "hat hat", ""]
        assert labels.ctc_confidence.tolist() == pytest.approx([0.9, 0.9, 0.8355, 0.7612, 0.99], abs=1e-4)


def test_ctc_driven_labels_answer_to_the_ctc_labels_position_by_position() -> None:
    labels = labels_of(False)
    heard = words(labels.prefix, labels.ctc_lengths + 1)
    assert heard == [". the cat sat", ". cat cat hat", ". the mat", ". hat hat", "."]
    said = words(labels.attention_tokens, labels.attention_lengths)
    assert said == ["the cat sat .", "the sat mat .", "the hat sat", "hat mat .", "the"]
    assert labels.attention_confidence[2, :3].tolist() == pytest.approx([0.9, 0.6, 0.9])
    mean = (0.9 * 0.6 * 0.9) ** (1 / 3)
    assert labels.attention_sequence_confidence.tolist() == pytest.approx([0.9, 0.9, mean, 0.9, 0.95])


def test_autoregressive_labels_answer_to_themselves() -> None:
    labels = labels_of(True)
    said = words(labels.attention_tokens, labels.attention_lengths)
    assert said == ["the cat sat .", "the cat sat hat", "the hat .", "hat mat .", "the ."]
    heard = words(labels.prefix, labels.attention_lengths)
    assert heard == [". the cat sat", ". the cat sat", ". the hat", ". hat mat", ". the"]
    mean = (0.9 * 0.6 * 0.9) ** (1 / 3)
    assert labels.attention_sequence_confidence.tolist() == pytest.approx([0.9, 0.9, mean, 0.9, 0.95])


def test_a_ctc_driven_step_teaches_the_decoder_both_labels_of_each_position() -> None:
    """With w = 0.25 for ỹ_Att; a word in doubt leaves ỹ_CTC, a mumbled clip leaves ỹ_Att."""
    method, labels = objective(attention_target_weight=0.25, label_smoothing=0.0), labels_of(False)
    logits = torch.zeros(5, 4, len(WORDS), requires_grad=True)
    loss = method.attention_part(logits, labels, method.trusted(labels, BATCH.mask, Modality.VIDEO))
    assert taught(loss, logits) == [
        [{"the": 1.0}, {"cat": 1.0}, {"sat": 1.0}, {".": 1.0}],
        [{"the": 0.25, "cat": 0.75}, {"sat": 0.25, "cat": 0.75}, {"mat": 0.25, "hat": 0.75}, {".": 1.0}],
        [{"the": 1.0}, {"mat": 0.75}, {"sat": 0.25, ".": 0.75}, {}],
        [{"hat": 0.25}, {"mat": 0.25}, {".": 0.25}, {}],
        [{}, {}, {}, {}],
    ]


def test_an_autoregressive_step_teaches_the_decoder_its_own_labels() -> None:
    method, labels = objective(label_smoothing=0.0), labels_of(True)
    logits = torch.zeros(5, 4, len(WORDS), requires_grad=True)
    loss = method.attention_part(logits, labels, method.trusted(labels, BATCH.mask, Modality.VIDEO))
    assert taught(loss, logits) == [
        [{"the": 1.0}, {"cat": 1.0}, {"sat": 1.0}, {".": 1.0}],
        [{"the": 1.0}, {"cat": 1.0}, {"sat": 1.0}, {"hat": 1.0}],
        [{"the": 1.0}, {}, {".": 1.0}, {}],
        [{"hat": 1.0}, {"mat": 1.0}, {".": 1.0}, {}],
        [{}, {}, {}, {}],
    ]


@pytest.mark.parametrize(
    ("autoregressive", "weight", "disagreed", "mumbled"),
    [
        (False, 0.0, {"cat cat hat": 1.0}, {}),
        (False, 0.25, {"cat cat hat": 0.75, "the sat mat": 0.25}, {"hat mat": 0.25}),
        (True, 0.25, {"cat cat hat": 0.75, "the cat sat hat": 0.25}, {"hat mat": 0.25}),
        (True, 1.0, {"the cat sat hat": 1.0}, {"hat mat": 1.0}),
    ],
)
def test_the_ctc_head_learns_sequences(
    autoregressive: bool, weight: float, disagreed: dict[str, float], mumbled: dict[str, float]
) -> None:
    """ỹ_CTC of clips that are sure, ỹ_Att without its eos; a word in doubt makes its sentence doubtful."""
    targets = [{"the cat sat": 1.0}, disagreed, {"the mat": 1 - weight}, mumbled, {}]
    name = "ctc_attention_weight" if autoregressive else "ctc_driven_ctc_attention_weight"
    method, labels = objective(**{name: weight}), labels_of(autoregressive)
    torch.manual_seed(0)
    logits = torch.randn(5, LONGEST, len(WORDS))
    loss = method.ctc_part(logits, BATCH.lengths, labels, method.trusted(labels, BATCH.mask, Modality.VIDEO))
    expected = 0.0
    for rows, length, wanted in zip(logits.tolist(), LENGTHS, targets, strict=True):
        expected += sum(share * loop.ctc_loss(rows[:length], ids(target)) for target, share in wanted.items())
    assert loss.item() == pytest.approx(expected / 5, rel=1e-5)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_usr_teaches_the_ctc_head_each_frame_that_is_sure(autoregressive: bool) -> None:
    method, labels = objective(kind="usr"), labels_of(autoregressive)
    logits = torch.zeros(5, LONGEST, len(WORDS), requires_grad=True)
    loss = method.ctc_part(logits, BATCH.lengths, labels, method.trusted(labels, BATCH.mask, Modality.VIDEO))
    assert [" ".join(next(iter(frame), "-") for frame in clip) for clip in taught(loss, logits)] == [
        "_ the the _ cat _ sat sat",
        "cat cat _ cat hat hat - -",
        "the _ - mat _ - - -",
        "hat _ - - - - - -",
        "- - - - - - - -",
    ]


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"ctc_threshold": 0.7}, {"ctc": [1, 1, 1, 1, 0], "decoder_ctc": [4, 4, 3, 3, 0]}),
        ({"decoder_ctc_threshold": 0.7}, {"decoder_ctc": [4, 4, 3, 3, 0]}),
        ({"ctc_threshold": {"v": 0.92}}, {"ctc": [0] * 5, "decoder_ctc": [0] * 5, "frame": [0, 0, 4, 2, 0]}),
        ({"attention_threshold": 0.5}, {"attention_token": [4, 4, 3, 3, 0], "attention_sequence": [1, 1, 1, 1, 0]}),
        ({"ctc_attention_threshold": 0.7}, {"attention_sequence": [1, 1, 1, 1, 0]}),
        ({"attention_filter": "sequence"}, {"attention_token": [4, 4, 0, 3, 0]}),
        ({"ctc_threshold": {"a": 0.7}, "attention_threshold": {"a": 0.5}}, {}),
    ],
)
def test_each_target_has_a_threshold_of_its_own(settings: dict[str, object], changed: dict[str, list[int]]) -> None:
    """How much of each clip is trusted, on lips, in a CTC-driven step."""
    usual = {"ctc": [1, 1, 1, 0, 0], "frame": [8, 6, 4, 2, 0], "decoder_ctc": [4, 4, 3, 0, 0]}
    usual |= {"attention_sequence": [1, 1, 0, 1, 0], "attention_token": [4, 4, 2, 3, 0], "position": [4, 4, 3, 3, 0]}
    trusted = objective(**settings).trusted(labels_of(False), BATCH.mask, Modality.VIDEO)._asdict()
    assert {name: weights.view(5, -1).sum(1).tolist() for name, weights in trusted.items()} == usual | changed
