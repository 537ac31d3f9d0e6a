"""Which errors mean that memory does not suffice."""

SIGNS = (
    *("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory"),
    *("alloc_failed", "bad_alloc", "could not create a primitive", "could not create a memory"),
)
"""What PyTorch, CUDA's libraries, C++, oneDNN and the operating system write of it, in lower case."""


def ran_out(error: Exception) -> bool:
    """Whether memory is what is wrong: PyTorch raises an error of its own on a GPU, a `RuntimeError` on a CPU."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # of torch, which is not imported here
        or any(sign in text for sign in SIGNS)
    )
