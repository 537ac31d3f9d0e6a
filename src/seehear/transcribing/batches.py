"""Pieces of recordings to what is said in them, many at once.

inputs of any recordings ─► batches by modality ─► USR ─► decoding ─► words, their times, how sure ─► Heard
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seehear.data.batch import fill
from seehear.data.transforms import central_crop, normalise_video
from seehear.decoding.alignment import align_words
from seehear.decoding.ctc import BLANK, ctc_greedy, ctc_negative_log_probs
from seehear.decoding.decode import decode_batch, precision, without_specials
from seehear.decoding.join import PlacedWord, in_order, join, repeats
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingMethod, DecodingOptions, DType
from seehear.decoding.shortage import AS_ASKED, OVERLAP_FRAMES, Reduction, halves, ran_out, within_memory
from seehear.decoding.token_scores import decoder_log_probs
from seehear.decoding.word_times import time_words
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR, SpeechEncoder
from seehear.tokenizer import Tokenizer
from seehear.transcribing import memory

BATCH_FRAMES = {"cpu": 600, "cuda": 9600}
"""Frames of a batch, padding counted: on a CPU one window of 24 s, so that no batch needs much more than another. The
less of the encoder's device and the search's."""
PAUSE = {Modality.AUDIO: 40, Modality.VIDEO: 50, Modality.AUDIOVISUAL: 40}
"""Frames without a token from which on CTC is held to have found a pause: in one GRID command there are up to 28, with
lips alone 49; between two of them, with pauses of a second, 34 to 128 (RESULTS.md)."""
BLANK_IS_SURE = math.log(0.9)
"""Log-probability of the blank below which a frame says something."""


class Input(NamedTuple):
    """What a model is given of a window: T frames."""

    modality: Modality
    frames: int
    audio: NDArray[np.float32] | None
    """(640·T,) sound."""
    video: NDArray[np.uint8] | None
    """(T, 96, 96) mouth."""


class Heard(NamedTuple):
    """What a model makes of it."""

    frames: int
    """T of the window."""
    tokens: tuple[int, ...]
    text: str
    words: tuple[PlacedWord, ...]
    """Their places are in frames of the window."""
    avg_logprob: float
    """Mean log-probability of the tokens and the end of sentence under the decoder."""
    evidence: float
    """Log-odds of the text against silence under CTC, in nats; 0 if there is no text."""
    looped: bool
    """The decoder repeated itself, so that the text is that of CTC."""
    pauses: tuple[int, ...] = ()
    """Frames amid long stretches in which CTC finds nothing said, between others in which it does."""
    doubtful: str = ""
    """A text that is not believed."""
    reduction: Reduction = AS_ASKED
    """What was done where memory did not suffice."""

    @property
    def no_speech_prob(self) -> float:
        """How likely CTC holds it that nothing is said, and not this text, per token of it."""
        return float(1 / (1 + np.exp(np.clip(self.evidence / max(1, len(self.tokens)), -500, 500))))


def part(given: Input, start: int, end: int) -> Input:
    """The frames from `start` until `end` of a window."""
    audio = None if given.audio is None else given.audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
    return Input(given.modality, end - start, audio, None if given.video is None else given.video[start:end])


@dataclass
class Transcriber:
    """A model and how it is to be used."""

    model: USR
    tokenizer: Tokenizer
    options: DecodingOptions
    language_model: LanguageModel | None = None
    dtype: DType = "float32"
    word_times: bool = False
    """Find out when each word is said from the decoder; else words are placed by CTC, which is rough."""
    fitting_frames: int | None = None
    """Frames of the largest batch that is tried from now on: memory did not suffice for one of a frame more."""

    def __call__(self, inputs: Sequence[Input]) -> list[Heard]:
        """What is said in each of `inputs`; it does not depend on the others, but for the last digits."""
        heard: dict[int, Heard] = {}
        for modality in Modality:
            chosen = [number for number, given in enumerate(inputs) if given.modality is modality]
            chosen.sort(key=lambda number: inputs[number].frames)
            for group in fill([inputs[number].frames for number in chosen], self._batch_frames):
                numbers = [chosen[position] for position in group]
                found = within_memory(_Windows(self, modality), [inputs[n] for n in numbers], self.options)
                heard |= {n: text._replace(reduction=how) for n, (text, how) in zip(numbers, found, strict=True)}
        return [heard[number] for number in range(len(inputs))]

    def _joined(self, left: Heard, right: Heard, offset: int, overlap: int) -> Heard:
        """What two parts of a window say, of which the second begins at frame `offset`.

        The text is worth what the words that are left of each part are: a part's evidence is shared by its tokens.
        """
        moved = [word.moved(offset) for word in right.words]
        kept, dropped = join(left.words, moved, (offset, offset + overlap))
        words = [left.words[:kept], moved[dropped:]]
        counts = [sum(len(word.tokens) for word in part) for part in words]
        evidence = sum(
            half.evidence * n / max(1, len(half.tokens)) for half, n in zip((left, right), counts, strict=True)
        )
        score = float(np.average([left.avg_logprob, right.avg_logprob], weights=np.array(counts) + 1))
        tokens = tuple(token for part in words for word in part for token in word.tokens)
        middle = offset + overlap // 2
        later = (pause + offset for pause in right.pauses)
        return Heard(
            offset + right.frames,
            tokens,
            self.tokenizer.decode(tokens),
            tuple(in_order([*words[0], *words[1]])),
            score,
            evidence,
            left.looped or right.looped,
            (*(pause for pause in left.pauses if pause < middle), *(pause for pause in later if pause >= middle)),
        )

    @torch.no_grad()
    def _transcribe(self, inputs: list[Input], modality: Modality) -> list[Heard]:
        heard_by = tuple(Modality) if self.word_times and modality is Modality.AUDIOVISUAL else (modality,)
        with self.precision():
            streams, mask = self.streams(inputs, heard_by)
            features, real = self._encode(streams, mask, modality)
            rows = decode_batch(self.model, features, real, modality, self.options, self.language_model)
            logits = self.model.ctc_logits(features, modality)
            by_ctc = without_specials(ctc_greedy(logits, real).to_lists(), self.model.eos)
            looped = [repeats(row) and not repeats(other) for row, other in zip(rows, by_ctc, strict=True)]
            rows = [other if loop else row for row, other, loop in zip(rows, by_ctc, looped, strict=True)]
            scores = self.mean_log_probs(rows, features, real, modality)
            log_probs = logits.float().log_softmax(-1)
            evidence = _evidence(log_probs, real, rows)
        words = self._place_words(rows, streams, mask, log_probs, real, modality)
        texts = map(self.tokenizer.decode, rows)
        pauses = _pauses(log_probs[..., BLANK].masked_fill(~real, 0.0), PAUSE[modality])
        frames = [given.frames for given in inputs]
        found = zip(frames, map(tuple, rows), texts, words, scores, evidence, looped, pauses, strict=True)
        return [Heard(*facts) for facts in found]

    @torch.no_grad()
    def greedily(self, inputs: Sequence[Input]) -> list[list[int]]:
        """The tokens of each of `inputs`, of one modality, by greedy attention: quickly."""
        modality = inputs[0].modality
        with self.precision():
            features, real = self._encode(*self.streams(inputs, (modality,)), modality)
            options = replace(self.options, method=DecodingMethod.ATTENTION)
            return decode_batch(self.model, features, real, modality, options)

    @torch.no_grad()
    def score(self, rows: Sequence[Sequence[int]], inputs: Sequence[Input]) -> list[float]:
        """The mean log-probability of each row of tokens in one of `inputs`, of one modality, under the decoder."""
        modality = inputs[0].modality
        with self.precision():
            features, real = self._encode(*self.streams(inputs, (modality,)), modality)
            return self.mean_log_probs(rows, features, real, modality)

    def _encode(self, streams: Mapping[Modality, Tensor], mask: Tensor, modality: Modality) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) of one of `streams` and their mask (B, T), both where the search runs."""
        return self.model.to_search(self.model.contextualise({modality: streams[modality]}, mask)[modality], mask)

    def precision(self) -> torch.autocast:
        """The context in which the model computes."""
        return precision(self._device, self.dtype)

    @property
    def _device(self) -> torch.device:
        """That of the encoder."""
        return next(self.model.parameters()).device

    @property
    def _batch_frames(self) -> int:
        most = min(BATCH_FRAMES.get(device.type, 600) for device in (self._device, self.model.search_device))
        return min(most, self.fitting_frames or most)

    def streams(self, inputs: Sequence[Input], modalities: Sequence[Modality]) -> tuple[dict[Modality, Tensor], Tensor]:
        """What enters the encoder, (B, T, D) by modality, and its mask (B, T)."""
        return streams(self.model, inputs, modalities)

    def mean_log_probs(
        self, rows: Sequence[Sequence[int]], features: Tensor, mask: Tensor, modality: Modality
    ) -> list[float]:
        """Mean log-probability of each row of tokens and its end of sentence under the decoder, whatever chose them."""
        log_probs = decoder_log_probs(self.model, rows, features, mask, modality)
        counts = torch.tensor([len(row) + 1 for row in rows], device=log_probs.device)
        means: list[float] = (log_probs.sum(1) / counts).tolist()
        return means

    def _place_words(
        self,
        rows: Sequence[Sequence[int]],
        streams: Mapping[Modality, Tensor],
        mask: Tensor,
        log_probs: Tensor,
        real: Tensor,
        modality: Modality,
    ) -> list[tuple[PlacedWord, ...]]:
        """The words of each row of tokens, and where in the window they are said.

        `streams` with `mask` are the encoder's input, `log_probs` with `real` those of CTC, where the search runs.
        """
        words = [[word for word in self.tokenizer.words(row) if self.tokenizer.decode(word)] for row in rows]
        if self.word_times:
            with self.precision():
                times = time_words(self.model, streams, mask, words, modality)
            spans = [[(time.start, time.end, time.probability) for time in of_clip] for of_clip in times]
        else:
            spans = align_words(log_probs, real, words)
        return [
            tuple(PlacedWord(word, self.tokenizer.decode(word), *span) for word, span in zip(said, placed, strict=True))
            for said, placed in zip(words, spans, strict=True)
        ]


