"""The mean of a run's last checkpoints as one model, which is what the sources publish (METHOD §2)."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from seehear.card import ModelCard
from seehear.checkpoint import CONFIG_FILE, save_model
from seehear.errors import ModelError
from seehear.model.usr import USR
from seehear.recipe import parse_recipe
from seehear.tokenizer import Tokenizer
from seehear.training.checkpoints import Checkpoints, load_checkpoint, weights_of


def average_checkpoints(run: Path, out: Path, last: int = 10, part: Literal["student", "teacher"] = "student") -> Path:
    """Write the model folder `out`: the mean of the last `last` checkpoints of the folder `run`.

    Raises `ModelError` if there are fewer (`run.keep` says how many a run keeps), one is damaged, or the run has no
    such part.
    """
    if (run / CONFIG_FILE).is_file():
        raise ModelError(
            f"{run} is a model or an encoder, not the folder of a run: train with `seehear train RECIPE --init {run} "
            "--out RUN`, and average the checkpoints of RUN"
        )
    checkpoints = Checkpoints(run / "checkpoints", keep=last)
    paths = checkpoints.paths()
    if len(paths) < last:
        raise ModelError(f"{checkpoints.folder} holds {len(paths)} checkpoints, not {last}: see run.keep, or --last")
    sums: dict[str, Tensor] = {}
    steps = []
    for path in paths[-last:]:
        state = load_checkpoint(path)
        if state is None:
            raise ModelError(f"{path} is damaged: average fewer checkpoints, or those of another run")
        for name, tensor in weights_of(state, part).items():
            sums[name] = sums[name] + tensor if name in sums else tensor.double()
        steps.append(state["step"])
        recipe = parse_recipe(state["recipe"])
    tokenizer = Tokenizer.load(run / "tokenizer")
    model = USR(recipe.model.resolve(tokenizer.vocab_size))
    model.load_state_dict({name: (tensor / last).to(model.state_dict()[name].dtype) for name, tensor in sums.items()})
    card = ModelCard(
        title=f"seehear {recipe.model.size}, {recipe.objective.kind}, {part}: mean of {last} checkpoints",
        training_data=f"corpus {Path(recipe.data.corpus).name}",
        method=f"{recipe.objective.kind}; mean of the {part} after steps {', '.join(map(str, steps))}",
        licence=recipe.licence,
    )
    return save_model(out, model, tokenizer, card, recipe)
