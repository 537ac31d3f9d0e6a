"""Training checkpoints: everything a run needs to go on, written under a temporary name and renamed when complete."""

import os
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from seehear.errors import ModelError, TrainingError

BEST = "best.pt"
PREFIXES = {"student": "student.", "teacher": "teacher.model."}
"""Where the weights of each model stand in an objective's state."""


class Checkpoints:
    """The folder of a run's checkpoints: `step-N.pt`, of which the last `keep` are kept, and `best.pt`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps, then drop what is too old. Raises `TrainingError` if it cannot."""
        path = self._write(f"step-{step}.pt", state)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, state: dict[str, Any]) -> Path:
        """Write the state of the best validation so far; the one before is replaced."""
        return self._write(BEST, state)

    def _write(self, name: str, state: dict[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"{path} cannot be written ({_reason(error)}); older checkpoints are whole") from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        numbered = ((re.fullmatch(r"step-(\d+)\.pt", path.name), path) for path in self.folder.glob("step-*.pt"))
        return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]

    def load_best(self) -> dict[str, Any] | None:
        """The state of the best validation; None where there is none that can be read."""
        path = self.folder / BEST
        return load_checkpoint(path) if path.is_file() else None

    def load_last(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None where there is none.

        A damaged one is passed over, with a line that says so. Raises `ModelError` if all are damaged.
        """
        paths = self.paths()
        for path in reversed(paths):
            state = load_checkpoint(path)
            if state is not None:
                return state
        if paths:
            raise ModelError(f"no checkpoint in {self.folder} can be read: remove the folder to start again")
        return None


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in a checkpoint, or None and a line that says so if it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        print(f"warning: {path} is damaged ({type(error).__name__}) and passed over", flush=True)
        return None
    return state


def weights_of(state: dict[str, Any], part: Literal["student", "teacher"]) -> dict[str, Tensor]:
    """The weights of one model in a checkpoint. Raises `ModelError` if the run has no such model."""
    named: dict[str, Tensor] = state["objective"]
    prefix = PREFIXES[part]
    weights = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    if not weights:
        raise ModelError(f"the checkpoint of step {state['step']} has no {part}")
    return weights


def _reason(error: BaseException) -> str:
    """What the system said, which torch hides behind words of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return str(cause or error).splitlines()[0]
