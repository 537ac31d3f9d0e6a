"""The whole pipeline on the synthetic corpus, in minutes on a CPU: what `make demo` runs.

It synthesises a corpus, trains the tiny model on the labelled clips alone and with USR 2.0 on those and the unlabelled
ones (the same labelled clips a step, the same number of steps), evaluates both, and transcribes a clip file. Run again
on the same folder it repeats no finished phase, and an interrupted training goes on.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seehear.checkpoint import load_model
from seehear.data.corpus import Corpus
from seehear.data.synthetic import Split, default_splits, synthesize_corpus
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import ConfigError
from seehear.evaluate import CLEAN, Condition, Noise, Result, compare, evaluate, read_records, write_report
from seehear.files import refuse_foreign, write_atomically
from seehear.metrics import Interval
from seehear.modality import Modality
from seehear.recipe import Recipe, load_recipe
from seehear.recognizer import load
from seehear.training.curves import draw_curves
from seehear.training.run import train_recipe
from seehear.transcript import write_transcript

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL
SUPERVISED, USR2 = "supervised", "USR 2.0"
RECIPES = {SUPERVISED: "supervised-demo", USR2: "usr2-demo"}
"""The two runs that are compared, and the recipes that ship for them."""

DECODING = DecodingOptions(method=DecodingMethod.BEAM, beam_size=5, ctc_weight=0.3, max_length_ratio=0.4)
BABBLE_VOICES = 6
"""Clips that speak at once in the babble."""
LARGEST_WER = 0.2
"""What USR 2.0 may err with sound and lips."""
LARGEST_SHARE = 0.5
"""What lips alone may err, as a share of the errors on blank video."""

FIRST_STEPS = 20
"""Steps whose speed foretells how long the demo takes."""
FILL = 0.86
"""Share of a step's frames that is no padding, on this corpus."""
UNLABELLED_COST = 1.2
"""Time that a frame takes in training by USR 2.0, as a multiple of that in supervised training."""
EVALUATION_COST = 0.2
"""Time that both evaluations take, as a share of that of both trainings."""


@dataclass(frozen=True)
class Plan:
    """How large the demo is; the tests run a smaller one."""

    splits: Mapping[str, Split] = field(default_factory=default_splits)
    overrides: tuple[str, ...] = ()
    """`section.key=value`, applied to both recipes."""


class Trial(NamedTuple):
    """What a model is tried on."""

    name: str
    split: str
    condition: Condition = CLEAN
    modalities: tuple[Modality, ...] = tuple(Modality)


class Verdict(StrEnum):
    """What the measurement makes of a claim."""

    SHOWN = "pass"
    """It holds on the whole 95 % interval."""
    WITHIN_CHANCE = "within chance"
    """It holds on a part of the interval: these clips are too few to tell."""
    REFUTED = "FAIL"
    """It holds nowhere on the interval."""


class Claim(NamedTuple):
    """What the demo is meant to show, and whether it did."""

    statement: str
    measured: str
    verdict: Verdict


Scores = Mapping[str, Mapping[str, Mapping[Modality, Result]]]
"""Results by run, name of the trial, and modality."""


@dataclass(frozen=True)
class Demo:
    """What came out."""

    scores: Scores
    claims: tuple[Claim, ...]
    seconds: Mapping[str, float]
    """Wall-clock time by phase."""
    reference: str
    """What is said in a test clip."""
    transcript: str
    """What USR 2.0 recognises in its file, with sound and lips."""
    picture: Path
    """The training curves."""


class Journal:
    """Which phases are done, what they gave and how long they took: `demo.json`, rewritten after each."""

    def __init__(self, path: Path, plan: Mapping[str, Any], announce: Callable[[str], None]) -> None:
        self.path = path
        self.plan = json.loads(json.dumps(plan))
        self.announce = announce
        self.seconds: dict[str, float] = {}
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["plan"] != self.plan:
                raise ConfigError(f"{path.parent} holds a demo with other settings: remove it or choose another --out")
            self.seconds = kept["seconds"]

    def phase(self, name: str, work: Callable[[], object]) -> None:
        """Do `work` unless an earlier demo did."""
        if name in self.seconds:
            self.announce(f"{name}: done before, in {self.seconds[name]:.0f} s")
            return
        self.announce(name)
        started = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - started, 1)
        write_atomically(self.path, json.dumps({"plan": self.plan, "seconds": self.seconds}, indent=2) + "\n")


