"""`Batch`, the one type that evaluation and training see, and how clips become one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.noise import mix
from seehear.data.passages import Passages, join
from seehear.data.transforms import augment_clip, central_crop, normalise_video, stillness, visible
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME
from seehear.recipe import AugmentConfig
from seehear.tokenizer import Tokenizer

BABBLE_VOICES = 3
"""Other clips of a batch that are summed into the babble of a noisy one."""


@dataclass(frozen=True)
class Batch:
    """Clips padded to the longest; padding is zero after normalisation.

    B clips, T frames, S = 640·T samples, U tokens. The last five fields are there in training only.
    """

    ids: tuple[str, ...]
    video: Tensor
    """(B, T, 88, 88) float32, normalised."""
    audio: Tensor
    """(B, S) float32."""
    lengths: Tensor
    """(B,) int64, in frames."""
    texts: tuple[str | None, ...] = ()
    tokens: Tensor | None = None
    """(B, U) int64 without specials, padded with 0."""
    token_lengths: Tensor | None = None
    """(B,) int64."""
    video_keep: Tensor | None = None
    """(B, T) bool: frames that the student sees."""
    audio_keep: Tensor | None = None
    """(B, S) bool: samples that the student hears."""
    noise: Tensor | None = None
    """(B, S) float32, added to what the student hears."""

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True on real frames."""
        return torch.arange(self.video.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (the loader calls this when training on a GPU)."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed: dict[str, Any] = {name: change(value) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **changed)

    def cut(self, spans: Sequence[tuple[int, int, int]]) -> "Batch":
        """Parts of clips, each a row with its first frame and the one after its last; without what is for training."""
        frames = [end - start for _, start, end in spans]
        longest = max(frames)

        def padded(whole: Tensor, per_frame: int) -> Tensor:
            parts = whole.new_zeros(len(spans), longest * per_frame, *whole.shape[2:])
            for part, (row, start, end) in zip(parts, spans, strict=True):
                part[: (end - start) * per_frame] = whole[row, start * per_frame : end * per_frame]
            return parts

        return Batch(
            ids=tuple(self.ids[row] for row, _, _ in spans),
            video=padded(self.video, 1),
            audio=padded(self.audio, SAMPLES_PER_FRAME),
            lengths=self.lengths.new_tensor(frames),
            texts=tuple(self.texts[row] for row, _, _ in spans) if self.texts else (),
        )

    def student_view(self) -> tuple[Tensor, Tensor]:
        """Video (B, T, 88, 88) and audio (B, S) as the student gets them: noisy, and masked with zeros."""
        video, audio = self.video, self.audio
        if self.noise is not None:
            audio = audio + self.noise
        if self.video_keep is not None:
            video = video * self.video_keep[:, :, None, None]
        if self.audio_keep is not None:
            audio = audio * self.audio_keep
        return video, audio


@dataclass(frozen=True)
class Example:
    """One clip on its way into a batch; the fields are those of `Batch` without the first dimension."""

    id: str
    video: NDArray[np.float32]
    audio: NDArray[np.float32]
    text: str | None = None
    tokens: list[int] | None = None
    video_keep: NDArray[np.bool_] | None = None
    audio_keep: NDArray[np.bool_] | None = None
    noise_snr_db: float | None = None
    noise_seed: int = 0


def _padded(rows: Sequence[NDArray[np.generic]], length: int, dtype: torch.dtype) -> Tensor:
    """Stack arrays whose first dimension is at most `length`, zero-padded to it."""
    stacked = torch.zeros(len(rows), length, *rows[0].shape[1:], dtype=dtype)
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return stacked


def _babble(examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """For each example, what is added to its sound: other clips of the batch at the drawn ratio, or silence."""
    noises = []
    for index, example in enumerate(examples):
        noise = np.zeros_like(example.audio)
        others = [other.audio for other in examples[:index] + examples[index + 1 :]]  # type: ignore[operator]
        if example.noise_snr_db is not None and others:
            rng = np.random.default_rng(example.noise_seed)
            voices = rng.choice(len(others), size=min(BABBLE_VOICES, len(others)), replace=False)
            babble = sum(np.resize(others[voice], noise.shape) for voice in voices)
            noise = mix(example.audio, np.asarray(babble, dtype=np.float32), example.noise_snr_db, rng) - example.audio
        noises.append(noise)
    return noises


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples into a batch."""
    lengths = [len(example.video) for example in examples]
    frames, samples = max(lengths), max(lengths) * SAMPLES_PER_FRAME
    masked = examples[0].video_keep is not None
    tokens = [np.asarray(example.tokens, dtype=np.int64) for example in examples if example.tokens is not None]
    noisy = any(example.noise_snr_db is not None for example in examples)
    return Batch(
        ids=tuple(example.id for example in examples),
        video=_padded([example.video for example in examples], frames, torch.float32),
        audio=_padded([example.audio for example in examples], samples, torch.float32),
        lengths=torch.tensor(lengths),
        texts=tuple(example.text for example in examples),
        tokens=_padded(tokens, max(map(len, tokens)), torch.int64) if tokens else None,
        token_lengths=torch.tensor([len(row) for row in tokens]) if tokens else None,
        video_keep=_padded([e.video_keep for e in examples if e.video_keep is not None], frames, torch.bool)
        if masked
        else None,
        audio_keep=_padded([e.audio_keep for e in examples if e.audio_keep is not None], samples, torch.bool)
        if masked
        else None,
        noise=_padded(_babble(examples), samples, torch.float32) if noisy else None,
    )


def _evaluation_example(clip: MouthClip, id: str, text: str | None) -> Example:
    return Example(id=id, video=normalise_video(central_crop(clip.video)), audio=clip.audio, text=text)


def single(clip: MouthClip, id: str = "") -> Batch:
    """A batch of one clip: central crop, nothing augmented."""
    return collate([_evaluation_example(clip, id, None)])


def evaluation_batches(corpus: Corpus, utterances: Sequence[Utterance], max_frames: int) -> Iterator[Batch]:
    """Batches of up to `max_frames` frames (padding counted), shortest clips first; each utterance once."""
    by_length = sorted(utterances, key=lambda utterance: (utterance.frames, utterance.id))
    for group in fill([utterance.frames for utterance in by_length], max_frames):
        yield collate(
            [_evaluation_example(corpus.read(by_length[i]), by_length[i].id, by_length[i].text) for i in group]
        )


def fill(frames: Sequence[int] | NDArray[np.int64], max_frames: int) -> list[list[int]]:
    """Cut positions, in order, into groups with (number of clips) × (longest clip) of at most `max_frames`."""
    groups: list[list[int]] = []
    longest = 0
    for position, length in enumerate(frames):
        longest = max(longest, int(length))
        if groups and longest * (len(groups[-1]) + 1) <= max_frames:
            groups[-1].append(position)
        else:
            groups.append([position])
            longest = int(length)
    return groups


class TrainingClips(Dataset[Example]):
    """Augmented clips of some utterances; an index is (position, seed), so that any worker draws the same.

    Labelled clips may be joined, up to `max_frames`. Decoded clips stay in the memory of the process that read them, up
    to `cache_bytes`.
    """

    def __init__(
        self,
        corpus: Corpus,
        utterances: Sequence[Utterance],
        augment: AugmentConfig,
        tokenizer: Tokenizer | None,
        cache_bytes: int = 0,
        max_frames: int = 0,
    ) -> None:
        self.corpus = corpus
        self.utterances = utterances
        self.augment = augment
        self.tokenizer = tokenizer
        """None for the unlabelled stream: its transcripts are not read."""
        self.cache_bytes = cache_bytes
        self._passages = Passages(utterances, augment, max_frames)
        self._cache: dict[str, MouthClip] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: tuple[int, int]) -> Example:
        position, seed = index
        utterances, rng = [self.utterances[position]], np.random.default_rng(seed)
        clip, text = self._read(utterances[0]), None
        if self.tokenizer:
            passage = self._passages.draw(position, seed)
            utterances = [self.utterances[number] for number in passage.positions]
            text = " ".join(utterance.text or "" for utterance in utterances)
            if rng.random() < self.augment.silence_probability:
                clip, text = stillness(clip, self.length(position, seed), rng), ""
            elif passage != ((position,), (0, 0)):
                clip = join([self._read(utterance) for utterance in utterances], passage.pauses, rng)
        clip = augment_clip(clip, self.augment, rng)
        assert clip.video.shape[1:] == (INPUT_SIZE, INPUT_SIZE)
        video_keep, audio_keep = visible(len(clip.video), self.augment, rng)
        noisy = rng.random() < self.augment.noise_probability
        return Example(
            id="+".join(utterance.id for utterance in utterances),
            video=normalise_video(clip.video),
            audio=clip.audio,
            text=text,
            tokens=self.tokenizer.encode(text or "") if self.tokenizer else None,
            video_keep=video_keep,
            audio_keep=audio_keep,
            noise_snr_db=float(rng.uniform(*self.augment.noise_snr_db)) if noisy else None,
            noise_seed=seed,
        )

    def length(self, position: int, seed: int) -> int:
        """Frames of a clip, before its speed is changed."""
        return self._passages.length(position, seed) if self.tokenizer else self.utterances[position].frames

    def _read(self, utterance: Utterance) -> MouthClip:
        """The clip, from memory if it has been read before and there was room."""
        clip = self._cache.get(utterance.id)
        if clip is None:
            clip = self.corpus.read(utterance)
            size = clip.video.nbytes + clip.audio.nbytes
            if size <= self.cache_bytes:
                self.cache_bytes -= size
                self._cache[utterance.id] = clip
        return clip
