"""Training checkpoints: everything a run needs to go on, written under a temporary name and renamed when complete."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from seehear.errors import ModelError


class Checkpoints:
    """The folder of a run's checkpoints, `step-N.pt`; the last `keep` are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps, then drop what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step}.pt"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        numbered = ((re.fullmatch(r"step-(\d+)\.pt", path.name), path) for path in self.folder.glob("step-*.pt"))
        return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]

    def load_last(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None where there is none.

        A damaged one is passed over, with a line that says so. Raises `ModelError` if all are damaged.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            except Exception as error:  # torch raises many kinds for a damaged file
                print(f"warning: {path} is damaged ({type(error).__name__}); trying the one before", flush=True)
        if paths:
            raise ModelError(f"no checkpoint in {self.folder} can be read: remove the folder to start again")
        return None
