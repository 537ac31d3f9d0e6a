"""Names, shapes and sizes of the published files, at each size, without their weights."""

import json
from pathlib import Path

import pytest
import torch

from published_files import Kind, encoder_config, layout, num_bytes
from seehear.config import SIZES
from seehear.convert import to_published
from seehear.model.usr import USR, SpeechEncoder


@pytest.mark.parametrize("kind", ["fine-tuned", "self-supervised"])
def test_layouts_are_the_published_ones(kind: Kind, shared: Path) -> None:
    published = json.loads((shared / "parity" / "layouts" / f"{kind}-base.json").read_text())
    assert layout(kind, SIZES["base"]) == {name: tuple(shape) for name, shape in published.items()}


@pytest.mark.parametrize(("size", "millions"), [("base", 86), ("base-plus", 171), ("large", 503), ("huge", 945)])
def test_models_of_each_size_have_the_published_names_shapes_and_parameters(size: str, millions: int) -> None:
    with torch.device("meta"):
        model, encoder = USR(SIZES[size]), SpeechEncoder(encoder_config(SIZES[size]))
    assert round(model.num_parameters() / 1e6) == millions
    shapes = layout("fine-tuned", SIZES[size])
    published = to_published(model)
    for prefix in ("model.backbone.", "model.target_backbone."):
        found = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        assert found == {name: tuple(value.shape) for name, value in published.items()}
    average = "model.target_backbone."
    names = {name.removeprefix(average) for name in layout("self-supervised", SIZES[size]) if name.startswith(average)}
    assert names == {name.removeprefix("encoder.") for name in published if name.startswith("encoder.")}
    assert len(names) == len(encoder.state_dict())


@pytest.mark.parametrize(
    ("size", "entries", "tensors", "file"),
    [("base-plus", 1356, 1_388_602_248, 1_389_096_590), ("huge", 2352, 7_596_305_288, 7_597_175_714)],
)
def test_sizes_of_the_published_files_are_predicted(size: str, entries: int, tensors: int, file: int) -> None:
    shapes = layout("fine-tuned", SIZES[size])
    assert (len(shapes), num_bytes(shapes)) == (entries, tensors)
    assert 360 < (file - tensors) / entries < 375  # what the zip format adds to an entry
