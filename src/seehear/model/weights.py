"""How weights are stored: in half precision if wanted, and without start values where they come from a file.

Layers compute with numbers of the type of their input. Weights of another type are converted when they are used, a
layer at a time; under autocast PyTorch does that. So weights in half precision need half the memory and give what the
same numbers in float32 give.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def in_type_of(x: Tensor, weight: Tensor) -> Tensor:
    """`weight` in the type of `x`; as it is under autocast, which chooses the type itself."""
    return weight if torch.is_autocast_enabled(x.device.type) else weight.to(x.dtype)


def stored_type(weight: Tensor, half: torch.dtype | None) -> torch.dtype:
    """The type in which to store a tensor: `half` for matrices and kernels, float32 without `half` and for vectors.

    Vectors are biases, normalisations with their running statistics, and γ: a thousandth of a model, and what has to be
    exact. A matrix with numbers that `half` cannot hold (float16 ends at 65,504) stays float32 too. Integers stay.
    """
    if not weight.is_floating_point():
        return weight.dtype
    if half is None or weight.dim() < 2:
        return torch.float32
    if weight.dtype == half:
        return half
    low, high = torch.aminmax(weight)
    return half if max(-low.item(), high.item()) <= torch.finfo(half).max else torch.float32


class Linear(nn.Linear):
    """`nn.Linear` whose matrix may have another type than its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return F.linear(x, in_type_of(x, self.weight), self.bias)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` whose kernel may have another type than its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self._conv_forward(x, in_type_of(x, self.weight), self.bias)  # type: ignore[no-any-return]


class WithoutStartValues(TorchFunctionMode):
    """Build a module whose weights are about to be replaced: memory is not touched, no random numbers are drawn.

    (The `meta` device does the same, and imports PyTorch's compiler, which takes longer than loading a small model.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave out what fills a tensor at random."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
