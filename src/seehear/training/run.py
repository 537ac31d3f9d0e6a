"""A run from its recipe: corpus, tokenizer, model, objective and trainer put together; a model folder comes out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from seehear.card import ModelCard
from seehear.checkpoint import save_model
from seehear.data.batch import Batch, TrainingClips
from seehear.data.corpus import Corpus, Utterance
from seehear.data.sampler import FrameBatchSampler, stream
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import ConfigError, CorpusError
from seehear.evaluate import evaluate
from seehear.modality import FRAME_RATE, Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective
from seehear.objectives.supervised import Supervised
from seehear.objectives.usr2 import USR2
from seehear.recipe import Recipe, parse_recipe
from seehear.tokenizer import DESCRIPTION_FILE, Tokenizer
from seehear.training.checkpoints import Checkpoints, weights_of
from seehear.training.initialise import find_start, initialise
from seehear.training.monitor import METRICS_FILE, Monitor, read_metrics
from seehear.training.trainer import Streams, Trainer
from seehear.training.watch import LabelWatch, WatchedLabels

VALIDATION_FRAMES = 2400
"""Frames in a batch of a validation."""


@dataclass(frozen=True)
class Material:
    """The clips a run uses."""

    corpus: Corpus
    labelled: list[Utterance]
    unlabelled: list[Utterance]
    valid: list[Utterance]


def train_recipe(recipe: Recipe, out: Path, device: str = "cpu") -> Path:
    """Train as `recipe` says, into the folder `out`; return the folder of the trained model, `out/model`.

    A run that was interrupted goes on from its last checkpoint. Raises `ConfigError` if `out` holds another run, and
    `CorpusError` if the corpus lacks what the recipe names.
    """
    material = load_material(recipe)
    torch.manual_seed(recipe.run.seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(out / "checkpoints", recipe.run.keep)
    state = checkpoints.load_last()
    if state is not None and _essence(parse_recipe(state["recipe"])) != _essence(recipe):
        raise ConfigError(f"{out} holds a run of another recipe: choose another --out, or remove it")
    (out / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")

    start = find_start(recipe.model) if state is None else None
    if start is not None and start.brings_vocabulary:
        start.tokenizer.save(out / "tokenizer")
    tokenizer = load_or_learn_tokenizer(recipe, material.labelled, out / "tokenizer")
    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    if start is not None:
        print(initialise(student, start, recipe.model), flush=True)
    streams, steps = open_streams(recipe, material, tokenizer, device)
    objective = build_objective(recipe, student, steps)
    validate = _validation(objective, tokenizer, material, recipe.run.validate_with) if material.valid else None
    watch = _watch(objective, tokenizer, material, recipe.run.watch_labels)
    trainer = Trainer(objective, recipe, steps, streams, checkpoints, validate, watch, device)
    if state is not None:
        trainer.restore(state)
        print(f"resuming at step {trainer.done} of {steps}", flush=True)
    print(describe(recipe, material, tokenizer, student, steps), flush=True)
    started = time.monotonic()
    with Monitor(out, recipe.run.log_every, steps, trainer.done) as monitor:
        trainer.fit(monitor)
    print(f"trained for {time.monotonic() - started:.0f} s", flush=True)
    model = _save(objective, tokenizer, recipe, material, steps, out)
    _save_best(checkpoints, tokenizer, recipe, model_card(recipe, material, steps), out)
    return model


def load_material(recipe: Recipe) -> Material:
    """Read the corpus and pick the clips of each stream; longer ones than `data.max_frames` are left out, and said."""
    data = recipe.data
    corpus = Corpus.load(Path(data.corpus))

    def pick(names: Sequence[str]) -> list[Utterance]:
        found = [utterance for name in names for utterance in corpus.split(name)]
        short = [utterance for utterance in found if utterance.frames <= data.max_frames]
        if len(short) < len(found):
            print(f"left out {len(found) - len(short)} clips of {', '.join(names)} over {data.max_frames} frames")
        return short

    labelled = pick(data.labelled)
    if not labelled:
        raise CorpusError(f"{corpus.root} has no labelled clips in {', '.join(data.labelled)}")
    silent = [utterance.id for utterance in labelled if utterance.text is None]
    if silent:
        raise CorpusError(f"{len(silent)} labelled clips of {corpus.root} have no transcript, first '{silent[0]}'")
    labelled_only = recipe.objective.kind == "supervised"
    unlabelled = [] if labelled_only else pick(data.unlabelled)
    if not unlabelled and not labelled_only:
        raise CorpusError(f"{corpus.root} has no unlabelled clips in {', '.join(data.unlabelled)}")
    valid = corpus.split(data.valid) if data.valid else []
    return Material(corpus, labelled, unlabelled, valid)


def load_or_learn_tokenizer(recipe: Recipe, labelled: Sequence[Utterance], folder: Path) -> Tokenizer:
    """The run's vocabulary: learnt from the labelled text alone, once, and kept beside the checkpoints."""
    if (folder / DESCRIPTION_FILE).is_file():
        return Tokenizer.load(folder)
    tokenizer = Tokenizer.train([utterance.text or "" for utterance in labelled], recipe.model.resolve().vocab_size)
    tokenizer.save(folder)
    return tokenizer


