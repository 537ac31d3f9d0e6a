"""How an objective is spread over the processes of a run: copied to each (DDP), or its layers cut in pieces (FSDP2).

Either way a checkpoint holds whole tensors, so that a run may go on with another number of processes, or another way.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from seehear.modality import Modality
from seehear.objectives.base import Losses, Objective, StepBatch
from seehear.training.world import World

Kind = Literal["ddp", "fsdp"]


class Spread:
    """An objective on the processes of `world`: called like the objective, its gradients are means over processes."""

    def __init__(self, objective: Objective, world: World, kind: Kind) -> None:
        self.world = world
        self.objective = objective.to(world.device)
        self._call: Callable[[StepBatch, int], Losses] = self.objective
        self._whole: Objective | None = None
        self._streams: set[Modality] = set()
        """Of the batches since the running statistics were averaged."""
        if world.size > 1 and kind == "fsdp":
            self._whole = copy.deepcopy(objective).cpu()
            _shard(self.objective, world)
        elif world.size > 1:
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of convolutions over one position: no loss
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # newer versions call `broadcast_buffers` otherwise
                self._call = DistributedDataParallel(
                    self.objective,
                    broadcast_buffers=False,  # the running statistics are averaged after each step
                    find_unused_parameters=objective.rests_at_first(),
                )

    def __call__(self, batch: StepBatch, step: int) -> Losses:
        """The losses of this process's clips."""
        self._streams |= {part.streams for part in batch.parts}
        return self._call(batch, step)

    def gradients_stay_here(self) -> AbstractContextManager[None]:
        """Within it `backward` adds to the gradients of this process; the next one outside it takes the mean."""
        if isinstance(self._call, DistributedDataParallel):
            return self._call.no_sync()
        if self._whole is not None:
            return _unsynced(self.objective)
        return contextlib.nullcontext()

    def average_statistics(self) -> None:
        """The running statistics of the student become their mean over processes.

        Those of a frontend that has seen no clips since the last time stay as they are.
        """
        student = self.objective.student
        idle: list[nn.Module] = []
        if not any(streams.uses_video for streams in self._streams):
            idle.append(student.video_frontend)
        if not any(streams.uses_audio for streams in self._streams):
            idle.append(student.audio_frontend)
        unchanged = {buffer for frontend in idle for buffer in frontend.buffers()}
        self.world.average_([b for b in student.buffers() if b.is_floating_point() and b not in unchanged])
        self._streams.clear()

    def whole(self) -> Objective:
        """The objective with whole tensors, to be evaluated or saved: itself, or a copy where it is cut in pieces."""
        if self._whole is None:
            return self.objective
        self._whole.load_state_dict({name: _joined(tensor) for name, tensor in self.objective.state_dict().items()})
        return self._whole.to(self.world.device).train()

    def release(self) -> None:
        """Take a copy that `whole` has made off the device."""
        if self._whole is not None:
            self._whole.cpu()

    def state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole tensors of objective and optimiser, on the CPU; every process has to ask, the first gets them."""

        def fetched(tensor: Tensor) -> Tensor:
            whole = _joined(tensor)
            return whole.cpu() if self.world.leads else whole.new_empty(0)

        return {
            "objective": {name: fetched(tensor) for name, tensor in self.objective.state_dict().items()},
            "optimiser": _map(optimiser.state_dict(), fetched),
        }

    def restore(self, state: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> None:
        """Go on from what `state` returned."""
        mine = self.objective.state_dict()
        self.objective.load_state_dict({name: _like(tensor, mine[name]) for name, tensor in state["objective"].items()})
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        saved = dict(state["optimiser"])
        saved["state"] = {
            index: {name: _like(value, parameters[index]) for name, value in values.items()}
            for index, values in saved["state"].items()
        }
        optimiser.load_state_dict(saved)


def _shard(objective: Objective, world: World) -> None:
    """Cut all parameters over the processes. Those of an encoder block are gathered when it runs, others once a step.

    The decoders are among the others: the teacher calls its own for each token.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    teacher = objective.teacher_model()
    for model in (objective.student, teacher):
        for block in model.encoder.layers if model is not None else ():
            fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


@contextlib.contextmanager
def _unsynced(objective: nn.Module) -> Any:
    objective.set_requires_gradient_sync(False)  # type: ignore[operator]
    try:
        yield
    finally:
        objective.set_requires_gradient_sync(True)  # type: ignore[operator]


def _joined(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be cut in pieces."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Any, model: Tensor) -> Any:
    """`tensor`, cut as `model` is; what has another shape (a step count) is left whole."""
    if not isinstance(model, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != model.shape:
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value`, a nest of dicts and lists, with its tensors changed."""
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map(item, change) for item in value]
    return change(value) if isinstance(value, Tensor) else value
