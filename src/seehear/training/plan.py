"""What a run would do, before it does it: sizes, steps, the first batch, about how much memory and arithmetic."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from seehear.config import ModelConfig
from seehear.data.batch import Batch
from seehear.data.corpus import Utterance
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective, StepBatch
from seehear.recipe import Recipe
from seehear.tokenizer import Tokenizer
from seehear.training.material import Material, describe_streams, open_streams
from seehear.training.world import World

FLOAT = 4
"""Bytes of a float32."""
LEARNT = 4 * FLOAT
"""Bytes for a parameter that learns: itself, its gradient, two moments of Adam."""
Shape = tuple[int, int, Modality]
"""Of a batch: clips, frames of each, and what they have."""


def plan(recipe: Recipe, material: Material, tokenizer: Tokenizer, objective: Objective, world: World) -> str:
    """The plan of a run, as text. `objective` has been made but not trained; the first batch of each stream is read."""
    streams, steps = open_streams(recipe, material, tokenizer, world)
    batch = streams.next(bool(material.unlabelled))
    streams.close()
    student = objective.student
    counts = f"clips: {len(material.labelled)} labelled, {len(material.unlabelled)} unlabelled"
    lines = [recipe.to_toml(), counts + describe_streams(material)]
    lines.append(f"vocabulary: {tokenizer.vocab_size} tokens, normal form {tokenizer.normaliser.name}")
    lines.append(f"parameters of the student: {student.num_parameters():,}")
    for name, part in student.named_children():
        lines.append(f"  {name}: {sum(parameter.numel() for parameter in part.parameters()):,}")
    lines.append(f"steps: {steps:,}{_per_epoch(recipe, material, tokenizer, world)}, {world.size} processes")
    lines += [f"first {name} batch: {_shapes(part)}" for name, part in _parts(batch)]
    mixed = len({clip.streams for clip in (*material.labelled, *material.unlabelled)}) > 1
    full = " (for batches of the clips with most streams)" if mixed else ""
    kinds = [costliest(clips) for clips in (material.labelled, material.unlabelled) if clips]
    shapes = [(len(part.ids), part.padded_length, kind) for (_, part), kind in zip(_parts(batch), kinds, strict=True)]
    lines.append(f"memory of a process, about: {_memory(recipe, objective, shapes, world)}{full}")
    work = [operations(student.config, *shape, teacher=number > 0) for number, shape in enumerate(shapes)]
    lines.append(f"arithmetic of a step of a process, about: {sum(work) / 1e12:.1f} TFLOP{full}")
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
    tensors = {"video": batch.video, "audio": batch.audio, "tokens": batch.tokens}
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items() if tensor is not None)


def costliest(clips: Sequence[Utterance]) -> Modality:
    """The streams of those clips of which a batch takes most memory and arithmetic."""
    return max((clip.streams for clip in clips), key=list(Modality).index)


def _memory(recipe: Recipe, objective: Objective, shapes: Sequence[Shape], world: World) -> str:
    """Weights with what Adam keeps of them, and activations that wait for the gradient."""
    learnt = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    fixed = sum(parameter.numel() for parameter in objective.parameters()) - learnt
    weights = LEARNT * learnt + FLOAT * fixed
    if recipe.run.parallel == "fsdp":
        weights //= world.size
    config = objective.student.config
    bf16, recompute = recipe.run.precision == "bf16", recipe.run.recompute
    kept = sum(activations(config, *shape, bf16=bf16, recompute=recompute) for shape in shapes)
    gib = [amount / 2**30 for amount in (weights + kept, weights, kept)]
    return "{:.1f} GiB, of which weights and optimiser {:.1f}, activations {:.1f}".format(*gib)


def activations(
    config: ModelConfig,
    clips: int,
    frames: int,
    streams: Modality = Modality.AUDIOVISUAL,
    *,
    bf16: bool = False,
    recompute: bool = False,
) -> int:
    """Bytes that a forward pass of all modalities of clips with `streams` keeps for the gradient, without computing it.

    The frontends and the encoder; the decoder's few tokens are left out.
    """
    kept: dict[int, int] = {}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model = USR(config).train()
        model.encoder.recompute = recompute
        given = _inputs(clips, frames)
        with _counted(kept):
            model.encode(*given, streams.readable)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(size for key, size in kept.items() if key not in weights)


def operations(
    config: ModelConfig, clips: int, frames: int, streams: Modality = Modality.AUDIOVISUAL, *, teacher: bool
) -> int:
    """Floating-point operations on a batch in a training step: the student's pass of all modalities and its gradient,
    and with `teacher` the teacher's pass of all `streams`. Frontends and encoder, as in `activations`.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = USR(config).train()
        given = _inputs(clips, frames)
        features = model.encode(*given, streams.readable)
        torch.stack([each.sum() for each in features.values()]).sum().backward()  # type: ignore[no-untyped-call]
        if teacher:
            with torch.no_grad():
                model.encode(*given, [streams])
    return int(counter.get_total_flops())


def _inputs(clips: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Video, audio and mask of a batch, without values."""
    video = torch.empty(clips, frames, INPUT_SIZE, INPUT_SIZE)
    return video, torch.empty(clips, frames * SAMPLES_PER_FRAME), torch.empty(clips, frames, dtype=torch.bool)


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
