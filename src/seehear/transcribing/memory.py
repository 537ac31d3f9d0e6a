"""What keeps the memory of recognition on a CPU from growing over hours of windows of ever new lengths (RESULTS.md)."""

import ctypes
import os
from contextlib import suppress

KEPT_KERNELS = 128
"""Kernels that oneDNN keeps, each made for one shape: those of a batch or two. A thousand, as by itself, lie scattered
among the tensors of hours, which then find no room between them."""
OWN_PAGES = 2**20
"""Bytes from which on a tensor has pages of its own, which go back to the system with it. By itself the C library
raises that bound to 32 MiB as it goes, and its memory is then as full of holes as chance has it."""
M_MMAP_THRESHOLD = -3


def bound() -> None:
    """Have oneDNN keep no more kernels than that, and the C library no holes, unless the user says how many.

    oneDNN looks once, when it makes the first kernel.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with suppress(OSError, AttributeError):  # only glibc can
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, OWN_PAGES)


def give_back() -> None:
    """Have the C library return what it holds for tensors of sizes that may not come again."""
    with suppress(OSError, AttributeError):  # only glibc can
        ctypes.CDLL(None).malloc_trim(0)
