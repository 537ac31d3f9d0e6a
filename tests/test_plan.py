"""The plan of a run counts the memory that a real pass keeps."""

import torch
from torch import Tensor

from seehear.config import SIZES
from seehear.model.usr import USR
from seehear.training.plan import activations


def test_activations_are_those_of_a_real_pass() -> None:
    config = SIZES["tiny"].model_copy(update={"vocab_size": 20})
    model = USR(config).train()
    video, audio, mask = torch.randn(2, 10, 88, 88), torch.randn(2, 6400), torch.ones(2, 10, dtype=torch.bool)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.encode(video, audio, mask)
    real = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in parameters)
    assert abs(activations(config, 2, 10) / real - 1) < 0.05
    assert activations(config, 2, 10, recompute=True) < activations(config, 2, 10)
    assert activations(config, 2, 10, bf16=True) < 0.75 * activations(config, 2, 10)