class Forecast:
    """How long the demo takes, announced once, after the first steps of the first training that is run."""

    def __init__(self, recipes: Mapping[str, Recipe], journal: Journal) -> None:
        self.recipes = recipes
        self.journal = journal
        self.speeds: list[float] = []
        """Video frames a second of each step."""

    def step(self, _: int, numbers: Mapping[str, float]) -> None:
        """Another step of a training is made, with these numbers."""
        self.speeds.append(numbers["frames/s"])
        if len(self.speeds) == min(FIRST_STEPS, *(_steps(recipe) for recipe in self.recipes.values())):
            minutes = math.ceil(self.seconds(statistics.median(self.speeds)) / 60)
            self.journal.announce(f"about {minutes} minute{'s' if minutes > 1 else ''} in all")

    def seconds(self, speed: float) -> float:
        """Of the whole demo, at so many frames a second; phases that are done take what they took."""
        done = self.journal.seconds
        trainings = {_training(run): work(recipe) / speed for run, recipe in self.recipes.items()}
        to_do = sum(seconds for phase, seconds in trainings.items() if phase not in done)
        return sum(done.values()) + to_do + EVALUATION_COST * sum(trainings.values())


def work(recipe: Recipe) -> float:
    """What a training has to do, in frames of supervised training."""
    steps, data = _steps(recipe), recipe.data
    frames = steps * data.labelled_frames
    if recipe.objective.kind == "supervised":
        return FILL * frames
    both = max(0, steps - recipe.objective.supervised_steps)
    return FILL * UNLABELLED_COST * (frames + both * data.unlabelled_frames)


def _steps(recipe: Recipe) -> int:
    assert recipe.run.steps is not None, "the demo's recipes give their steps"
    return recipe.run.steps


def _training(run: str) -> str:
    """The phase in which a run is trained."""
    return f"training, {run}"


def run_demo(out: Path, announce: Callable[[str], None], plan: Plan | None = None, device: str = "cpu") -> Demo:
    """Do in the folder `out` what is not done there yet; `announce` is told when a phase begins, and once how long the
    whole takes."""
    plan = plan or Plan()
    root = out / "corpus"
    assignments = [f"data.corpus={json.dumps(str(root))}", *plan.overrides]
    recipes = {run: load_recipe(name, assignments) for run, name in RECIPES.items()}
    splits = {name: split._asdict() for name, split in plan.splits.items()}
    refuse_foreign(out, ("corpus", "evaluation", "transcripts", *RECIPES.values()))
    settings = {"splits": splits, "recipes": {run: recipe.to_toml() for run, recipe in recipes.items()}}
    journal = Journal(out / "demo.json", settings, announce)

    journal.phase("synthetic corpus", lambda: synthesize_corpus(root, plan.splits, overwrite=True))
    forecast = Forecast(recipes, journal)
    for run, recipe in recipes.items():
        journal.phase(_training(run), partial(train_recipe, recipe, out / RECIPES[run], device, forecast.step))
    corpus = Corpus.load(root)
    trials = list_trials(corpus)
    results = {run: out / "evaluation" / RECIPES[run] for run in recipes}
    for run, folder in results.items():
        journal.phase(
            f"evaluation, {run}", partial(try_out, out / RECIPES[run] / "model", corpus, trials, folder, device)
        )
    scores = {run: {trial.name: read_results(folder, trial) for trial in trials} for run, folder in results.items()}
    clip = corpus.split("test")[0]
    written = out / "transcripts"
    journal.phase(
        "transcription", partial(transcribe, out / RECIPES[USR2] / "model", root / clip.clip, written, device)
    )
    text = json.loads((written / f"{clip.id}.json").read_text(encoding="utf-8"))["text"]
    picture = out / "curves.png"
    draw_curves({run: [out / RECIPES[run]] for run in recipes}, picture)
    return Demo(scores, check_claims(scores), journal.seconds, clip.text or "", text, picture)


def list_trials(corpus: Corpus) -> tuple[Trial, ...]:
    """The test splits as they are, and the test split with babble and with blank video."""
    return (
        Trial("test", "test"),
        Trial("unseen voices", "test-voices"),
        Trial("long utterances", "test-long"),
        Trial("babble at 0 dB", "test", Condition(noise=Noise("babble", babble(corpus), 0.0)), (A, AV)),
        Trial("blank video", "test", Condition(blank_video=True), (V,)),
    )


