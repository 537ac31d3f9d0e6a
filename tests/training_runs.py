"""Short runs on the corpus of `conftest.py`."""

from pathlib import Path
from typing import Any

import torch

from seehear.checkpoint import load_model
from seehear.recipe import Recipe, parse_recipe


def recipe(corpus: Path, kind: str = "usr2", **run: Any) -> Recipe:
    """Four steps of the tiny model, a supervised start first."""
    return parse_recipe(
        {
            "model": {"size": "tiny"},
            "data": {"corpus": str(corpus), "labelled_frames": 40, "unlabelled_frames": 40, "workers": 0},
            "objective": {"kind": kind, "supervised_steps": 1, "ctc_threshold": 0.0, "attention_threshold": 0.0},
            "optimiser": {"peak_lr": 1e-3, "warmup": 0.5},
            "run": {"steps": 4, "checkpoint_every": 2, "precision": "float32", **run},
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model, _ = load_model(folder)
    return model.state_dict()
