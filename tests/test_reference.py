"""Features, log-probabilities, greedy labels and searches equal those of the published implementation."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reference_case import Case, compare_outputs, compare_searches, load_case, load_weights_module, main

GOLDEN = Path(__file__).parent / "golden"
CASES = ("tiny", "heads2", "narrow")
TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-3
"""Of a search: the sum over a hypothesis' tokens, up to a hundred or so."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(GOLDEN, request.param)


def test_outputs_equal_the_published(case: Case) -> None:
    comparison = compare_outputs(case)
    assert not comparison.differences
    assert set(comparison.errors) == {"features", "CTC log-probabilities", "decoder log-probabilities"}
    assert max(comparison.errors.values()) <= TOLERANCE, comparison.errors


def test_searches_equal_the_published(case: Case) -> None:
    comparison = compare_searches(case)
    assert not comparison.differences
    assert comparison.errors["search scores"] <= SCORE_TOLERANCE


def test_a_parameter_slightly_off_is_noticed() -> None:
    case = load_case(GOLDEN, "tiny")
    for name in ("encoder.layers.1.attention.position_bias", "audio_frontend.stem_norm.bias", "output_heads.a.weight"):
        parameter = case.model.get_parameter(name).data
        parameter.mul_(1.01)
        assert not compare_outputs(case).passes(TOLERANCE), name
        parameter.div_(1.01)


def test_command_line_passes_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parent / "reference_case.py"
    passed = subprocess.run([sys.executable, script, GOLDEN, "narrow"], capture_output=True, text=True, check=False)
    assert passed.returncode == 0, passed.stderr
    assert "features: largest error" in passed.stdout
    for name in ("weights.py", "narrow.npz", "keys_narrow.json"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    description = json.loads((GOLDEN / "narrow.json").read_text())
    description["usr_ar"][0][0] += 1
    (tmp_path / "narrow.json").write_text(json.dumps(description))
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "narrow"])
    assert main() == 1
    assert "greedy label of clip 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_copies_are_the_originals(name: str, shared: Path) -> None:
    for file in (f"{name}.json", f"{name}.npz", f"keys_{name}.json"):
        assert (GOLDEN / file).read_bytes() == (shared / "parity" / file).read_bytes()
    ours, theirs = load_weights_module(GOLDEN), load_weights_module(shared / "parity")
    shapes = json.loads((GOLDEN / f"keys_{name}.json").read_text())
    lengths = json.loads((GOLDEN / f"{name}.json").read_text())["lengths"]
    for made, original in (
        (ours.state(shapes, 3.0), theirs.state(shapes, 3.0)),
        (ours.inputs(name, lengths), theirs.inputs(name, lengths)),
    ):
        assert made.keys() == original.keys()
        for key, value in made.items():
            assert value.dtype == original[key].dtype
            np.testing.assert_array_equal(value, original[key])
