"""Error rates of a model on a corpus: every utterance once, in every modality, with an interval."""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seehear.data.batch import Batch, evaluation_batches
from seehear.data.corpus import Corpus, Utterance, count_streams
from seehear.data.noise import mix
from seehear.decoding.clips import ClipDecoder, DecodedClip
from seehear.decoding.decode import search_on
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions, DType
from seehear.decoding.shortage import AS_ASKED, ran_out
from seehear.errors import CorpusError
from seehear.files import write_atomically
from seehear.metrics import (
    Comparison,
    ErrorCounts,
    Interval,
    bootstrap_interval,
    count_characters,
    count_words,
    paired_bootstrap,
    total,
)
from seehear.modality import SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer


class Noise(NamedTuple):
    """A noise, and how loud it is."""

    name: str
    samples: NDArray[np.float32]
    """(N,) mono, 16 kHz."""
    snr_db: float


@dataclass(frozen=True)
class Condition:
    """What is done to the test clips; by default nothing."""

    noise: Noise | None = None
    blank_video: bool = False
    """Show an even grey, the value of masked frames, instead of the mouth: what is recognised then is not lip-read."""

    def __str__(self) -> str:
        noise = f"{self.noise.name} at {self.noise.snr_db:g} dB" if self.noise else ""
        return ", ".join(filter(None, (noise, "blank video" if self.blank_video else ""))) or "clean"

    def apply(self, batch: Batch) -> Batch:
        """The batch under this condition; the noise that a clip gets is a function of its id alone.

        What is done to one stream leaves clips that lack it as they are.
        """
        if self.blank_video and batch.video is not None:
            batch = replace(batch, video=torch.zeros_like(batch.video))
        if self.noise and batch.audio is not None:
            audio = batch.audio.clone()
            for row, (id, frames) in enumerate(zip(batch.ids, batch.lengths.tolist(), strict=True)):
                speech = audio[row, : frames * SAMPLES_PER_FRAME]
                rng = np.random.default_rng(zlib.crc32(id.encode()))
                speech[:] = torch.from_numpy(mix(speech.numpy(), self.noise.samples, self.noise.snr_db, rng))
            batch = replace(batch, audio=audio)
        return batch


CLEAN = Condition()


class Record(NamedTuple):
    """One utterance in one modality; both texts in the normal form that was scored."""

    id: str
    modality: Modality
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Result:
    """A modality's errors over all utterances that can be recognised in it."""

    modality: Modality
    records: tuple[Record, ...]
    lacking: int = 0
    """Utterances that were not measured, because they lack sound or picture."""

    @cached_property
    def words(self) -> ErrorCounts:
        """Word errors."""
        return total([record.words for record in self.records])

    @cached_property
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

    @cached_property
    def wer_interval(self) -> Interval | None:
        """95 % interval of the word error rate, over utterances."""
        return bootstrap_interval([record.words for record in self.records])

    @cached_property
    def cer_interval(self) -> Interval | None:
        """95 % interval of the character error rate, over utterances."""
        return bootstrap_interval([record.characters for record in self.records])


@dataclass(frozen=True)
class Report:
    """What an evaluation measured, and how."""

    results: tuple[Result, ...]
    options: DecodingOptions
    condition: Condition
    normaliser: str
    seconds: float
    reduced: Mapping[str, str] = field(default_factory=dict)
    """How clips were decoded for which memory did not suffice, as "with beam 10" or "in halves", by id."""

    def __getitem__(self, modality: Modality) -> Result:
        """The result of `modality`."""
        return next(result for result in self.results if result.modality is modality)

    @property
    def records(self) -> Iterator[Record]:
        """Every utterance in every modality."""
        return (record for result in self.results for record in result.records)

    def summary(self) -> dict[str, Any]:
        """The figures and what they depend on, ready for JSON."""
        return {
            "results": {
                result.modality.value: {
                    "utterances": len(result.records),
                    "utterances_without_stream": result.lacking,
                    "wer": result.wer,
                    "wer_interval": result.wer_interval,
                    "cer": result.cer,
                    "cer_interval": result.cer_interval,
                    "words": asdict(result.words),
                    "characters": asdict(result.characters),
                }
                for result in self.results
            },
            "decoding": asdict(self.options),
            "condition": str(self.condition),
            "normaliser": self.normaliser,
            "seconds": round(self.seconds, 3),
            "reduced": dict(self.reduced),
        }