def open_streams(recipe: Recipe, material: Material, tokenizer: Tokenizer, device: str) -> tuple[Streams, int]:
    """The streams of clips, and the number of steps of the run."""
    data, run = recipe.data, recipe.run

    def sampler(utterances: Sequence[Utterance], max_frames: int, salt: int, start: int = 0) -> FrameBatchSampler:
        return FrameBatchSampler([u.frames for u in utterances], max_frames, 2 * run.seed + salt, start)

    def opener(
        utterances: Sequence[Utterance], max_frames: int, salt: int, reader: Tokenizer | None
    ) -> Callable[[int], Iterator[Batch]]:
        clips = TrainingClips(material.corpus, utterances, recipe.augment, reader, data.cache_mb * 1_000_000)
        return lambda start: stream(
            clips, sampler(utterances, max_frames, salt, start), data.workers, pin_memory=device.startswith("cuda")
        )

    labelled = opener(material.labelled, data.labelled_frames, 0, tokenizer)
    unlabelled = opener(material.unlabelled, data.unlabelled_frames, 1, None) if material.unlabelled else None
    if run.steps is not None:
        return Streams(labelled, unlabelled), run.steps
    assert run.epochs is not None, "a recipe gives steps or epochs"
    longest = (
        sampler(material.unlabelled, data.unlabelled_frames, 1)
        if material.unlabelled
        else sampler(material.labelled, data.labelled_frames, 0)
    )
    return Streams(labelled, unlabelled), max(1, round(run.epochs * longest.batches_per_epoch() / run.accumulate))


def build_objective(recipe: Recipe, student: USR, steps: int) -> Objective:
    """The objective that the recipe names."""
    if recipe.objective.kind == "supervised":
        return Supervised(student, recipe.objective)
    return USR2(student, recipe.objective, steps, recipe.run.seed)


def describe(recipe: Recipe, material: Material, tokenizer: Tokenizer, student: USR, steps: int) -> str:
    """What is about to be trained, in a line."""
    return (
        f"{recipe.objective.kind}: {recipe.model.size}, {student.num_parameters():,} parameters, "
        f"{tokenizer.vocab_size} tokens; {len(material.labelled)} labelled and {len(material.unlabelled)} unlabelled "
        f"clips of {material.corpus.root}; {steps} steps"
    )


def _validation(
    objective: Objective, tokenizer: Tokenizer, material: Material, methods: Sequence[str]
) -> Callable[[], Mapping[str, float]]:
    """WER of the student (and the teacher's, audiovisual) on the validation clips, by greedy decoding: `ctc/av`."""

    def word_error_rates() -> dict[str, float]:
        numbers: dict[str, float] = {}
        for prefix, model in (("", objective.student), ("teacher/", objective.teacher_model())):
            if model is None:
                continue
            modalities = tuple(Modality) if not prefix else (Modality.AUDIOVISUAL,)
            for method in methods:
                options = DecodingOptions(method=DecodingMethod(method))
                report = evaluate(
                    model, tokenizer, material.corpus, material.valid, modalities, options, max_frames=VALIDATION_FRAMES
                )
                numbers |= {f"{prefix}{method}/{result.modality.value}": result.wer or 0.0 for result in report.results}
        return numbers

    return word_error_rates


