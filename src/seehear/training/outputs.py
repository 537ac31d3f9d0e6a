"""What a run leaves: model folders of the student, its teacher and the best validation, with their cards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seehear.card import ModelCard
from seehear.checkpoint import save_model
from seehear.data.corpus import Utterance
from seehear.decoding.options import DecodingMethod
from seehear.modality import FRAME_RATE, Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective
from seehear.recipe import Recipe
from seehear.tokenizer import Tokenizer
from seehear.training.checkpoints import Checkpoints, weights_of
from seehear.training.material import Material, describe_streams
from seehear.training.monitor import METRICS_FILE, read_metrics


def model_card(recipe: Recipe, material: Material, steps: int) -> ModelCard:
    """What the card of the trained model says of its training."""
    clips = [*material.labelled, *material.unlabelled]
    synthetic = all(utterance.source == "synthetic" for utterance in clips)
    hours = sum(utterance.frames for utterance in clips) / FRAME_RATE / 3600
    return ModelCard(
        title=f"seehear {recipe.model.size}, {recipe.objective.kind}",
        training_data=f"corpus {material.corpus.root.resolve().name} ({'synthetic' if synthetic else 'recordings'}): "
        f"{len(material.labelled)} labelled and {len(material.unlabelled)} unlabelled clips"
        f"{describe_streams(material)}, {hours:.2f} hours in all",
        synthetic=synthetic,
        method=f"{recipe.objective.kind}, {steps} steps, seed {recipe.run.seed}{_start(recipe)}",
        licence=recipe.licence,
    )


def _start(recipe: Recipe) -> str:
    """Where the weights came from, in words."""
    return f"; started from the {recipe.model.init_part} of {recipe.model.init}" if recipe.model.init else ""


def validation_results(
    metrics: Sequence[Mapping[str, float]], split: str, clips: Sequence[Utterance], model: str = ""
) -> dict[str, str]:
    """The last validation among `metrics`, on the `clips` of `split`, in the words of a card.

    `model` is "teacher/" for the teacher's.
    """
    last = next((record for record in reversed(metrics) if any(key.startswith("valid/") for key in record)), {})
    return {
        f"{split}, {sum(modality in clip.streams.readable for clip in clips)} clips; {modality.value.upper()}, "
        f"greedy {method}": f"{last[key]:.1%} WER"
        for modality in Modality
        for method in DecodingMethod
        if (key := f"valid/{model}{method.value}/{modality.value}") in last
    }


def save_models(
    objective: Objective, tokenizer: Tokenizer, recipe: Recipe, material: Material, steps: int, out: Path
) -> Path:
    """The student as a model folder, and the teacher beside it."""
    card, metrics = model_card(recipe, material, steps), read_metrics(out / METRICS_FILE)
    split, clips = str(recipe.data.valid), material.valid
    students = replace(card, results=validation_results(metrics, split, clips))
    save_model(out / "model", objective.student, tokenizer, students, recipe)
    teacher = objective.teacher_model()
    if teacher is not None:
        title, results = f"{card.title}, teacher", validation_results(metrics, split, clips, "teacher/")
        save_model(out / "teacher", teacher, tokenizer, replace(card, title=title, results=results), recipe)
    return out / "model"


def save_best(checkpoints: Checkpoints, tokenizer: Tokenizer, recipe: Recipe, card: ModelCard, out: Path) -> None:
    """The student of the best validation as a third model folder."""
    state = checkpoints.load_best()
    if state is None:
        return
    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    student.load_state_dict(weights_of(state, "student"))
    title = f"{card.title}, best validation (step {state['step']})"
    save_model(out / "best", student, tokenizer, replace(card, title=title), recipe)