def streams(
    model: SpeechEncoder, inputs: Sequence[Input], modalities: Sequence[Modality]
) -> tuple[dict[Modality, Tensor], Tensor]:
    """What enters the encoder of a model, (B, T, D) by modality, and its mask (B, T)."""
    longest = max(given.frames for given in inputs)
    mask = torch.arange(longest) < torch.tensor([given.frames for given in inputs])[:, None]
    video = audio = None
    if any(modality.uses_video for modality in modalities):
        video = torch.zeros(len(inputs), longest, INPUT_SIZE, INPUT_SIZE)
        for row, given in zip(video, inputs, strict=True):
            assert given.video is not None
            row[: given.frames] = torch.from_numpy(normalise_video(central_crop(given.video)))
    if any(modality.uses_audio for modality in modalities):
        audio = torch.zeros(len(inputs), longest * SAMPLES_PER_FRAME)
        for row, given in zip(audio, inputs, strict=True):
            assert given.audio is not None
            row[: len(given.audio)] = torch.from_numpy(given.audio)
    device = next(model.parameters()).device
    video, audio = (x if x is None else x.to(device) for x in (video, audio))
    mask = mask.to(device)
    return model.streams(video, audio, mask, modalities, mask_padding=True), mask


@dataclass(frozen=True)
class _Windows:
    """Windows of one modality, to be transcribed within memory."""

    transcriber: Transcriber
    modality: Modality

    def decode(self, items: Sequence[Input], options: DecodingOptions) -> list[Heard]:
        """What is said in each."""
        try:
            return replace(self.transcriber, options=options)._transcribe(list(items), self.modality)
        except (MemoryError, RuntimeError) as error:
            if len(items) > 1 and ran_out(error):
                self.transcriber.fitting_frames = len(items) * max(item.frames for item in items) - 1
            raise
        finally:
            memory.give_back()

    def halves(self, item: Input) -> tuple[Input, Input] | None:
        """Two overlapping parts of a window."""
        bounds = halves(item.frames)
        return None if bounds is None else (part(item, *bounds[0]), part(item, *bounds[1]))

    def join(self, item: Input, left: Heard, right: Heard) -> Heard:
        """What two parts of a window say."""
        return self.transcriber._joined(left, right, item.frames - right.frames, OVERLAP_FRAMES)


