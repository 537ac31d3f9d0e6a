"""A device that is not there: tensors that compute on the CPU, and say that they lie on another device.

Within `PretendDevice("cuda:0")` (or "mps", or any other name) `torch.zeros(3, device="cuda:0")`, `model.to("cuda:0")`
and `batch.to("cuda:0")` make tensors whose `device` is the pretended one. They hold real numbers, so code whose course
depends on them (`tolist`, `item`, `nonzero`) runs as it would there, and to the same results.

What it notices, in every operation that PyTorch dispatches, those of the backward pass and the optimiser included:

- tensors of the device together with tensors of the CPU or of another pretended device; as on a real one, numbers (CPU
  tensors without dimensions) may stand beside any, and copies from one device to another are allowed. It is stricter
  than CUDA in one point: an index of the CPU into a tensor of the device is refused, which CUDA copies in silence.
- tensors of double precision on the device, which MPS has not.
- NumPy's view of a tensor of the device, which only memory of the CPU can have.

What it does not: kernels that the device lacks (as MPS some), or that compute otherwise or in another order; its memory
and where that ends; streams, and values that are read before they are there; `torch.autocast`, which has no effect on
these tensors, so that all is float32; and processes that talk to each other.

The fake tensors of PyTorch know the kernels of CUDA better, but have no values, and stop where a search looks at one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
CPU, META = torch.device("cpu"), torch.device("meta")
COPIES = (aten.copy_.default, aten._to_copy.default, aten.copy.default, aten.lift_fresh.default)
"""Operations that may see two devices."""
FROM_DATA = (torch.tensor, torch.as_tensor)
"""Functions that make tensors of lists."""


class DeviceMismatchError(AssertionError):
    """Something that a real device would refuse."""


class Pretended(Tensor):
    """A tensor of a pretended device; for PyTorch's C++ it is one of the `meta` device, which asks for no hardware."""

    held: Tensor
    """Its numbers, on the CPU."""
    place: torch.device
    """Where it says that it lies."""

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> "Pretended":
        made: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held, made.place = held, place
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.held!r}, device={self.place})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = Pretended(self.held.detach().clone(), self.place)
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, None)


class PretendDevice(TorchDispatchMode):
    """A context in which there is the device `name`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.place = torch.device(name)
        self._python = _PythonSide(self.place)

    def __enter__(self) -> "PretendDevice":
        self._python.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        self._python.__exit__(*failure)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, self.place)


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any], place: torch.device | None) -> Any:
    """What `func` gives on the tensors' numbers, on the device where they lie, or where they are asked to be."""
    tensors: list[Tensor] = []
    held_args, held_kwargs = _held(args, tensors), _held(kwargs, tensors)
    pretended = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    if func not in COPIES:
        others = {tensor.device for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim() > 0}
        places = {tensor.place for tensor in pretended} | others
        if len(places) > 1:
            raise DeviceMismatchError(f"{func} is given tensors of {' and '.join(sorted(map(str, places)))}")
    asked = kwargs.get("device")
    if asked is not None:
        held_kwargs["device"] = CPU
        target = place or pretended[0].place if asked.type == "meta" else asked
    else:  # a copy goes to where its first argument lies
        first = tensors[0] if func is aten.copy_.default else next(iter(pretended), None)
        target = first.place if isinstance(first, Pretended) else CPU
    if func is aten._fused_sdp_choice.default and pretended:
        return 0  # plain arithmetic
    result = func(*held_args, **held_kwargs)
    return result if target == CPU else _placed(result, target, {id(t.held): t for t in pretended}, func)


def _held(value: Any, tensors: list[Tensor]) -> Any:
    """`value`, a nest of sequences and mappings, with what pretended tensors hold; `tensors` gets all there are."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.held if isinstance(value, Pretended) else value
    if isinstance(value, list | tuple):
        return type(value)([_held(item, tensors) for item in value])
    if isinstance(value, dict):
        return {name: _held(item, tensors) for name, item in value.items()}
    return value


def _placed(value: Any, place: torch.device, wrappers: dict[int, Pretended], func: Any) -> Any:
    """A result on its device; what an operation has changed in place stays the object that it is."""
    if isinstance(value, list | tuple):
        return type(value)([_placed(item, place, wrappers, func) for item in value])
    if not isinstance(value, Tensor):
        return value
    if id(value) in wrappers:
        return wrappers[id(value)]
    if value.dtype == torch.float64:
        raise DeviceMismatchError(f"{func} makes a tensor of double precision on {place}")
    return Pretended(value, place)


class _PythonSide(TorchFunctionMode):
    """What Python code sees of the device: names of devices in arguments, and `tensor.device`."""

    def __init__(self, place: torch.device) -> None:
        super().__init__()
        self.place = place
        self.names = {str(place), place.type}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = args[0] if args and isinstance(args[0], Pretended) else None
        if own is not None and (answer := ANSWERS.get(func)) is not None:
            return answer(own)
        if func in FROM_DATA and self._is_here(kwargs.get("device")):
            made = func(*_held(args, []), **{**kwargs, "device": CPU})
            return made.to("meta")
        if func is Tensor.new_tensor and own is not None:
            return torch.tensor(*args[1:], **{"dtype": own.dtype, **kwargs}).to("meta")
        if func is not torch.device:
            args = [META if self._is_here(value, names=func is Tensor.to) else value for value in args]
            if self._is_here(kwargs.get("device")):
                kwargs = {**kwargs, "device": META}
        return func(*args, **kwargs)

    def _is_here(self, value: Any, *, names: bool = True) -> bool:
        """Whether `value` is this device, or, with `names`, its name."""
        return isinstance(value, str | torch.device if names else torch.device) and str(value) in self.names


def _refuse_numpy(tensor: Pretended) -> Any:
    raise DeviceMismatchError(f"NumPy cannot see a tensor of {tensor.place}")


ANSWERS: dict[Any, Callable[[Pretended], Any]] = {
    Tensor.device.__get__: lambda tensor: tensor.place,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda tensor: tensor.place.type == "cuda",  # type: ignore[attr-defined]
    Tensor.is_meta.__get__: lambda tensor: False,  # type: ignore[attr-defined]
    Tensor.tolist: lambda tensor: tensor.held.tolist(),
    Tensor.numpy: _refuse_numpy,
}
"""What Python may ask of a tensor without an operation."""


def numbers(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies on the CPU, to be compared."""
    return [tensor.held.detach().clone() if isinstance(tensor, Pretended) else tensor.detach() for tensor in tensors]
