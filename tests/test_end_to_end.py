"""The whole path through the real command line: synthetic clips → two trainings → error rates → a transcript."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SEEHEAR = Path(sys.executable).with_name("seehear")
SIZES = {"labelled": 12, "unlabelled": 8, "valid": 2, "test": 3, "test-voices": 0, "test-long": 0}
SETTINGS = {
    "run.steps": 24,
    "run.log_every": 8,
    "data.labelled_frames": 200,
    "data.unlabelled_frames": 200,
    "data.workers": 0,
    "objective.supervised_steps": 12,
    "objective.gamma_rise_steps": 0,
}


def seehear(*arguments: object) -> str:
    """Run the command; its standard output."""
    run = subprocess.run([SEEHEAR, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("end-to-end") / "corpus"
    assert "synthetic" in seehear("synthesize", root, *(f"--{split}={clips}" for split, clips in SIZES.items()))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["supervised", "usr2"])
def test_from_clips_to_words(objective: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [option for key, value in SETTINGS.items() for option in ("--set", f"{key}={value}")]
    printed = seehear("train", f"{objective}-demo", "--out", run, "--corpus", corpus, *settings)
    assert "step 24/24" in printed
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["av/ctc/labelled"] for record in records if "av/ctc/labelled" in record]
    assert len(losses) == SETTINGS["run.steps"]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])

    results = tmp_path / "results.jsonl"
    printed = seehear("evaluate", corpus, "--model", run / "model", "--decode", "ctc", "--output", results)
    assert "3 utterances" in printed
    scored = [json.loads(line) for line in results.read_text().splitlines()]
    assert {(record["id"], record["modality"]) for record in scored} == {
        (f"test-000{number}", modality) for number in range(3) for modality in ("a", "v", "av")
    }

    clip = corpus / "clips" / "test-0000.mp4"
    text = seehear("transcribe", clip, "--model", run / "model", "--decode", "ctc", "-o", tmp_path, "-f", "txt,json")
    transcript = json.loads((tmp_path / "test-0000.json").read_text())
    assert transcript["modality"] == "av"
    assert transcript["text"] == text.strip()
    evaluated = next(record for record in scored if record["id"] == "test-0000" and record["modality"] == "av")
    assert transcript["text"].split() == evaluated["hypothesis"].split()
