"""Trains recipes one after the other, as one process of several: what `test_distributed.py` starts.

RANK=0 WORLD_SIZE=2 … python tests/distributed_runs.py RECIPE OUT [RECIPE OUT …]
"""

import sys
from pathlib import Path

import torch

from seehear.recipe import load_recipe
from seehear.training.run import train_recipe
from seehear.training.world import World, end_process

if __name__ == "__main__":
    torch.set_num_threads(1)
    runs = [(load_recipe(recipe), Path(out)) for recipe, out in zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
    with World.start(time_limit=runs[0][0].run.time_limit):
        for settings, out in runs:
            train_recipe(settings, out)
    end_process(0)