@torch.no_grad()
def evaluate(
    model: USR,
    tokenizer: Tokenizer,
    corpus: Corpus,
    utterances: Sequence[Utterance],
    modalities: Sequence[Modality],
    options: DecodingOptions,
    *,
    max_frames: int = 2400,
    condition: Condition = CLEAN,
    language_model: LanguageModel | None = None,
    dtype: DType = "float32",
    search_device: str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Report:
    """Decode `utterances` in batches of up to `max_frames` frames and count errors; the model is left in eval mode.

    A batch gives the same result as its clips one by one. An utterance is decoded in those of `modalities` for which it
    has the streams; a `Result` says how many lack one. Clips for which memory does not suffice are decoded in halves or
    with a smaller beam, and the report names them. The search runs on `search_device`, by default as `search_on` says.
    `on_batch` is told the number of clips just done. Nothing is left out in silence.

    Raises `CorpusError` for utterances without a transcript, for duplicates, for an empty list, if no utterance has the
    streams of any of `modalities`, and for a clip that memory does not suffice for; `ConfigError` for a device or a
    `dtype` that there is not.
    """
    require_scorable(utterances)
    possible = decodable(utterances, modalities)
    model.eval()
    split = search_on(model, search_device)
    decode = ClipDecoder(split, tokenizer, options, language_model, dtype)
    started = time.monotonic()
    records: dict[tuple[Modality, str], Record] = {}
    reduced: dict[str, str] = {}
    if on_batch and len(possible) < len(utterances):
        on_batch(len(utterances) - len(possible))
    for clean in evaluation_batches(corpus, possible, max_frames):
        batch = condition.apply(clean)
        wanted = [modality for modality in modalities if modality in batch.modalities]
        clips = zip(batch.ids, batch.texts, _decoded(decode, batch, wanted), strict=True)
        for id, text, (decoded, reduction) in clips:
            assert text is not None
            for modality, tokens in decoded.items():
                records[modality, id] = _record(id, modality, text, tokens, tokenizer)
            if reduction != AS_ASKED:
                reduced[id] = str(reduction)
        if on_batch:
            on_batch(len(batch.ids))
    results = tuple(_result(modality, utterances, records) for modality in modalities)
    return Report(results, options, condition, tokenizer.normaliser.name, time.monotonic() - started, reduced)


def _decoded(decode: ClipDecoder, batch: Batch, modalities: Sequence[Modality]) -> list[DecodedClip]:
    """What is said in a batch. Raises `CorpusError` if memory does not suffice."""
    try:
        return decode(batch, modalities)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
    frames, id = max(zip(batch.lengths.tolist(), batch.ids, strict=True))
    raise CorpusError(
        f"the memory does not suffice to decode '{id}' ({frames} frames), even in parts and with a small beam: "
        "take another device or a smaller model"
    )


def compare(first: Sequence[Record], second: Sequence[Record]) -> Comparison | None:
    """Word error rates of two systems on the same utterances, each in one modality; None if these hold no words.

    Raises `CorpusError` that names an utterance which only one of them has, or whose references differ.
    """
    references, others = ({record.id: record for record in records} for records in (first, second))
    if alone := sorted(references.keys() ^ others.keys()):
        raise CorpusError(f"only the same utterances can be compared: {len(alone)} are in one alone, as '{alone[0]}'")
    differing = [id for id, record in references.items() if record.reference != others[id].reference]
    if differing:
        raise CorpusError(f"the references of {len(differing)} utterances differ, as of '{differing[0]}'")
    return paired_bootstrap([record.words for record in first], [others[record.id].words for record in first])


def write_report(report: Report, path: Path, about: Mapping[str, str]) -> Path:
    """Write the records as JSON lines to `path`, and a summary, with what it is `about`, beside it; return its path."""
    summary = path.with_suffix(".summary.json")
    write_atomically(
        path, "".join(json.dumps(_to_json(record), ensure_ascii=False) + "\n" for record in report.records)
    )
    write_atomically(summary, json.dumps({**about, **report.summary()}, ensure_ascii=False, indent=2) + "\n")
    return summary


def read_records(path: Path) -> dict[Modality, list[Record]]:
    """What `write_report` wrote. Raises `CorpusError` that names the line of the first fault, duplicates included."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as results of an evaluation: {error}") from error
    records: dict[tuple[Modality, str], Record] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number}: not a result of an evaluation ({error!r})") from error
        if records.setdefault((record.modality, record.id), record) is not record:
            raise CorpusError(f"{path}, line {number}: '{record.id}' stands twice for '{record.modality.value}'")
    if not records:
        raise CorpusError(f"{path} holds no results")
    modalities = dict.fromkeys(modality for modality, _ in records)
    return {m: [record for (modality, _), record in records.items() if modality is m] for m in modalities}


def require_scorable(utterances: Sequence[Utterance]) -> None:
    """Raise `CorpusError` if there is nothing to score, nothing to score against, or something to score twice."""
    if not utterances:
        raise CorpusError("there are no utterances to evaluate")
    ids: set[str] = set()
    for utterance in utterances:
        if utterance.id in ids:
            raise CorpusError(f"the utterance '{utterance.id}' is listed twice and would be scored twice")
        ids.add(utterance.id)
    silent = [utterance.id for utterance in utterances if utterance.text is None]
    if silent:
        raise CorpusError(
            f"{len(silent)} of {len(utterances)} utterances have no transcript to compare with, as '{silent[0]}'"
        )


def decodable(utterances: Sequence[Utterance], modalities: Sequence[Modality]) -> list[Utterance]:
    """Those that can be recognised in one of `modalities`. Raises `CorpusError` if there are none."""
    found = [utterance for utterance in utterances if set(utterance.streams.readable) & set(modalities)]
    if not found:
        asked = ", ".join(modality.value for modality in modalities)
        raise CorpusError(
            f"none of the {len(utterances)} utterances can be evaluated in {asked} ({count_streams(utterances)})"
        )
    return found


def _result(
    modality: Modality, utterances: Sequence[Utterance], records: Mapping[tuple[Modality, str], Record]
) -> Result:
    """The records of one modality in the order of `utterances`, which may lack it."""
    found = [records[modality, utterance.id] for utterance in utterances if (modality, utterance.id) in records]
    return Result(modality, tuple(found), lacking=len(utterances) - len(found))


def _record(id: str, modality: Modality, text: str, tokens: Sequence[int], tokenizer: Tokenizer) -> Record:
    """Score one utterance."""
    reference, hypothesis = tokenizer.normaliser(text), tokenizer.normaliser(tokenizer.decode(tokens))
    words, characters = count_words(reference, hypothesis), count_characters(reference, hypothesis)
    return Record(id, modality, reference, hypothesis, words, characters)


def _to_json(record: Record) -> dict[str, Any]:
    return {**record._asdict(), "words": asdict(record.words), "characters": asdict(record.characters)}


def _from_json(values: dict[str, Any]) -> Record:
    words, characters = (ErrorCounts(**values[key]) for key in ("words", "characters"))
    texts = (values["reference"], values["hypothesis"])
    if not all(isinstance(text, str) for text in (values["id"], *texts)):
        raise TypeError("id, reference and hypothesis must be texts")
    return Record(values["id"], Modality(values["modality"]), *texts, words, characters)
