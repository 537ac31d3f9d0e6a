"""Batch normalisation over the batches of all processes together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(_BatchNorm):
    """In training, normalises by the mean and variance over all processes; for devices that PyTorch's own refuses."""

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2, "channels are the second dimension"

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, …) to (B, C, …)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        others = [dim for dim in range(x.dim()) if dim != 1]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = summed(torch.cat([x.sum(others), count]))
        C, n = x.shape[1], sums[-1].detach()
        shape = [1, C, *[1] * (x.dim() - 2)]
        mean = sums[:C] / n
        deviations = (x - mean.view(shape)).square().sum(others)
        variance = summed(deviations) / n
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            momentum = self.momentum or 0.1
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * n / (n - 1), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale.view(shape) + shift.view(shape)
        return normalised.to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over processes; so is its gradient, since what each computes enters the loss of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, which passes gradients."""
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Replace each batch normalisation inside `module` by one over all processes, with the same parameters."""
    assert dist.is_initialized(), "there is more than one process"
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, _synced(child, device))
        else:
            synchronise(child, device)


def _synced(norm: _BatchNorm, device: torch.device) -> nn.Module:
    kind: Any = nn.SyncBatchNorm if device.type == "cuda" else SyncedBatchNorm
    synced: nn.Module = kind(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    synced.load_state_dict(norm.state_dict())
    synced.train(norm.training)
    synced.requires_grad_(norm.weight.requires_grad)
    return synced
