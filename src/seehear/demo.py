"""The whole pipeline on the synthetic corpus, in minutes on a CPU: what `make demo` runs.

It synthesises a corpus, trains the tiny model on the labelled clips alone and with USR 2.0 on those and the unlabelled
ones (the same labelled clips a step, the same number of steps), evaluates both, and transcribes a clip file. Run again
on the same folder it repeats no finished phase, and an interrupted training goes on.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from seehear.modality import Modality
from seehear.recipe import load_recipe
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


class Claim(NamedTuple):
    """What the demo is meant to show, and whether it did."""

    statement: str
    measured: str
    holds: bool


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


def run_demo(out: Path, announce: Callable[[str], None], plan: Plan | None = None) -> Demo:
    """Do in the folder `out` what is not done there yet; `announce` is told when a phase begins."""
    plan = plan or Plan()
    root = out / "corpus"
    assignments = [f"data.corpus={json.dumps(str(root))}", *plan.overrides]
    recipes = {run: load_recipe(name, assignments) for run, name in RECIPES.items()}
    splits = {name: split._asdict() for name, split in plan.splits.items()}
    refuse_foreign(out, ("corpus", "evaluation", "transcripts", *RECIPES.values()))
    settings = {"splits": splits, "recipes": {run: recipe.to_toml() for run, recipe in recipes.items()}}
    journal = Journal(out / "demo.json", settings, announce)

    journal.phase("synthetic corpus", lambda: synthesize_corpus(root, plan.splits, overwrite=True))
    for run, recipe in recipes.items():
        journal.phase(f"training, {run}", partial(train_recipe, recipe, out / RECIPES[run]))
    corpus = Corpus.load(root)
    trials = list_trials(corpus)
    results = {run: out / "evaluation" / RECIPES[run] for run in recipes}
    for run, folder in results.items():
        journal.phase(f"evaluation, {run}", partial(try_out, out / RECIPES[run] / "model", corpus, trials, folder))
    scores = {run: {trial.name: read_results(folder, trial) for trial in trials} for run, folder in results.items()}
    clip = corpus.split("test")[0]
    written = out / "transcripts"
    journal.phase("transcription", partial(transcribe, out / RECIPES[USR2] / "model", root / clip.clip, written))
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


def try_out(model_folder: Path, corpus: Corpus, trials: Sequence[Trial], results: Path) -> None:
    """Evaluate a model in every trial; the records go into the folder `results`."""
    model, tokenizer = load_model(model_folder)
    for trial in trials:
        report = evaluate(
            model, tokenizer, corpus, corpus.split(trial.split), trial.modalities, DECODING, condition=trial.condition
        )
        write_report(report, _records(results, trial), {"model": str(model_folder), "corpus": "synthetic"})


def read_results(results: Path, trial: Trial) -> dict[Modality, Result]:
    """What `try_out` wrote."""
    return {m: Result(m, tuple(records)) for m, records in read_records(_records(results, trial)).items()}


def transcribe(model_folder: Path, file: Path, folder: Path) -> None:
    """Write what a model recognises in a media file, as text and JSON, to `folder`."""
    transcript = load(model_folder).transcribe(file, AV, DECODING)
    write_transcript(transcript, folder, file.stem, ("txt", "json"))


def check_claims(scores: Scores) -> tuple[Claim, ...]:
    """What the demo is meant to show, held against what was measured."""
    supervised, usr2 = scores[SUPERVISED], scores[USR2]
    both = _wer(usr2["test"][AV])
    claims = [Claim(f"USR 2.0 errs on at most {LARGEST_WER:.0%}, AV", f"{both:.1%}", both <= LARGEST_WER)]
    for modality in Modality:
        comparison = compare(supervised["test"][modality].records, usr2["test"][modality].records)
        assert comparison is not None, "the test clips have words"
        difference, (low, high) = comparison.difference, comparison.interval
        measured = f"{difference:+.1%} ({low:+.1%} to {high:+.1%})"
        claims.append(Claim(f"USR 2.0 errs less than supervised, {modality.value.upper()}", measured, difference < 0))
    lips, blank = _wer(usr2["test"][V]), _wer(usr2["blank video"][V])
    measured = f"{lips:.1%} and {blank:.1%}"
    claims.append(Claim("V errs at most half as often as blanked", measured, lips <= blank * LARGEST_SHARE))
    sound, both = (_wer(usr2["babble at 0 dB"][modality]) for modality in (A, AV))
    claims.append(Claim("AV errs less than A in babble at 0 dB", f"{both:.1%} and {sound:.1%}", both < sound))
    return tuple(claims)


def _wer(result: Result) -> float:
    assert result.wer is not None, "the test clips have words"
    return result.wer


def _records(results: Path, trial: Trial) -> Path:
    return results / f"{trial.name.replace(' ', '-')}.jsonl"
