"""What a run would do, before it does it: sizes, steps, the first batch, about how much memory and arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from seehear.config import ModelConfig
from seehear.data.batch import Batch
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective, StepBatch
from seehear.recipe import Recipe
from seehear.tokenizer import Tokenizer
from seehear.training.material import Material, open_streams
from seehear.training.world import World

FLOAT = 4
"""Bytes of a float32."""
LEARNT = 4 * FLOAT
"""Bytes for a parameter that learns: itself, its gradient, two moments of Adam."""


def plan(recipe: Recipe, material: Material, tokenizer: Tokenizer, objective: Objective, world: World) -> str:
    """The plan of a run, as text. `objective` has been made but not trained; the first batch of each stream is read."""
    streams, steps = open_streams(recipe, material, tokenizer, world)
    batch = streams.next(bool(material.unlabelled))
    streams.close()
    student = objective.student
    lines = [recipe.to_toml(), f"clips: {len(material.labelled)} labelled, {len(material.unlabelled)} unlabelled"]
    lines.append(f"vocabulary: {tokenizer.vocab_size} tokens, normal form {tokenizer.normaliser.name}")
    lines.append(f"parameters of the student: {student.num_parameters():,}")
    for name, part in student.named_children():
        lines.append(f"  {name}: {sum(parameter.numel() for parameter in part.parameters()):,}")
    lines.append(f"steps: {steps:,}{_per_epoch(recipe, material, tokenizer, world)}, {world.size} processes")
    lines += [f"first {name} batch: {_shapes(part)}" for name, part in _parts(batch)]
    lines.append(f"memory of a process, about: {_memory(recipe, objective, batch, world)}")
    work = [
        operations(student.config, *part.video.shape[:2], teacher=part is batch.unlabelled) for _, part in _parts(batch)
    ]
    lines.append(f"arithmetic of a step of a process, about: {sum(work) / 1e12:.1f} TFLOP")
    return "\n".join(lines)


def _per_epoch(recipe: Recipe, material: Material, tokenizer: Tokenizer, world: World) -> str:
    """How many steps make an epoch of the longer stream."""
    one = recipe.run.model_copy(update={"steps": None, "epochs": 1.0})
    _, steps = open_streams(recipe.model_copy(update={"run": one}), material, tokenizer, world)
    return f" ({steps:,} an epoch of {'unlabelled' if material.unlabelled else 'labelled'} clips)"


def _parts(batch: StepBatch) -> list[tuple[str, Batch]]:
    return [("labelled", batch.labelled)] + ([("unlabelled", batch.unlabelled)] if batch.unlabelled else [])


def _shapes(batch: Batch) -> str:
    """The tensors of a batch that enter the model."""
    shapes = {"video": batch.video.shape, "audio": batch.audio.shape}
    if batch.tokens is not None:
        shapes["tokens"] = batch.tokens.shape
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def _memory(recipe: Recipe, objective: Objective, batch: StepBatch, world: World) -> str:
    """Weights with what Adam keeps of them, and activations that wait for the gradient."""
    learnt = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    fixed = sum(parameter.numel() for parameter in objective.parameters()) - learnt
    weights = LEARNT * learnt + FLOAT * fixed
    if recipe.run.parallel == "fsdp":
        weights //= world.size
    config = objective.student.config
    shapes = [part.video.shape[:2] for _, part in _parts(batch)]
    how = {"bf16": recipe.run.precision == "bf16", "recompute": recipe.run.recompute}
    kept = sum(activations(config, clips, frames, **how) for clips, frames in shapes)
    gib = [amount / 2**30 for amount in (weights + kept, weights, kept)]
    return "{:.1f} GiB, of which weights and optimiser {:.1f}, activations {:.1f}".format(*gib)


def activations(config: ModelConfig, clips: int, frames: int, *, bf16: bool = False, recompute: bool = False) -> int:
    """Bytes that a forward pass of all three modalities keeps for the gradient, without computing it.

    The frontends and the encoder; the decoder's few tokens are left out.
    """
    kept: dict[int, int] = {}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model = USR(config).train()
        model.encoder.recompute = recompute
        video = torch.empty(clips, frames, INPUT_SIZE, INPUT_SIZE)
        audio = torch.empty(clips, frames * SAMPLES_PER_FRAME)
        mask = torch.empty(clips, frames, dtype=torch.bool)
        with _counted(kept):
            model.encode(video, audio, mask)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(size for key, size in kept.items() if key not in weights)


def operations(config: ModelConfig, clips: int, frames: int, *, teacher: bool) -> int:
    """Floating-point operations on a batch in a training step: the student's pass of all three modalities and its
    gradient, and with `teacher` the teacher's audiovisual pass. Frontends and encoder, as in `activations`.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = USR(config).train()
        given = (torch.empty(clips, frames, INPUT_SIZE, INPUT_SIZE), torch.empty(clips, frames * SAMPLES_PER_FRAME))
        mask = torch.empty(clips, frames, dtype=torch.bool)
        torch.stack([features.sum() for features in model.encode(*given, mask).values()]).sum().backward()  # type: ignore[no-untyped-call]
        if teacher:
            with torch.no_grad():
                model.encode(*given, mask, [Modality.AUDIOVISUAL])
    return int(counter.get_total_flops())


@contextmanager
def _counted(kept: dict[int, int]) -> Iterator[None]:
    """Remember the size of each piece of memory that is kept for a gradient, once."""
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # else another could get its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
