"""What an objective is: a step's clips go in, named losses come out; the trainer knows nothing else of the method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seehear.data.batch import Batch
from seehear.modality import Modality
from seehear.model.usr import USR


class Losses(NamedTuple):
    """What a step costs, and of what that is made."""

    total: Tensor
    """Scalar with a gradient."""
    parts: dict[str, Tensor]
    """Detached scalars: losses such as "v/ctc/labelled", and what is worth watching, such as "teacher/confidence"."""


@dataclass(frozen=True)
class StepBatch:
    """The clips of one step; a stream that the objective does not use is None."""

    labelled: Batch
    unlabelled: Batch | None = None

    def to(self, device: torch.device | str) -> "StepBatch":
        """The same clips on `device`."""
        return StepBatch(self.labelled.to(device), self.unlabelled.to(device) if self.unlabelled else None)

    @property
    def parts(self) -> tuple[Batch, ...]:
        """The batches of the streams that are used."""
        return (self.labelled, self.unlabelled) if self.unlabelled else (self.labelled,)

    @property
    def ids(self) -> tuple[str, ...]:
        """The clips of the step."""
        return tuple(id for part in self.parts for id in part.ids)

    @property
    def num_frames(self) -> int:
        """Video frames of the step, padding not counted."""
        return sum(int(part.lengths.sum()) for part in self.parts)


class Objective(nn.Module):
    """A module that holds the student, and whatever else training needs and a shipped model does not."""

    student: USR

    def forward(self, batch: StepBatch, step: int) -> Losses:
        """The losses of step `step`, counted from 0."""
        raise NotImplementedError

    def reaching_all(self, total: Tensor, batch: StepBatch) -> Tensor:
        """`total` of a step, with a gradient of 0 for what only clips of other streams use.

        All processes then have gradients for the same parameters, and these do not depend on how the run is spread:
        the optimiser moves a frontend or a head that a step does not use as it does for a gradient of 0. Encoder and
        decoder are used by all clips; the rest is added where clips lack a stream.
        """
        if all(part.streams is Modality.AUDIOVISUAL for part in batch.parts):
            return total
        shared = {*self.student.encoder.parameters(), *self.student.decoder.parameters()}
        others = [p for p in self.parameters() if p.requires_grad and p not in shared]
        return total + 0.0 * sum((parameter.sum() for parameter in others), start=total.new_zeros(()))

    def needs_unlabelled(self, step: int) -> bool:
        """Whether step `step` uses the unlabelled stream."""
        return False

    def rests_at_first(self) -> bool:
        """Whether some parameters do not learn from the first step on."""
        return False

    def after_step(self, step: int) -> None:
        """Called once the optimiser has made step `step`."""

    def after_refusal(self, step: int) -> None:
        """Called in place of `after_step` when step `step` has been refused."""

    def warnings(self, numbers: Mapping[str, float]) -> list[str]:
        """What a person should hear about, given the numbers of a step."""
        return []

    def teacher_model(self) -> USR | None:
        """The teacher, to be evaluated and saved beside the student; None where there is none."""
        return None
