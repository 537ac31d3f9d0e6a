"""The synthetic corpus: espeak-ng speaks random commands, and a drawn mouth moves with its phonemes.

It is made to be learnt from in minutes on a CPU, and to show what USR is about: few clips have a text, more have
none; what the sound leaves open in noise the lips tell, and the other way round. Nobody was filmed. Beside the
ordinary parts of a corpus lie `synthetic.json` (how it was made) and `truth.jsonl` (what is said when in every clip,
unlabelled ones included: to measure with, never to train on).
"""

import json
import multiprocessing
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import TRUTH_FILE, Corpus, Utterance
from seehear.data.espeak import SpeakingStyle, TimedUnit, speak, version
from seehear.data.face_render import Face, Filming, render
from seehear.data.sentences import command
from seehear.data.visemes import mouth_movement
from seehear.data.workers import available_cores
from seehear.errors import CorpusError
from seehear.modality import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

SPEAKERS = (
    "en-us+m1",
    "en-us+f1",
    "en-us+m3",
    "en-us+f3",
    "en+m2",
    "en+f2",
    "en+m4",
    "en-gb-x-rp+f4",
    "en-gb-scotland+m5",
    "en-gb-scotland+f1",
)
"""espeak-ng voices of every split but `test-voices`; each has a face of its own."""
UNSEEN_SPEAKERS = ("en-029+m7", "en-us-nyc+f5", "en-gb-x-gbclan+m6", "en-us+m8")
"""Voices and faces of `test-voices` alone."""

RECORD_FILE = "synthetic.json"


class Split(NamedTuple):
    """What the clips of a split have in common."""

    clips: int
    speakers: tuple[str, ...] = SPEAKERS
    commands: tuple[int, int] = (1, 1)
    """Fewest and most commands in a clip, spoken one after the other."""
    labelled: bool = True
    """Whether the manifest says what is spoken."""


def default_splits(
    *,
    labelled: int = 150,
    unlabelled: int = 450,
    valid: int = 40,
    test: int = 100,
    test_voices: int = 40,
    test_long: int = 40,
) -> dict[str, Split]:
    """The splits of the corpus, with their numbers of clips."""
    return {
        "labelled": Split(labelled),
        "unlabelled": Split(unlabelled, labelled=False),
        "valid": Split(valid),
        "test": Split(test),
        "test-voices": Split(test_voices, speakers=UNSEEN_SPEAKERS),
        "test-long": Split(test_long, commands=(3, 4)),
    }


@dataclass(frozen=True)
class SyntheticClip:
    """A clip and what is known about it."""

    clip: MouthClip
    text: str
    speaker: str
    words: tuple[TimedUnit, ...]
    """Times within the clip."""


def synthesize_corpus(
    root: Path,
    splits: Mapping[str, Split],
    *,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    on_clip: Callable[[Utterance], None] = lambda utterance: None,
) -> Corpus:
    """Make a synthetic corpus in the folder `root`: the same for the same seed, whatever the number of workers."""
    workers = workers or available_cores()
    plan = {name: split._asdict() for name, split in splits.items()}
    record = {"source": "synthetic", "espeak-ng": version(), "seed": seed, "splits": plan}
    _claim(root, overwrite)
    (root / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (root / "clips").mkdir()

    ids = {name: [f"{name}-{number:04d}" for number in range(split.clips)] for name, split in splits.items()}
    jobs = [_Job(root, clip, splits[name], seed) for name, clips in ids.items() for clip in clips]
    utterances = []
    with (root / TRUTH_FILE).open("w", encoding="utf-8") as truths:
        for utterance, truth in _run(jobs, workers):
            truths.write(json.dumps(truth) + "\n")
            utterances.append(utterance)
            on_clip(utterance)
    return Corpus.write(root, utterances, {name: clips for name, clips in ids.items() if clips})


def synthesize_clip(name: str, split: Split, seed: int) -> SyntheticClip:
    """Make one clip; everything random about it follows from its name and the seed."""
    rng = _generator(seed, name)
    speaker = str(rng.choice(split.speakers))
    commands = [command(rng) for _ in range(rng.integers(split.commands[0], split.commands[1] + 1))]
    style = SpeakingStyle(
        speaker,
        words_per_minute=int(rng.integers(140, 190)),
        pitch=int(rng.integers(35, 66)),
        pitch_range=int(rng.integers(30, 71)),
    )
    speech = speak(", ".join(commands), style)
    before, after = rng.uniform(0.12, 0.3, 2)
    num_frames = int(np.ceil((before + len(speech.audio) / SAMPLE_RATE + after) * FRAME_RATE))

    audio = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
    start = round(before * SAMPLE_RATE)
    audio[start : start + len(speech.audio)] = speech.audio
    face = Face.draw(_generator(seed, speaker))
    movement = mouth_movement(speech.phonemes, num_frames, before)
    video = render(movement, face, Filming(), rng)
    words = tuple(TimedUnit(word, start + before, end + before) for word, start, end in speech.words)
    return SyntheticClip(MouthClip(video, record_in_room(audio, rng)), " ".join(commands), speaker, words)


def record_in_room(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sound (S,) as a microphone in a small room hears it: some echo, a level of its own, a faint hiss."""
    decay = rng.uniform(0.03, 0.12)  # seconds in which the echo falls to 1/e in amplitude
    times = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(times)) * np.exp(-times / decay)
    response *= rng.uniform(0.05, 0.2) / np.linalg.norm(response)
    response[0] = 1
    size = len(audio) + len(response)
    heard = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)]
    level = 10 ** (rng.uniform(-31, -27) / 20)  # root mean square, full scale being 1
    heard *= level / np.sqrt(np.mean(heard**2))
    heard += level * 10 ** (rng.uniform(-45, -32) / 20) * rng.standard_normal(len(heard))
    return np.clip(heard, -1, 1).astype(np.float32)


class _Job(NamedTuple):
    root: Path
    name: str
    split: Split
    seed: int


Truth = dict[str, object]
"""What is spoken in a clip and when, a line of the truth file."""


def _make(job: _Job) -> tuple[Utterance, Truth]:
    """Make one clip, write its file, and say what is in it."""
    made = synthesize_clip(job.name, job.split, job.seed)
    path = f"clips/{job.name}.mp4"
    write_clip(job.root / path, made.clip)
    utterance = Utterance(
        id=job.name,
        clip=path,
        frames=made.clip.frames,
        text=made.text if job.split.labelled else None,
        speaker=made.speaker,
        source="synthetic",
    )
    words = [{"word": word, "start": round(start, 3), "end": round(end, 3)} for word, start, end in made.words]
    return utterance, {"id": job.name, "speaker": made.speaker, "text": made.text, "words": words}


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[Utterance, Truth]]:
    """The results of the jobs, in order."""
    if workers == 1:
        yield from map(_make, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(_make, jobs, chunksize=8)


def _claim(root: Path, overwrite: bool) -> None:
    """Make `root` an empty folder; only a synthetic corpus may be removed for that."""
    if root.is_dir() and any(root.iterdir()):
        if not (root / RECORD_FILE).is_file():
            raise CorpusError(f"{root} is not empty and holds no synthetic corpus: choose another folder")
        if not overwrite:
            raise CorpusError(f"{root} holds a synthetic corpus already: add --overwrite to replace it")
        shutil.rmtree(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"cannot make the folder {root}: {error.strerror}") from error


def _generator(seed: int, name: str) -> np.random.Generator:
    """A random generator that depends on the seed and a name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
