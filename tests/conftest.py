"""What several tests share: a model folder and a corpus made on the spot, and the material beside the checkout."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seehear.card import ModelCard
from seehear.checkpoint import save_model
from seehear.cli.main import main
from seehear.config import SIZES
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.faces import FacePoints
from seehear.data.mouth import MEAN_FACE, MEAN_MOUTH
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer

SENTENCES = ("bin blue at f two now", "lay red with x nine please", "set white by q zero again", "place green in k one")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and lose much where other programs run."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and reference figures that lies beside the checkout, or where SEEHEAR_SHARED says."""
    folder = Path(os.environ.get("SEEHEAR_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the material in {folder} (or SEEHEAR_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A vocabulary of a few pieces."""
    return Tokenizer.train(SENTENCES, 48)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with random weights."""
    torch.manual_seed(0)
    model = USR(SIZES["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size}))
    return save_model(tmp_path_factory.mktemp("models") / "tiny", model, tokenizer, ModelCard(title="Random weights"))


def random_clip(frames: int, seed: int = 0) -> MouthClip:
    """A clip of smooth noise."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, size=(frames, 12, 12), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    return MouthClip(video=video, audio=rng.uniform(-0.3, 0.3, size=frames * 640).astype(np.float32))


@pytest.fixture(scope="session")
def random_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six clips of different lengths; `test` has transcripts, `mute` has not."""
    root = tmp_path_factory.mktemp("corpora") / "random"
    lengths = (20, 7, 31, 20, 1, 14)
    utterances = [
        Utterance(
            id=f"clip-{number}",
            clip=f"clips/clip-{number}.mp4",
            frames=frames,
            text=SENTENCES[number % len(SENTENCES)] if number < 5 else None,
            source="random",
        )
        for number, frames in enumerate(lengths)
    ]
    for number, utterance in enumerate(utterances):
        write_clip(root / utterance.clip, random_clip(utterance.frames, seed=number))
    ids = [utterance.id for utterance in utterances]
    return Corpus.write(root, utterances, {"test": ids[:5], "mute": ids[5:]})


ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
MEAN_POINTS = np.vstack([MEAN_FACE, MEAN_MOUTH + np.stack([22 * np.cos(ANGLES), 9 * np.sin(ANGLES)], axis=1)])
"""(28, 2) the mean face with an oval for lips."""


def face_at(x: float, y: float, scale: float = 1.0, degrees: float = 0.0) -> FacePoints:
    """The mean face with its mouth at (x, y), enlarged and turned."""
    turn = scale * np.exp(1j * np.deg2rad(degrees))
    z = ((MEAN_POINTS - MEAN_MOUTH) @ (1, 1j)) * turn
    return np.stack([z.real + x, z.imag + y], axis=1).astype(np.float32)


class ScriptedDetector:
    """Sees what it is told to."""

    def __init__(self, script: Sequence[Sequence[FacePoints]], every: int = 1) -> None:
        self.script = script
        self.every = every
        self.looked_at: list[int] = []

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        self.looked_at.append(number)
        return list(self.script[number])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve random clips of half a second: six labelled, four not, two to validate."""
    root = tmp_path_factory.mktemp("corpora") / "training"
    rng = np.random.default_rng(0)
    utterances = []
    for index in range(12):
        frames = int(rng.integers(10, 16))
        path = f"clips/{index}.mp4"
        write_clip(root / path, random_clip(frames, index))
        text = " ".join(rng.choice(("red", "blue", "green", "at", "by"), size=2)) if index not in range(6, 10) else None
        utterances.append(Utterance(str(index), path, frames, text))
    ids = [str(index) for index in range(12)]
    Corpus.write(root, utterances, {"labelled": ids[:6], "unlabelled": ids[6:10], "valid": ids[10:]})
    return root


Run = subprocess.CompletedProcess[str]
Prepare = Callable[..., Run]


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`seehear prepare` with some arguments, by one worker: in this process, as far as it goes."""

    def run(*arguments: object) -> Run:
        command = ["seehear", "prepare", *map(str, arguments), *["--workers", "1"] * ("--workers" not in arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        return Run(command, int(end.value.code or 0), *capsys.readouterr())

    return run
