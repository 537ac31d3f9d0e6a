"""What a run computes with: chosen when it begins, kept when it goes on."""

import torch

from seehear.devices import HERE, Hardware, Precision, choose_precision
from seehear.errors import ConfigError
from seehear.recipe import Recipe


def find_precision(recipe: Recipe, before: Recipe | None, device: torch.device, hardware: Hardware = HERE) -> Precision:
    """What a run computes with: as it began, if it goes on from a run of the recipe `before`.

    Raises `ConfigError` that names the setting if the recipe asks for another precision then, or leaves it open where
    that of the run is emulated.
    """
    asked = recipe.run.precision
    if before is None:
        return choose_precision(device, asked, training=True, hardware=hardware)
    begun = before.run.precision
    if asked not in ("auto", begun):
        raise ConfigError(
            f"this run began with run.precision={begun} and cannot go on with {asked}: leave it at auto, or choose "
            "another --out"
        )
    precision = choose_precision(device, begun, training=True, hardware=hardware)._replace(why="as this run began")
    if asked == "auto" and precision.warning:
        raise ConfigError(
            f"this run began with run.precision={begun}, and {precision.warning}: go on elsewhere, or set "
            f"run.precision={begun} to go on here all the same"
        )
    return precision


def with_precision(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe with this precision in place of what it asks for."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"precision": precision.numbers})})