def _watch(
    objective: Objective, tokenizer: Tokenizer, material: Material, clips: int
) -> Callable[[], list[WatchedLabels]] | None:
    """The teacher's labels of `clips` unlabelled clips, spread over the split; None where nothing is labelled."""
    if not isinstance(objective, USR2) or not clips:
        return None
    every = max(1, len(material.unlabelled) // clips)
    watch = LabelWatch(material.corpus, material.unlabelled[::every][:clips], tokenizer, VALIDATION_FRAMES)
    return lambda: watch(objective.teacher)


def model_card(recipe: Recipe, material: Material, steps: int) -> ModelCard:
    """What the card of the trained model says of its training."""
    clips = [*material.labelled, *material.unlabelled]
    synthetic = all(utterance.source == "synthetic" for utterance in clips)
    hours = sum(utterance.frames for utterance in clips) / FRAME_RATE / 3600
    return ModelCard(
        title=f"seehear {recipe.model.size}, {recipe.objective.kind}",
        training_data=f"corpus {material.corpus.root.resolve().name} ({'synthetic' if synthetic else 'recordings'}): "
        f"{len(material.labelled)} labelled and {len(material.unlabelled)} unlabelled clips, {hours:.2f} hours in all",
        synthetic=synthetic,
        method=f"{recipe.objective.kind}, {steps} steps, seed {recipe.run.seed}",
        licence=recipe.licence,
    )


def validation_results(metrics: Sequence[Mapping[str, float]], clips: str, model: str = "") -> dict[str, str]:
    """The last validation among `metrics` in the words of a card; `model` is "teacher/" for the teacher's."""
    last = next((record for record in reversed(metrics) if any(key.startswith("valid/") for key in record)), {})
    return {
        f"{clips}; {modality.value.upper()}, greedy {method}": f"{last[key]:.1%} WER"
        for modality in Modality
        for method in DecodingMethod
        if (key := f"valid/{model}{method.value}/{modality.value}") in last
    }


def _save(
    objective: Objective, tokenizer: Tokenizer, recipe: Recipe, material: Material, steps: int, out: Path
) -> Path:
    """The student as a model folder, and the teacher beside it."""
    card, metrics = model_card(recipe, material, steps), read_metrics(out / METRICS_FILE)
    clips = f"{recipe.data.valid}, {len(material.valid)} clips"
    students = replace(card, results=validation_results(metrics, clips))
    save_model(out / "model", objective.student, tokenizer, students, recipe)
    teacher = objective.teacher_model()
    if teacher is not None:
        title, results = f"{card.title}, teacher", validation_results(metrics, clips, "teacher/")
        save_model(out / "teacher", teacher, tokenizer, replace(card, title=title, results=results), recipe)
    return out / "model"


def _save_best(checkpoints: Checkpoints, tokenizer: Tokenizer, recipe: Recipe, card: ModelCard, out: Path) -> None:
    """The student of the best validation as a third model folder."""
    state = checkpoints.load_best()
    if state is None:
        return
    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    student.load_state_dict(weights_of(state, "student"))
    title = f"{card.title}, best validation (step {state['step']})"
    save_model(out / "best", student, tokenizer, replace(card, title=title), recipe)


def _essence(recipe: Recipe) -> Recipe:
    """A recipe without what may change when a run goes on: how often it reports, how many processes read."""
    reporting = {
        "log_every": 1,
        "checkpoint_every": 1,
        "keep": 1,
        "validate_every": 0,
        "validate_with": (),
        "watch_labels": 0,
    }
    run = recipe.run.model_copy(update=reporting)
    data = recipe.data.model_copy(update={"workers": 0, "cache_mb": 0, "corpus": Path(recipe.data.corpus).name})
    return recipe.model_copy(update={"run": run, "data": data, "about": "", "licence": ""})
