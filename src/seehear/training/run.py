"""A run from its recipe: clips, vocabulary, model, objective and trainer put together; model folders come out."""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.devices import describe_choice, find_device
from seehear.errors import ConfigError
from seehear.evaluate import evaluate
from seehear.files import refuse_foreign
from seehear.metrics import total
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective
from seehear.objectives.supervised import Supervised
from seehear.objectives.usr2 import USR2
from seehear.recipe import Recipe, parse_recipe
from seehear.tokenizer import UNKNOWN_ID, Tokenizer
from seehear.training.batchnorm import synchronise
from seehear.training.checkpoints import Checkpoints
from seehear.training.initialise import Start, find_start, initialise
from seehear.training.material import Material, describe_streams, learn_tokenizer, load_material, open_streams
from seehear.training.monitor import Monitor, OnStep, Silence
from seehear.training.optim import part_of
from seehear.training.outputs import model_card, save_best, save_models
from seehear.training.plan import plan
from seehear.training.precision import find_precision, with_precision
from seehear.training.trainer import Trainer
from seehear.training.watch import LabelWatch, WatchedLabels
from seehear.training.world import World

VALIDATION_FRAMES = 2400
"""Frames in a batch of a validation."""
AUTO = "a new run with run.precision=auto"
"""What leaves the precision to the device."""
FOLDERS = ("tokenizer", "checkpoints", "tensorboard", "model", "teacher", "best", "evaluation")
"""What lies in the folder of a run; logs may lie there too."""


def train_recipe(recipe: Recipe, out: Path, device: str = "cpu", on_step: OnStep | None = None) -> Path:
    """Train as `recipe` says, into the folder `out`; return the folder of the trained model, `out/model`.

    A run that was interrupted goes on from its last checkpoint. `on_step` is told the number of each step and its
    numbers by name. Raises `ConfigError` if `out` holds another run, and `CorpusError` if the corpus lacks what the
    recipe names.
    """
    with World.start(device, recipe.run.time_limit) as world:
        return _train(recipe, out, world, device, on_step)


def plan_recipe(recipe: Recipe, device: str = "cpu", out: Path | None = None) -> str:
    """What `train_recipe` would do, in words; nothing is written. Raises what it would raise.

    For as many processes as WORLD_SIZE says, which need not be there. With the folder `out` it says what would be done
    there, where a run may have begun.
    """
    given = os.environ.get("WORLD_SIZE", "")
    alone = World(find_device(device))
    world = World(alone.device, size=int(given) if given.isdecimal() and int(given) else 1)
    state = find_state(Checkpoints(out / "checkpoints", recipe.run.keep), recipe, out, world) if out else None
    precision = find_precision(recipe, _recipe_of(state), alone.device)
    recipe = with_precision(recipe, precision)
    material = load_material(recipe, world.tell)
    if state is not None and out is not None:
        tokenizer = Tokenizer.load(out / "tokenizer")
    else:
        tokenizer = find_tokenizer(recipe, material, find_start(recipe.model), world)
    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    objective = build_objective(recipe, student, steps=1)
    prepare_model(objective, recipe, alone)
    chosen = describe_choice(device, alone.device, precision, AUTO)
    if state is not None:
        chosen.append(f"goes on from step {state['step']} of the run in {out}")
    return "\n".join([*chosen, plan(recipe, material, tokenizer, objective, world)])


