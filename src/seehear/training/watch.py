"""What the teacher says of a few unlabelled clips as a run goes on, and how wrong it is where the corpus knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from seehear.data.batch import evaluation_batches
from seehear.data.corpus import Corpus, Utterance
from seehear.metrics import ErrorCounts, count_words, total
from seehear.objectives.teacher import PseudoLabels, Teacher
from seehear.tokenizer import Tokenizer

KINDS = ("ctc", "ctc-driven", "autoregressive")
"""Labels of the teacher: from its CTC head; from its decoder in one pass over those; token by token."""


@dataclass(frozen=True)
class WatchedLabels:
    """The labels of one clip, as text."""

    id: str
    truth: str | None
    """What is said in it; None where the corpus does not know."""
    labels: Mapping[str, str]
    """By kind, one of `KINDS`."""


@dataclass(frozen=True)
class LabelWatch:
    """Labels the same clips each time it is asked. Their transcripts are compared with the labels and never learnt."""

    corpus: Corpus
    utterances: Sequence[Utterance]
    tokenizer: Tokenizer
    max_frames: int
    """Frames of a batch, padding counted."""

    def __call__(self, teacher: Teacher) -> list[WatchedLabels]:
        """The labels that `teacher` gives now."""
        return list(self._label(teacher))

    def _label(self, teacher: Teacher) -> Iterator[WatchedLabels]:
        truths = self.corpus.truths()
        device = next(teacher.parameters()).device
        for batch in evaluation_batches(self.corpus, self.utterances, self.max_frames):
            driven = teacher.label(batch.to(device), autoregressive=False)
            decoded = teacher.label(batch.to(device), autoregressive=True)
            columns = (
                self._texts(driven.ctc_tokens, driven.ctc_lengths),
                self._decoder_texts(driven),
                self._decoder_texts(decoded),
            )
            for id, *texts in zip(batch.ids, *columns, strict=True):
                truth = self.tokenizer.normaliser(truths[id]) if id in truths else None
                yield WatchedLabels(id, truth, dict(zip(KINDS, texts, strict=True)))

    def _decoder_texts(self, labels: PseudoLabels) -> list[str]:
        return self._texts(labels.attention_tokens, labels.attention_lengths)

    def _texts(self, tokens: Tensor, lengths: Tensor) -> list[str]:
        """The text of each row of `tokens` (B, U)."""
        rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
        return [self.tokenizer.normaliser(self.tokenizer.decode(row[:length])) for row, length in rows]


def label_error_rates(watched: Sequence[WatchedLabels]) -> dict[str, float]:
    """WER of each kind of label, over the clips of which the truth is known; empty if there are none."""
    known = [(clip.truth, clip.labels) for clip in watched if clip.truth is not None]
    counts: dict[str, list[ErrorCounts]] = {
        kind: [count_words(truth, labels[kind]) for truth, labels in known] for kind in KINDS
    }
    rates = {kind: total(of_kind).rate for kind, of_kind in counts.items()}
    return {kind: rate for kind, rate in rates.items() if rate is not None}
