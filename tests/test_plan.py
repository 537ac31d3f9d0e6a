"""The plan of a run counts the memory that a real pass keeps, and its arithmetic."""

import torch
from torch import Tensor, nn

from seehear.config import SIZES
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.training.plan import activations, operations


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


def test_operations_are_those_of_a_real_pass() -> None:
    """Counted by hand where it is easy: two for each weight and output of each linear layer and convolution, and twice
    as much again for the gradients, of which the first layers lack the one of what they are given. Attention's products
    and the like come on top: a few per cent at this length."""
    config = SIZES["tiny"].model_copy(update={"vocab_size": 20})
    model = USR(config).eval()
    video, audio, mask = torch.randn(2, 10, 88, 88), torch.randn(2, 6400), torch.ones(2, 10, dtype=torch.bool)
    forward: list[int] = []
    gradients: list[int] = []

    def count(layer: nn.Module, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
        forward.append(2 * output.numel() // layer.weight.shape[0] * layer.weight.numel())
        gradients.append(forward[-1] * (1 if layer in stems else 2))

    stems = (model.video_frontend.stem, model.audio_frontend.stem)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.register_forward_hook(lambda layer, _, output: count(layer, output))
    # this stem is called as a function; its norm sees what it gives
    model.video_frontend.stem_norm.register_forward_hook(lambda _, given, __: count(stems[0], given[0]))
    model.encode(video, audio, mask)
    by_hand = sum(forward) + sum(gradients)
    assert by_hand < operations(config, 2, 10, teacher=False) < 1.1 * by_hand
    forward.clear()
    model.encode(video, audio, mask, [Modality.AUDIOVISUAL])
    teacher = operations(config, 2, 10, teacher=True) - operations(config, 2, 10, teacher=False)
    assert sum(forward) < teacher < 1.1 * sum(forward)