def _train(recipe: Recipe, out: Path, world: World, device: str, on_step: OnStep | None) -> Path:
    """What each process of a run does."""
    checkpoints = Checkpoints(out / "checkpoints", recipe.run.keep)
    state = find_state(checkpoints, recipe, out, world)
    precision = world.decide(lambda: find_precision(recipe, _recipe_of(state), world.device))
    recipe = with_precision(recipe, precision)
    material = load_material(recipe, world.tell)
    torch.manual_seed(recipe.run.seed)  # the same weights everywhere
    start = find_start(recipe.model) if state is None else None
    if world.leads:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        if state is None:
            find_tokenizer(recipe, material, start, world).save(out / "tokenizer")
    world.barrier()
    tokenizer = Tokenizer.load(out / "tokenizer")
    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    if start is not None:
        world.tell(initialise(student, start, recipe.model))
    streams, steps = open_streams(recipe, material, tokenizer, world)
    steps = steps if state is None else state.get("steps", steps)  # on more processes an epoch has fewer
    objective = build_objective(recipe, student, steps)
    prepare_model(objective, recipe, world)
    world.tell("\n".join(describe_choice(device, world.device, precision, AUTO)))
    world.tell(describe(recipe, material, tokenizer, student, steps, world))
    validate = _validation(tokenizer, material, recipe.run.validate_with, world) if material.valid else None
    watch = _watch(tokenizer, material, recipe) if material.unlabelled else None
    trainer = Trainer(objective, recipe, steps, streams, checkpoints, validate, watch, world)
    if world.size > 1:
        torch.manual_seed(recipe.run.seed + 1 + world.rank)  # other dropout on each
    if state is not None:
        trainer.restore(state)
        world.tell(f"resuming at step {trainer.done} of {steps}")
    started = time.monotonic()
    with Monitor(out, recipe.run.log_every, steps, trainer.done, on_step) if world.leads else Silence() as monitor:
        trainer.fit(monitor)
    world.tell(f"trained for {time.monotonic() - started:.0f} s")
    whole = trainer.spread.whole()
    if world.leads:
        save_models(whole, tokenizer, recipe, material, steps, out)
        save_best(checkpoints, tokenizer, recipe, model_card(recipe, material, steps), out)
    world.barrier()
    world.tell(f"model: {out / 'model'}")
    return out / "model"


def find_state(checkpoints: Checkpoints, recipe: Recipe, out: Path, world: World) -> dict[str, Any] | None:
    """What the run in the folder `out` goes on from; None if none has begun there.

    Raises `ConfigError` if `out` holds something else, or a run of another recipe.
    """
    state = checkpoints.load_last()
    if state is None:
        refuse_foreign(out, FOLDERS)
    else:
        _check_same_run(state, recipe, out, world)
    return state


def _recipe_of(state: Mapping[str, Any] | None) -> Recipe | None:
    """That of the run of a checkpoint, if there is one."""
    return None if state is None else parse_recipe(state["recipe"])


def find_tokenizer(recipe: Recipe, material: Material, start: Start | None, world: World) -> Tokenizer:
    """The vocabulary of the model that the run starts from, if it brings one, or that of the labelled text."""
    if start is None or start.tokenizer is None or not start.brings_vocabulary:
        return learn_tokenizer(recipe, material.labelled)
    odd = [clip.text for clip in material.labelled if UNKNOWN_ID in start.tokenizer.encode(clip.text or "")]
    if odd:
        world.tell(
            f"warning: the vocabulary of {start.source} lacks characters of {len(odd)} labelled clips, first of "
            f"'{odd[0]}'; model.init_vocabulary=false learns one from this text"
        )
    return start.tokenizer


def build_objective(recipe: Recipe, student: USR, steps: int) -> Objective:
    """The objective that the recipe names."""
    if recipe.objective.kind == "supervised":
        return Supervised(student, recipe.objective)
    return USR2(student, recipe.objective, steps, recipe.run.seed)


def prepare_model(objective: Objective, recipe: Recipe, world: World) -> None:
    """What a run sets about its models: what is frozen, how they normalise, whether they keep what they compute."""
    for name in recipe.optimiser.frozen:
        part_of(objective.student, name).requires_grad_(False)
    if recipe.run.batchnorm == "synced" and world.size > 1:
        synchronise(objective, world.device)
    objective.student.encoder.recompute = objective.student.decoder.recompute = recipe.run.recompute
    if recipe.run.compile:
        compile_blocks(objective)


def compile_blocks(objective: Objective) -> None:
    """Have the blocks compiled when they first run in training, for all shapes at once.

    But not the teacher's decoder: token by token it would meet a new case with each.
    """
    teacher = objective.teacher_model()
    encoders = [model.encoder for model in (objective.student, teacher) if model is not None]
    for block in itertools.chain(*(encoder.layers for encoder in encoders), objective.student.decoder.layers):
        block.compile(dynamic=True)


