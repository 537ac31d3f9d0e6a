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
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.recipe import AugmentConfig
from seehear.tokenizer import Tokenizer

BABBLE_VOICES = 3
"""Other clips of a batch that are summed into the babble of a noisy one."""


@dataclass(frozen=True)
class Batch:
    """Clips of the same streams, padded to the longest; padding is zero after normalisation.

    B clips, T frames, S = 640·T samples, U tokens. The last five fields are there in training only.
    """

    ids: tuple[str, ...]
    video: Tensor | None
    """(B, T, 88, 88) float32, normalised; None if the clips have sound alone."""
    audio: Tensor | None
    """(B, S) float32; None if the clips have a picture alone."""
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
    def streams(self) -> Modality:
        """What the clips have: sound, picture or both. Also the modality in which most is known of them."""
        return Modality.of(audio=self.audio is not None, video=self.video is not None)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities in which the clips can be recognised."""
        return self.streams.readable

    @property
    def padded_length(self) -> int:
        """T: frames of each clip, padding counted."""
        if self.video is not None:
            return self.video.shape[1]
        assert self.audio is not None, "a clip has sound, a picture or both"
        return self.audio.shape[1] // SAMPLES_PER_FRAME

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True on real frames."""
        return torch.arange(self.padded_length, device=self.lengths.device) < self.lengths[:, None]

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

        def padded(whole: Tensor | None, per_frame: int) -> Tensor | None:
            if whole is None:
                return None
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

    def student_view(self) -> tuple[Tensor | None, Tensor | None]:
        """Video (B, T, 88, 88) and audio (B, S) as the student gets them: noisy, and masked with zeros."""
        video, audio = self.video, self.audio
        if audio is not None and self.noise is not None:
            audio = audio + self.noise
        if video is not None and self.video_keep is not None:
            video = video * self.video_keep[:, :, None, None]
        if audio is not None and self.audio_keep is not None:
            audio = audio * self.audio_keep
        return video, audio


@dataclass(frozen=True)
class Example:
    """One clip on its way into a batch; the fields are those of `Batch` without the first dimension."""

    id: str
    video: NDArray[np.float32] | None
    audio: NDArray[np.float32] | None
    text: str | None = None
    tokens: list[int] | None = None
    video_keep: NDArray[np.bool_] | None = None
    audio_keep: NDArray[np.bool_] | None = None
    noise_snr_db: float | None = None
    noise_seed: int = 0

    @property
    def num_frames(self) -> int:
        """Its length in video frames, also where there is no video."""
        if self.video is not None:
            return len(self.video)
        assert self.audio is not None, "a clip has sound, a picture or both"
        return len(self.audio) // SAMPLES_PER_FRAME


def _padded(rows: Sequence[NDArray[Any] | None], length: int, dtype: torch.dtype) -> Tensor | None:
    """Stack arrays whose first dimension is at most `length`, zero-padded to it; None if there are none."""
    present = [row for row in rows if row is not None]
    if not present:
        return None
    assert len(present) == len(rows), "the clips of a batch have the same streams"
    stacked = torch.zeros(len(present), length, *present[0].shape[1:], dtype=dtype)
    for target, row in zip(stacked, present, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return stacked


def _babble(voices: Sequence[NDArray[np.float32]], examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """For each example, what is added to its sound, one of `voices`: others of them at the drawn ratio, or silence."""
    noises = []
    for index, (voice, example) in enumerate(zip(voices, examples, strict=True)):
        noise = np.zeros_like(voice)
        others = [*voices[:index], *voices[index + 1 :]]
        if example.noise_snr_db is not None and others:
            rng = np.random.default_rng(example.noise_seed)
            chosen = rng.choice(len(others), size=min(BABBLE_VOICES, len(others)), replace=False)
            babble = sum(np.resize(others[number], noise.shape) for number in chosen)
            noise = mix(voice, np.asarray(babble, dtype=np.float32), example.noise_snr_db, rng) - voice
        noises.append(noise)
    return noises


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples, all of the same streams, into a batch."""
    lengths = [example.num_frames for example in examples]
    frames, samples = max(lengths), max(lengths) * SAMPLES_PER_FRAME
    tokens = [np.asarray(example.tokens, dtype=np.int64) for example in examples if example.tokens is not None]
    voices = [example.audio for example in examples if example.audio is not None]
    noisy = voices and any(example.noise_snr_db is not None for example in examples)
    return Batch(
        ids=tuple(example.id for example in examples),
        video=_padded([example.video for example in examples], frames, torch.float32),
        audio=_padded([example.audio for example in examples], samples, torch.float32),
        lengths=torch.tensor(lengths),
        texts=tuple(example.text for example in examples),
        tokens=_padded(tokens, max(map(len, tokens)), torch.int64) if tokens else None,
        token_lengths=torch.tensor([len(row) for row in tokens]) if tokens else None,
        video_keep=_padded([example.video_keep for example in examples], frames, torch.bool),
        audio_keep=_padded([example.audio_keep for example in examples], samples, torch.bool),
        noise=_padded(_babble(voices, examples), samples, torch.float32) if noisy else None,
    )


def _evaluation_example(clip: MouthClip, id: str, text: str | None) -> Example:
    video = None if clip.video is None else normalise_video(central_crop(clip.video))
    return Example(id=id, video=video, audio=clip.audio, text=text)


def single(clip: MouthClip, id: str = "") -> Batch:
    """A batch of one clip: central crop, nothing augmented."""
    return collate([_evaluation_example(clip, id, None)])


def evaluation_batches(corpus: Corpus, utterances: Sequence[Utterance], max_frames: int) -> Iterator[Batch]:
    """Batches of up to `max_frames` frames (padding counted), each utterance once.

    Those of each kind of streams follow each other, shortest clips first.
    """
    for streams in Modality:
        of_kind = [utterance for utterance in utterances if utterance.streams is streams]
        by_length = sorted(of_kind, key=lambda utterance: (utterance.frames, utterance.id))
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
        assert clip.video is None or clip.video.shape[1:] == (INPUT_SIZE, INPUT_SIZE)
        video_keep, audio_keep = visible(clip.frames, self.augment, rng)
        noisy = rng.random() < self.augment.noise_probability
        return Example(
            id="+".join(utterance.id for utterance in utterances),
            video=None if clip.video is None else normalise_video(clip.video),
            audio=clip.audio,
            text=text,
            tokens=self.tokenizer.encode(text or "") if self.tokenizer else None,
            video_keep=None if clip.video is None else video_keep,
            audio_keep=None if clip.audio is None else audio_keep,
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
            if clip.nbytes <= self.cache_bytes:
                self.cache_bytes -= clip.nbytes
                self._cache[utterance.id] = clip
        return clip
