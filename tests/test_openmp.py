"""How threads wait: what the command line sets before PyTorch is loaded, and that users' own settings stand."""

import os
import subprocess
import sys

import pytest

from seehear.cli.openmp import SPIN_COUNT, WAITING, limit_spinning

COMMAND = """
import sys
from seehear.cli.main import main
sys.argv = ["seehear", "--version"]
try:
    main()
except SystemExit:
    import torch
"""


def display(**variables: str) -> dict[str, str]:
    """What the OpenMP library that PyTorch loads after the command line has begun says that it uses."""
    clean = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={**clean, **variables, "OMP_DISPLAY_ENV": "verbose"},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = (line.strip().partition(" = ") for line in done.stderr.splitlines())
    return {name: value.strip("'") for name, equals, value in lines if equals}


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has GNU's OpenMP library on Linux alone")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, str(SPIN_COUNT)), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")],
    ids=["ours", "count", "policy"],
)
def test_the_library_gets_what_the_command_line_sets_unless_the_user_says_otherwise(
    variables: dict[str, str], expected: str
) -> None:
    shown = display(OMP_NUM_THREADS="2", **variables)
    assert shown["GOMP_SPINCOUNT"] == expected
    assert shown["OMP_NUM_THREADS"] == "2"


def test_nothing_else_is_set() -> None:
    environment = {"OMP_NUM_THREADS": "1"}
    limit_spinning(environment)
    assert environment == {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": str(SPIN_COUNT)}
    for name in WAITING:
        mine = {name: "whatever"}
        limit_spinning(mine)
        assert mine == {name: "whatever"}
