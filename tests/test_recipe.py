"""Recipes: what is read, what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from seehear.errors import ConfigError
from seehear.recipe import load_recipe, parse_recipe, shipped_recipes

MINIMAL = {"data": {"corpus": "somewhere"}, "run": {"steps": 10}}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(name).about


def test_defaults_are_the_paper() -> None:
    recipe = parse_recipe(MINIMAL)
    assert recipe.objective.gamma.v == 0.97
    assert recipe.objective.ctc_weight == 0.1
    assert recipe.optimiser.betas == (0.9, 0.98)
    assert recipe.model.resolve().vocab_size == 1049


def test_recipe_survives_toml(tmp_path: Path) -> None:
    recipe = parse_recipe({**MINIMAL, "model": {"size": "tiny", "dropout": 0.3}})
    path = tmp_path / "again.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe


def test_overrides_take_toml_values_and_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[data]\ncorpus = "x"\n[run]\nsteps = 10\n')
    recipe = load_recipe(path, ["optimiser.peak_lr=1e-4", "data.corpus=other", "objective.gamma={v=1,a=0,av=0.5}"])
    assert recipe.optimiser.peak_lr == 1e-4
    assert recipe.data.corpus == "other"
    assert recipe.objective.gamma.v == 1.0


def test_a_recipe_extends_another_table_by_table(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        '[data]\ncorpus = "x"\nworkers = 7\n[objective]\ngamma = { v = 0.9, a = 0.1 }\n[run]\nsteps = 10\n'
    )
    (tmp_path / "child.toml").write_text(
        'extends = "base.toml"\nabout = "more"\n[data]\ncorpus = "y"\n[objective]\ngamma = { a = 0.2 }\n'
    )
    recipe = load_recipe(tmp_path / "child.toml")
    assert (recipe.data.corpus, recipe.data.workers, recipe.run.steps, recipe.about) == ("y", 7, 10, "more")
    assert (recipe.objective.gamma.v, recipe.objective.gamma.a, recipe.objective.gamma.av) == (0.9, 0.2, 0.75)
    (tmp_path / "other.toml").write_text('extends = "supervised-grid"\n[run]\nsteps = 7\n')
    assert load_recipe(tmp_path / "other.toml").run.steps == 7


def test_an_ablation_changes_the_objective_of_the_grid_run_alone_and_each_in_its_own_way() -> None:
    base = load_recipe("usr2-grid")
    ablations = [load_recipe(name) for name in shipped_recipes() if name.startswith("ablations/")]
    for ablation in ablations:
        assert ablation.model_copy(update={"objective": base.objective, "about": base.about}) == base
    objectives = [base.objective, *(ablation.objective for ablation in ablations)]
    assert all(mine != other for i, mine in enumerate(objectives) for other in objectives[:i])
    assert len(ablations) > 20


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(ConfigError, match="extend each other"):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("objective.gamma=0.5", (0.5, 0.5, 0.5)),
        ("objective.gamma={v=0.9, a=0.1, av=0.2}", (0.9, 0.1, 0.2)),
        ("objective.gamma.a=0.6", (0.97, 0.6, 0.75)),
    ],
)
def test_a_number_for_each_modality_may_be_one_or_some(
    tmp_path: Path, assignment: str, expected: tuple[float, ...]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[data]\ncorpus = "x"\n[run]\nsteps = 10\n')
    gamma = load_recipe(path, [assignment]).objective.gamma
    assert (gamma.v, gamma.a, gamma.av) == expected


def test_all_faults_in_one_message_with_suggestions() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(
            {
                "data": {"corpus": "x", "labeled_frames": 3},
                "run": {"steps": 10, "warmup_step": 1},
                "optimiser": {"warmup": 2.0},
                "model": {"size": "enormous"},
            }
        )
    message = str(caught.value)
    assert "no option 'data.labeled_frames'; did you mean 'data.labelled_frames'?" in message
    assert "'optimiser.warmup'" in message
    assert "no size 'enormous'" in message
    assert "run.warmup_step" in message
    assert "\n" not in message


@pytest.mark.parametrize("steps", [{}, {"steps": 1, "epochs": 1}])
def test_length_is_given_once(steps: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"run\.steps or run\.epochs"):
        parse_recipe({**MINIMAL, "run": steps})


def test_unknown_recipe_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="supervised-grid"):
        load_recipe("no-such-recipe")


@pytest.mark.parametrize("assignment", ["optimiser.peak_lr", "=3", "run.steps.x=3"])
def test_bad_overrides(assignment: str) -> None:
    with pytest.raises(ConfigError):
        load_recipe("supervised-grid", [assignment])


def test_broken_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[run\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
        load_recipe(path)
