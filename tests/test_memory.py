"""What keeps memory from growing over hours."""

import os
import subprocess
import sys

import pytest
import torch

from seehear.decoding import shortage
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