def describe(recipe: Recipe, material: Material, tokenizer: Tokenizer, student: USR, steps: int, world: World) -> str:
    """What is about to be trained, in a line."""
    processes = f" on {world.size} processes ({recipe.run.parallel})" if world.size > 1 else ""
    return (
        f"{recipe.objective.kind}: {recipe.model.size}, {student.num_parameters():,} parameters, "
        f"{tokenizer.vocab_size} tokens; {len(material.labelled)} labelled and {len(material.unlabelled)} unlabelled "
        f"clips{describe_streams(material)} of {material.corpus.root}; {steps} steps{processes}"
    )


def _validation(
    tokenizer: Tokenizer, material: Material, methods: Sequence[str], world: World
) -> Callable[[Objective], Mapping[str, float]]:
    """WER of the student (and of the teacher, from all that a clip has) on the validation clips, by greedy decoding:
    `ctc/av`.

    In the modalities that the clips' streams allow. Each process decodes a part of the clips.
    """
    mine = material.valid[world.rank :: world.size]
    streams = {utterance.streams for utterance in material.valid}

    def word_error_rates(objective: Objective) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for prefix, model in (("", objective.student), ("teacher/", objective.teacher_model())):
            if model is None:
                continue
            allowed = {m for kind in streams for m in kind.readable} if not prefix else streams
            modalities = [modality for modality in Modality if modality in allowed]
            decodable = [clip for clip in mine if set(clip.streams.readable) & allowed]
            for method in methods:
                options = DecodingOptions(method=DecodingMethod(method))
                report = (
                    evaluate(
                        model,
                        tokenizer,
                        material.corpus,
                        decodable,
                        modalities,
                        options,
                        max_frames=VALIDATION_FRAMES,
                    )
                    if decodable
                    else None
                )
                for modality in modalities:
                    counts = world.gather([record.words for record in report[modality].records] if report else [])
                    numbers[f"{prefix}{method}/{modality.value}"] = total(counts).rate or 0.0
        return numbers

    return word_error_rates


def _watch(tokenizer: Tokenizer, material: Material, recipe: Recipe) -> Callable[[Objective], list[WatchedLabels]]:
    """The teacher's labels of some unlabelled clips, spread over the split."""
    clips = recipe.run.watch_labels
    every = max(1, len(material.unlabelled) // max(1, clips))
    watch = LabelWatch(material.corpus, material.unlabelled[::every][:clips], tokenizer, VALIDATION_FRAMES)
    return lambda objective: watch(objective.teacher) if isinstance(objective, USR2) else []


def _check_same_run(state: Mapping[str, Any], recipe: Recipe, out: Path, world: World) -> None:
    """Raise `ConfigError` if the checkpoint is of another recipe; say so if a step now holds more or fewer batches."""
    saved = parse_recipe(state["recipe"])
    if _essence(saved) != _essence(recipe):
        raise ConfigError(f"{out} holds a run of another recipe: choose another --out, or remove it")
    before, now = saved.run.accumulate * len(state["random"]), recipe.run.accumulate * world.size
    if before != now:
        world.tell(f"warning: a step had {before} batches and now has {now}; see run.accumulate")


def _essence(recipe: Recipe) -> Recipe:
    """A recipe without what may change when a run goes on: what it reports, how it is spread over machines, and what
    helps a run that has become unstable."""
    reporting = {"log_every": 1, "checkpoint_every": 1, "keep": 1, "validate_every": 0, "validate_with": ()}
    spread = {"accumulate": 1, "parallel": "ddp", "recompute": False, "time_limit": 1.0}
    spread |= {"precision": "float32", "compile": False}
    run = recipe.run.model_copy(update={**reporting, "watch_labels": 0, **spread})
    optimiser = recipe.optimiser.model_copy(update={"peak_lr": 1.0, "final_lr": 0.0})
    data = recipe.data.model_copy(update={"workers": 0, "cache_mb": 0, "corpus": Path(recipe.data.corpus).name})
    return recipe.model_copy(update={"run": run, "data": data, "optimiser": optimiser, "about": "", "licence": ""})
