"""The demo on a handful of clips: every phase runs, none runs twice, and the verdicts can go both ways."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from seehear.cli.demo import claims, error_rates
from seehear.data.corpus import Corpus
from seehear.data.synthetic import default_splits
from seehear.demo import AV, BABBLE_VOICES, SUPERVISED, USR2, A, Demo, Plan, V, babble, check_claims, run_demo
from seehear.errors import ConfigError
from seehear.evaluate import Record, Result
from seehear.metrics import ErrorCounts
from seehear.modality import Modality
from seehear.recipe import load_recipe

PLAN = Plan(
    default_splits(labelled=6, unlabelled=6, valid=2, test=3, test_voices=2, test_long=2),
    (
        "run.steps=3",
        "data.labelled_frames=100",
        "data.unlabelled_frames=100",
        "data.workers=0",
        "objective.supervised_steps=1",
        "objective.gamma_rise_steps=0",
    ),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def finished(out: Path) -> Demo:
    return run_demo(out, lambda phase: None, PLAN)


def test_every_trial_is_scored(finished: Demo, out: Path) -> None:
    clips = {"test": 3, "unseen voices": 2, "long utterances": 2, "babble at 0 dB": 3, "blank video": 3}
    modalities = {"babble at 0 dB": (A, AV), "blank video": (V,)}
    assert list(finished.scores) == [SUPERVISED, USR2]
    for trials in finished.scores.values():
        assert {name: len(result.records) for name, by in trials.items() for result in by.values()} == clips
        assert all(tuple(by) == modalities.get(name, tuple(Modality)) for name, by in trials.items())
    assert finished.picture.read_bytes().startswith(b"\x89PNG")
    assert finished.reference
    summaries = list((out / "evaluation").rglob("*.summary.json"))
    assert len(summaries) == 10
    assert all(json.loads(path.read_text())["corpus"] == "synthetic" for path in summaries)


def test_what_is_done_is_not_done_again(finished: Demo, out: Path) -> None:
    announced: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "curves.png" and path.is_file()}
    again = run_demo(out, announced.append, PLAN)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert all("done before" in phase for phase in announced)
    assert before == after
    assert (again.claims, again.seconds, again.transcript) == (finished.claims, finished.seconds, finished.transcript)


def test_other_settings_need_another_folder(finished: Demo, out: Path) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        run_demo(out, lambda phase: None, Plan(PLAN.splits, (*PLAN.overrides, "run.seed=1")))


def test_the_tables_say_synthetic(finished: Demo) -> None:
    for table in (error_rates(finished), claims(finished)):
        assert "synthetic" in str(table.title)
    assert error_rates(finished).row_count == 12


def test_both_runs_get_the_same_labelled_clips() -> None:
    supervised, usr2 = load_recipe("supervised-demo"), load_recipe("usr2-demo")
    assert supervised.run == usr2.run
    assert supervised.model == usr2.model
    assert supervised.data == usr2.data


def test_babble_is_equally_loud_voices(finished: Demo, out: Path) -> None:
    corpus = Corpus.load(out / "corpus")
    noise = babble(corpus)
    longest = max(utterance.frames for utterance in corpus.split("test-voices"))
    assert noise.shape == (640 * longest,)
    voices = min(BABBLE_VOICES, len(corpus.split("test-voices")))
    assert np.mean(noise**2) == pytest.approx(voices, rel=0.2)  # independent voices of power 1


def test_claims_hold_or_fail_as_measured() -> None:
    good = {"test": {A: 1, V: 3, AV: 1}, "blank video": {V: 8}, "babble at 0 dB": {A: 5, AV: 2}}
    bad = {"test": {A: 3, V: 8, AV: 3}, "blank video": {V: 9}, "babble at 0 dB": {A: 2, AV: 2}}
    assert all(claim.holds for claim in check_claims({SUPERVISED: scores(bad), USR2: scores(good)}))
    assert not any(claim.holds for claim in check_claims({SUPERVISED: scores(good), USR2: scores(bad)}))


def scores(errors: Mapping[str, Mapping[Modality, int]]) -> Mapping[str, Mapping[Modality, Result]]:
    """Results with so many errors in ten words."""

    def result(modality: Modality, wrong: int) -> Result:
        counts = ErrorCounts(hits=10 - wrong, substitutions=wrong)
        return Result(modality, (Record("one", modality, "reference", "hypothesis", counts, counts),))

    return {trial: {m: result(m, wrong) for m, wrong in by.items()} for trial, by in errors.items()}