def _evidence(log_probs: Tensor, mask: Tensor, rows: Sequence[Sequence[int]]) -> list[float]:
    """The log-probability of each row of tokens under CTC, minus that of saying nothing."""
    lengths = mask.sum(1)
    counts = torch.tensor([len(row) for row in rows], device=mask.device)
    tokens = torch.zeros(len(rows), max(1, int(counts.max())), dtype=torch.long, device=mask.device)
    for target, row in zip(tokens, rows, strict=True):
        target[: len(row)] = torch.tensor(row, dtype=torch.long)
    said = -ctc_negative_log_probs(log_probs, lengths, tokens, counts)
    silent = log_probs[..., BLANK].masked_fill(~mask, 0.0).sum(1)
    odds = torch.where(counts > 0, said - silent, 0.0)
    return [max(value, -1e6) for value in odds.tolist()]


def _pauses(blank: Tensor, shortest: int) -> list[tuple[int, ...]]:
    """The middles of stretches of at least so many frames, between others, in which CTC's blank (B, T) is sure."""
    found = []
    for row in blank:
        said = torch.nonzero(row < BLANK_IS_SURE)[:, 0].tolist()
        gaps = ((one, other) for one, other in itertools.pairwise(said) if other - one > shortest)
        found.append(tuple((one + other) // 2 for one, other in gaps))
    return found
