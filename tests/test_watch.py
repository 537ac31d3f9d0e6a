"""The teacher's labels as a run goes on: what is recorded, compared with what is said, and never learnt."""

import json
from pathlib import Path

import pytest

from conftest import random_clip
from seehear.data.clipfile import write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.recipe import parse_recipe
from seehear.training.monitor import LABELS_FILE
from seehear.training.run import train_recipe
from seehear.training.watch import KINDS, WatchedLabels, label_error_rates


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled and four unlabelled clips; what is said in two of the latter stands in the truth file."""
    root = tmp_path_factory.mktemp("corpus")
    utterances = []
    for index in range(8):
        write_clip(root / f"clips/{index}.mp4", random_clip(12, index))
        utterances.append(Utterance(str(index), f"clips/{index}.mp4", 12, "red blue" if index < 4 else None))
    Corpus.write(root, utterances, {"labelled": list("0123"), "unlabelled": list("4567"), "valid": ["0"]})
    lines = [{"id": "4", "text": "green"}, {"id": "6", "text": "red green"}]
    (root / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_the_truth_is_what_the_manifest_says_and_what_it_hides(corpus: Path) -> None:
    truths = Corpus.load(corpus).truths()
    assert truths == {**dict.fromkeys("0123", "red blue"), "4": "green", "6": "red green"}


def test_a_run_records_the_labels_of_the_same_clips_at_every_validation(corpus: Path, tmp_path: Path) -> None:
    settings = {
        "model": {"size": "tiny"},
        "data": {"corpus": str(corpus), "labelled_frames": 24, "unlabelled_frames": 24, "workers": 0},
        "run": {"steps": 4, "validate_every": 2, "watch_labels": 2},
    }
    train_recipe(parse_recipe(settings), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / LABELS_FILE).read_text().splitlines()]
    assert [(line["step"], line["id"], line["truth"]) for line in lines] == [
        (2, "4", "green"),
        (2, "6", "red green"),
        (4, "4", "green"),
        (4, "6", "red green"),
    ]
    assert all(set(KINDS) < line.keys() for line in lines)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "labels/ctc-driven" in line] == [2, 4]


def test_error_rates_count_the_clips_of_which_the_truth_is_known() -> None:
    first = WatchedLabels("a", "RED GREEN", {"ctc": "RED", "ctc-driven": "RED GREEN", "autoregressive": ""})
    second = WatchedLabels("b", None, dict.fromkeys(KINDS, "BLUE"))
    assert label_error_rates([first, second]) == {"ctc": 0.5, "ctc-driven": 0.0, "autoregressive": 1.0}
    assert label_error_rates([second]) == {}