def babble(corpus: Corpus) -> NDArray[np.float32]:
    """Voices that no model was trained on, those of `test-voices`, at once and equally loud: (N,) samples."""
    clips = [corpus.read(utterance).require_audio() for utterance in corpus.split("test-voices")]
    voices = [np.concatenate(clips[first::BABBLE_VOICES]) for first in range(min(BABBLE_VOICES, len(clips)))]
    length = max(map(len, voices))
    level = [np.resize(voice / np.sqrt(np.mean(voice**2)), length) for voice in voices]
    mixture: NDArray[np.float32] = np.sum(level, axis=0, dtype=np.float32)
    return mixture


def try_out(model_folder: Path, corpus: Corpus, trials: Sequence[Trial], results: Path, device: str) -> None:
    """Evaluate a model in every trial, in float32; the records go into the folder `results`."""
    model, tokenizer = load_model(model_folder, device)
    for trial in trials:
        report = evaluate(
            model, tokenizer, corpus, corpus.split(trial.split), trial.modalities, DECODING, condition=trial.condition
        )
        write_report(report, _records(results, trial), {"model": str(model_folder), "corpus": "synthetic"})


def read_results(results: Path, trial: Trial) -> dict[Modality, Result]:
    """What `try_out` wrote."""
    return {m: Result(m, tuple(records)) for m, records in read_records(_records(results, trial)).items()}


def transcribe(model_folder: Path, file: Path, folder: Path, device: str) -> None:
    """Write what a model recognises in a media file, as text and JSON, to `folder`."""
    transcript = load(model_folder, device).transcribe(file, AV, DECODING)
    write_transcript(transcript, folder, file.stem, ("txt", "json"))


def check_claims(scores: Scores) -> tuple[Claim, ...]:
    """What the demo is meant to show, held against what was measured."""
    supervised, usr2 = scores[SUPERVISED], scores[USR2]
    both, lips, blank = usr2["test"][AV], usr2["test"][V], usr2["blank video"][V]
    babble = usr2["babble at 0 dB"]
    low, high = _interval(both)
    claims = [
        Claim(
            f"USR 2.0 errs on at most {LARGEST_WER:.0%}, AV",
            f"{_wer(both):.1%} ({low:.1%} to {high:.1%})",
            judge(Interval(low - LARGEST_WER, high - LARGEST_WER)),
        )
    ]
    for modality in Modality:
        statement = f"USR 2.0 errs less than supervised, {modality.value.upper()}"
        claims.append(errs_less(statement, usr2["test"][modality], supervised["test"][modality]))
    (low, high), (low_blank, high_blank) = _interval(lips), _interval(blank)
    claims.append(
        Claim(
            "V errs at most half as often as blanked",
            f"{_wer(lips):.1%} and {_wer(blank):.1%}",
            judge(Interval(low - LARGEST_SHARE * high_blank, high - LARGEST_SHARE * low_blank)),
        )
    )
    claims.append(errs_less("AV errs less than A in babble at 0 dB", babble[AV], babble[A]))
    return tuple(claims)


def errs_less(statement: str, result: Result, other: Result) -> Claim:
    """The claim that `result` has a lower error rate than `other`, on the same clips."""
    comparison = compare(other.records, result.records)
    assert comparison is not None, "the test clips have words"
    low, high = comparison.interval
    return Claim(statement, f"{comparison.difference:+.1%} ({low:+.1%} to {high:+.1%})", judge(comparison.interval))


def judge(interval: Interval) -> Verdict:
    """The verdict on the claim that a number, whose 95 % interval this is, is negative."""
    if interval.high < 0.0:
        return Verdict.SHOWN
    return Verdict.REFUTED if interval.low > 0.0 else Verdict.WITHIN_CHANCE


def _wer(result: Result) -> float:
    assert result.wer is not None, "the test clips have words"
    return result.wer


def _interval(result: Result) -> Interval:
    assert result.wer_interval is not None, "the test clips have words"
    return result.wer_interval


def _records(results: Path, trial: Trial) -> Path:
    return results / f"{trial.name.replace(' ', '-')}.jsonl"
