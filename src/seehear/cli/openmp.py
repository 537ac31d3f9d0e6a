"""How the threads of the arithmetic wait for each other, set before PyTorch loads its OpenMP library.

That library, GNU's on Linux, reads the environment once, when it is loaded. At the end of each operation its threads
spin until the last is there: 300,000 rounds by themselves, milliseconds, in which they keep another program from the
core, and that program keeps them. With fewer rounds they sleep, which costs a little where nothing else runs and
gains much where something does (benchmarks/busy_cores.py).
"""

import os
from collections.abc import MutableMapping

SPIN_COUNT = 1000
"""Rounds that a thread spins before it sleeps."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables by which users say themselves how threads wait."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads spin no longer than that, unless the user says how they wait; child processes inherit it."""
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
