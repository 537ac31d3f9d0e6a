"""What starts instantly stays so: nothing heavy is loaded before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

import seehear
from seehear.modality import Modality
from seehear.recognizer import load

HEAVY = (
    "torch",
    "mediapipe",
    "cv2",
    "av",
    "matplotlib",
    "sentencepiece",
    "safetensors",
    "huggingface_hub",
)


def loaded_by(code: str) -> set[str]:
    """Which heavy modules a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import seehear; seehear.Modality, seehear.Transcript, dir(seehear)") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["evaluate", "--help"], ["transcribe", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    start = f"import sys; sys.argv = ['seehear', *{arguments!r}]\nfrom seehear.cli.main import main"
    assert loaded_by(f"{start}\ntry: main()\nexcept SystemExit as end: assert end.code == 0") == set()


def test_heavy_modules_would_be_seen() -> None:
    assert loaded_by("import sentencepiece") == {"sentencepiece"}


def test_the_package_offers_what_it_names() -> None:
    assert seehear.load is load
    assert seehear.Modality is Modality
    assert set(dir(seehear)) == set(seehear.__all__)
    assert all(hasattr(seehear, name) for name in seehear.__all__)
    with pytest.raises(AttributeError, match="no attribute 'transcribe'"):
        seehear.transcribe  # noqa: B018


@pytest.mark.parametrize(
    "program", [[sys.executable, "-m", "seehear"], [str(Path(sys.executable).with_name("seehear"))]]
)
def test_both_ways_to_start_are_one(program: list[str]) -> None:
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"seehear {seehear.__version__}\n"
