"""What keeps memory from growing over hours, and what a search needs of it."""

import os
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seehear.config import SIZES
from seehear.decoding import shortage
from seehear.decoding.beam_search import beam_search
from seehear.decoding.options import DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.transcribing import memory

NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_few_kernels_are_kept_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    memory.bound()
    assert os.environ[NAME] == str(memory.KEPT_KERNELS)
    monkeypatch.setenv(NAME, "7")
    memory.bound()
    assert os.environ[NAME] == "7"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can give back pages")
def test_a_large_tensor_gives_its_pages_back_whatever_lies_behind_it() -> None:
    code = """if True:
        import torch
        from seehear.transcribing import memory
        memory.bound()
        held = []
        for _ in range(50):
            large = torch.ones(8 * 2**18)
            held.append(torch.ones(1000))
            del large
        large = [torch.ones(8 * 2**18) for _ in range(20)]
        small = [torch.ones(1000) for _ in range(20)]
        del large
        print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS')))
        print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    now, peak = map(int, told.split())
    assert peak - now > 150_000, "160 MB were held, and a small one behind each"


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.OutOfMemoryError("of a GPU"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 6.78 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error: Exception, ran_out: bool) -> None:
    assert shortage.ran_out(error) is ran_out


class LiveBytes(TorchDispatchMode):
    """Counts the memory of all tensors that operations make, while they are there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in filter(_is_tensor, tree_leaves(result)):
            memory = tensor.untyped_storage()
            place, size = memory.data_ptr(), memory.nbytes()
            if place not in self._users:
                if place in given:
                    continue  # of a tensor from before
                self.now += size
                self.peak = max(self.peak, self.now)
            self._users[place] = self._users.get(place, 0) + 1
            weakref.finalize(tensor, self._drop, place, size)
        return result

    def _drop(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place]
            self.now -= size


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


@pytest.mark.parametrize(
    ("beam_size", "frames", "tokens", "layers"), [(20, 150, 4, 6), (20, 60, 40, 2), (1, 150, 8, 6), (5, 100, 20, 3)]
)
def test_a_search_needs_no_more_memory_than_its_documentation_says(
    beam_size: int, frames: int, tokens: int, layers: int
) -> None:
    """docs/DECODING.md, "Memory": the keys and values of a clip are there once, however many hypotheses."""
    torch.manual_seed(0)
    config = SIZES["tiny"].model_copy(update={"num_decoder_layers": layers, "vocab_size": 48})
    model = USR(config).eval()
    for head in model.output_heads.values():
        head.bias.data[-1] = -1e4  # type: ignore[operator, union-attr]  # no hypothesis ends before its length runs out
    features, mask = torch.randn(1, frames, config.dim), torch.ones(1, frames, dtype=torch.bool)
    options = DecodingOptions(beam_size=beam_size, max_length_ratio=tokens / frames)
    with LiveBytes() as counted:
        beam_search(model, features, mask, Modality.AUDIO, options, n_best=1)
    width, candidates = config.decoder_dim, min(64, int(1.5 * beam_size) + 1)
    clip = frames * (2 * (layers + 1) * width + 3 * config.vocab_size)
    hypothesis = 2 * (layers + 1) * tokens * width + frames * (2 * candidates + 30)
    bound = 4 * (clip + beam_size * hypothesis)
    assert bound / 2.5 < counted.peak <= bound
    if frames == 150 and beam_size > 1:
        assert counted.peak < 4 * beam_size * frames * 2 * layers * width, "a copy for each hypothesis"
