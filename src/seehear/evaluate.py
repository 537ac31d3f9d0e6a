"""Error rates of a model on a corpus: every utterance once, in every modality, with an interval."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from seehear.data.batch import Batch, evaluation_batches
from seehear.data.corpus import Corpus, Utterance
from seehear.data.noise import mix
from seehear.decoding.decode import decode_batch
from seehear.decoding.options import DecodingOptions
from seehear.errors import CorpusError
from seehear.metrics import ErrorCounts, Interval, bootstrap_interval, count_characters, count_words, total
from seehear.modality import SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer


@dataclass(frozen=True)
class Condition:
    """What is done to the test clips; by default nothing."""

    noise: NDArray[np.float32] | None = None
    """Mono 16 kHz noise, mixed in at `snr_db`."""
    snr_db: float = 0.0
    blank_video: bool = False
    """Show a uniform grey instead of the mouth: what is recognised then is not read from lips."""


@dataclass(frozen=True)
class Record:
    """One utterance in one modality."""

    id: str
    modality: Modality
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Result:
    """A modality's errors over all utterances."""

    modality: Modality
    records: tuple[Record, ...]

    @property
    def words(self) -> ErrorCounts:
        """Word errors."""
        return total([record.words for record in self.records])

    @property
    def characters(self) -> ErrorCounts:
        """Character errors."""
        return total([record.characters for record in self.records])

    @property
    def wer(self) -> float | None:
        """Word error rate; None if the references hold no words."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Character error rate."""
        return self.characters.rate

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the word error rate."""
        return bootstrap_interval([record.words for record in self.records])


@dataclass(frozen=True)
class Report:
    """What an evaluation measured, and how."""

    results: tuple[Result, ...]
    options: DecodingOptions
    normaliser: str
    seconds: float

    def __getitem__(self, modality: Modality) -> Result:
        """The result of `modality`."""
        return next(result for result in self.results if result.modality is modality)


@torch.no_grad()
def evaluate(
    model: USR,
    tokenizer: Tokenizer,
    corpus: Corpus,
    utterances: Sequence[Utterance],
    modalities: Sequence[Modality] = tuple(Modality),
    options: DecodingOptions = DecodingOptions(),
    *,
    max_frames: int = 2400,
    condition: Condition = Condition(),
) -> Report:
    """Decode `utterances` in batches of up to `max_frames` frames and count errors; the model is left in eval mode.

    A batch gives the same result as its clips one by one. Raises `CorpusError` for utterances without a transcript, for
    duplicates, and for an empty list: nothing is left out in silence.
    """
    _check(utterances)
    model.eval()
    device = next(model.parameters()).device
    started = time.monotonic()
    records: dict[tuple[Modality, str], Record] = {}
    for clean in evaluation_batches(corpus, utterances, max_frames):
        batch = changed(clean, condition).to(device)
        encoded = model.encode(batch.video, batch.audio, batch.mask, modalities, mask_padding=True)
        for modality, features in encoded.items():
            for id, text, ids in zip(
                batch.ids, batch.texts, decode_batch(model, features, batch.mask, modality, options), strict=True
            ):
                reference = tokenizer.normaliser(text or "")
                hypothesis = tokenizer.normaliser(tokenizer.decode(ids))
                records[modality, id] = Record(
                    id,
                    modality,
                    reference,
                    hypothesis,
                    count_words(reference, hypothesis),
                    count_characters(reference, hypothesis),
                )
    results = tuple(Result(m, tuple(records[m, utterance.id] for utterance in utterances)) for m in modalities)
    return Report(results, options, tokenizer.normaliser.name, time.monotonic() - started)


def changed(batch: Batch, condition: Condition) -> Batch:
    """The batch under the condition; the noise of a clip is a function of its id."""
    if condition.blank_video:
        batch = replace(batch, video=torch.zeros_like(batch.video))
    if condition.noise is not None:
        audio = batch.audio.clone()
        for row, (id, frames) in enumerate(zip(batch.ids, batch.lengths.tolist(), strict=True)):
            samples = frames * SAMPLES_PER_FRAME
            rng = np.random.default_rng(zlib.crc32(id.encode()))
            noisy = mix(audio[row, :samples].numpy(), condition.noise, condition.snr_db, rng)
            audio[row, :samples] = torch.from_numpy(noisy)
        batch = replace(batch, audio=audio)
    return batch


def _check(utterances: Sequence[Utterance]) -> None:
    """Nothing to score, nothing to score against, or something to score twice: refused."""
    if not utterances:
        raise CorpusError("there are no utterances to evaluate")
    ids = [utterance.id for utterance in utterances]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise CorpusError(f"the utterance '{twice}' would be scored twice")
    silent = [utterance.id for utterance in utterances if utterance.text is None]
    if silent:
        raise CorpusError(f"{len(silent)} utterances have no transcript to compare with, first '{silent[0]}'")
