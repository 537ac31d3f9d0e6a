"""The demo on a handful of clips: every phase runs, none runs twice, and the verdicts can go both ways."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seehear.cli.demo import claims, error_rates
from seehear.cli.main import app
from seehear.data.corpus import Corpus
from seehear.data.synthetic import default_splits
from seehear.demo import (
    AV,
    BABBLE_VOICES,
    RECIPES,
    SUPERVISED,
    USR2,
    A,
    Claim,
    Demo,
    Forecast,
    Journal,
    Plan,
    V,
    Verdict,
    babble,
    check_claims,
    judge,
    run_demo,
)
from seehear.errors import ConfigError
from seehear.evaluate import Record, Result
from seehear.metrics import ErrorCounts, Interval
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
def announced() -> list[str]:
    return []


@pytest.fixture(scope="module")
def finished(out: Path, announced: list[str]) -> Demo:
    return run_demo(out, announced.append, PLAN)


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
    bad = {"test": {A: 3, V: 8, AV: 3}, "blank video": {V: 9}, "babble at 0 dB": {A: 2, AV: 3}}
    assert verdicts(bad, good) == [Verdict.SHOWN] * 6
    assert verdicts(good, bad) == [Verdict.REFUTED] * 6
    assert verdicts(good, good)[1:4] == [Verdict.WITHIN_CHANCE] * 3


def test_a_claim_whose_interval_holds_0_is_neither_shown_nor_refuted() -> None:
    assert judge(Interval(-0.042, 0.007)) is Verdict.WITHIN_CHANCE
    assert judge(Interval(-0.042, -0.001)) is Verdict.SHOWN
    assert judge(Interval(0.001, 0.007)) is Verdict.REFUTED


def test_verdicts_on_few_clips_follow_their_intervals() -> None:
    """Of forty clips USR 2.0 gets two more right that supervised training got wrong, and one the other way round."""
    wrong, right = ErrorCounts(substitutions=1), ErrorCounts(hits=1)
    clips = {SUPERVISED: [wrong] * 3 + [right] * 37, USR2: [right] * 2 + [wrong] * 2 + [right] * 36}
    by_run = {
        run: {
            trial: {
                m: Result(m, tuple(Record(str(i), m, "a", "", count, count) for i, count in enumerate(counts)))
                for m in Modality
            }
            for trial in ("test", "blank video", "babble at 0 dB")
        }
        for run, counts in clips.items()
    }
    held = {claim.statement: claim for claim in check_claims(by_run)}
    assert held["USR 2.0 errs on at most 20%, AV"].verdict is Verdict.SHOWN
    for modality in ("A", "V", "AV"):
        claim = held[f"USR 2.0 errs less than supervised, {modality}"]
        assert (claim.verdict, claim.measured[:5]) == (Verdict.WITHIN_CHANCE, "-2.5%")
    assert held["V errs at most half as often as blanked"].verdict is Verdict.WITHIN_CHANCE


@pytest.mark.parametrize(("verdict", "status"), [(Verdict.WITHIN_CHANCE, 0), (Verdict.REFUTED, 1)])
def test_only_a_refuted_claim_is_a_failure(
    finished: Demo, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, status: int
) -> None:
    told = (Claim("all goes well", "0 (-1 to 1)", verdict), Claim("water is wet", "1", Verdict.SHOWN))
    monkeypatch.setattr("seehear.demo.run_demo", lambda *_, **__: replace(finished, claims=told))
    assert CliRunner().invoke(app, ["demo"]).exit_code == status


def test_how_long_it_takes_is_told_once_after_the_first_steps(tmp_path: Path) -> None:
    announced: list[str] = []
    recipes = {run: load_recipe(name) for run, name in RECIPES.items()}
    forecast = Forecast(recipes, Journal(tmp_path / "demo.json", {}, announced.append))
    for step in range(1, 31):
        forecast.step(step, {"frames/s": 10.0 if step == 1 else 1000.0})
    assert announced == ["about 16 minutes in all"]
    # by hand: 800 × 400 frames, then as many and 300 × 600 with pseudo-labels, a sixth of them padding; a fifth on top
    by_hand = 0.86 * (320_000 + 1.2 * 500_000) / 1000 * 1.2
    assert forecast.seconds(1000.0) == pytest.approx(by_hand)
    assert 15 * 60 < by_hand < 16 * 60
    forecast.journal.seconds = {"synthetic corpus": 30.0, "training, supervised": 100.0}
    assert forecast.seconds(1000.0) == pytest.approx(by_hand - 0.86 * 320 + 130.0)


def test_the_demo_tells_how_long_it_takes_while_it_trains(finished: Demo, announced: list[str]) -> None:
    assert announced[:2] == ["synthetic corpus", "training, supervised"]
    assert re.fullmatch(r"about \d+ minutes? in all", announced[2])
    assert len([told for told in announced if told.startswith("about")]) == 1


Errors = Mapping[str, Mapping[Modality, int]]


def verdicts(supervised: Errors, usr2: Errors) -> list[Verdict]:
    """On a single clip, so that intervals are points."""
    return [claim.verdict for claim in check_claims({SUPERVISED: scores(supervised), USR2: scores(usr2)})]


def scores(errors: Errors) -> Mapping[str, Mapping[Modality, Result]]:
    """Results with so many errors in ten words."""

    def result(modality: Modality, wrong: int) -> Result:
        counts = ErrorCounts(hits=10 - wrong, substitutions=wrong)
        return Result(modality, (Record("one", modality, "reference", "hypothesis", counts, counts),))

    return {trial: {m: result(m, wrong) for m, wrong in by.items()} for trial, by in errors.items()}
