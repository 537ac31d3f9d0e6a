"""What keeps memory from growing over hours."""

import os

import pytest

from seehear.transcribing import memory

NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_few_kernels_are_kept_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    memory.bound()
    assert os.environ[NAME] == str(memory.KEPT_KERNELS)
    monkeypatch.setenv(NAME, "7")
    memory.bound()
    assert os.environ[NAME] == "7"


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error: Exception, ran_out: bool) -> None:
    assert memory.ran_out(error) is ran_out
