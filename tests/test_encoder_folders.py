"""Encoders alone: made of self-supervised files, used for features and as a start of training, refused elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import seehear
from conftest import ScriptedDetector, face_at, random_clip
from media_files import make_media
from published_files import NARROW, encoder_config, layout, num_bytes, random_tensors
from seehear.card import ModelCard
from seehear.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_folder, load_model, save_encoder, save_model
from seehear.config import EncoderConfig
from seehear.convert import our_name
from seehear.data.clipfile import write_clip
from seehear.data.corpus import Corpus
from seehear.errors import ConfigError, ModelError
from seehear.model.usr import USR, SpeechEncoder
from seehear.recipe import ModelSettings, parse_recipe
from seehear.tokenizer import Tokenizer
from seehear.training.initialise import find_start, initialise
from seehear.training.run import train_recipe
from test_cli import Run, run  # noqa: F401 -- a fixture
from training_runs import recipe, weights


@pytest.fixture(scope="module")
def self_supervised() -> dict[str, Tensor]:
    return random_tensors(layout("self-supervised", NARROW))


@pytest.fixture(scope="module")
def encoder_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of the tiny model, alone; with a final normalization that does something."""
    model, _ = load_model(model_folder)
    encoder = SpeechEncoder(EncoderConfig(**model.config.model_dump(include=set(EncoderConfig.model_fields))))
    encoder.load_state_dict({name: model.state_dict()[name] for name in encoder.state_dict()})
    torch.nn.init.normal_(encoder.encoder.norm.weight, 2.0)
    card = ModelCard(title="Tiny encoder", licence="apache-2.0")
    return save_encoder(tmp_path_factory.mktemp("encoders") / "tiny", encoder, card)


@pytest.mark.parametrize("teacher", [False, True])
def test_a_self_supervised_file_becomes_an_encoder(
    run: Run,  # noqa: F811
    self_supervised: dict[str, Tensor],
    teacher: bool,
) -> None:
    torch.save(self_supervised, "pretrained.pth")
    status, out, err = run("convert", "pretrained.pth", "encoder", *["--teacher"] * teacher)
    assert (status, out) == (0, "encoder\n")
    assert sorted(path.name for path in Path("encoder").iterdir()) == ["README.md", CONFIG_FILE, WEIGHTS_FILE]
    assert json.loads(Path("encoder", CONFIG_FILE).read_text())["kind"] == "encoder"
    network, tokenizer = load_folder(Path("encoder"))
    assert tokenizer is None
    assert not isinstance(network, USR)
    assert network.config == encoder_config(NARROW)
    prefix = "model.target_backbone." if teacher else "model.backbone.encoder."
    for name, value in self_supervised.items():
        if name.startswith(prefix):
            ours = our_name(f"encoder.{name.removeprefix(prefix)}")
            assert torch.equal(network.state_dict()[str(ours)], value), name

    taken, *left_out, written = err.splitlines()
    assert written.startswith(f"written: encoder/{WEIGHTS_FILE}, ")
    names = ["encoder", "moving average of the encoder (teacher)"]
    size = f"{network.num_parameters():,} parameters, "
    assert taken.startswith(f"taken: {names[teacher]}, {size}")
    groups = [names[not teacher], "heads and decoder that watched the pre-training (probes)"]
    groups += ["predictor of the pre-training"]
    assert {line.partition(": ")[2].split(",")[0] for line in left_out} == set(groups)
    probes = {
        name: shape
        for name, shape in layout("self-supervised", NARROW).items()
        if name.startswith(("model.backbone.ctc", "model.backbone.decoder", "model.out_layer"))
    }
    assert any("(probes)" in line and line.endswith(f" {num_bytes(probes) / 1e6:.1f} MB") for line in left_out)
    card = Path("encoder/README.md").read_text(encoding="utf-8")
    for fact in ("license: cc-by-nc-4.0", "feature-extraction", "An encoder alone", "pretrained.pth", "--init"):
        assert fact in card
    assert "Published weights: the " + names[teacher] + " of" in card
    assert "wer" not in card


def test_units_of_an_encoder_are_not_needed(run: Run, self_supervised: dict[str, Tensor]) -> None:  # noqa: F811
    encoder = {name: value for name, value in self_supervised.items() if name.startswith("model.backbone.encoder.")}
    torch.save(encoder, "encoder.pth")  # nothing else in it
    status, _, err = run("convert", "encoder.pth", "encoder", "--units", "units.txt", "--half")  # there is no such file
    assert status == 0
    assert err.splitlines()[-2] == (
        "encoder.pth has an encoder alone, which needs no vocabulary: units.txt is not used"
    )
    assert Path("encoder", WEIGHTS_FILE).stat().st_size < 0.6 * Path("encoder.pth").stat().st_size


def test_an_encoder_gives_the_features_of_its_model(
    run: Run,  # noqa: F811
    model_folder: Path,
    tmp_path: Path,
) -> None:
    """On a real file, through the command line: as the whole model, the final normalization included."""
    model, tokenizer = load_model(model_folder)
    encoder = SpeechEncoder(EncoderConfig(**model.config.model_dump(include=set(EncoderConfig.model_fields))))
    encoder.load_state_dict({name: model.state_dict()[name] for name in encoder.state_dict()})
    torch.nn.init.normal_(encoder.encoder.norm.weight, 2.0)
    model.encoder.norm.load_state_dict(encoder.encoder.norm.state_dict())
    save_model(tmp_path / "whole", model, tokenizer)
    save_encoder(tmp_path / "alone", encoder)
    write_clip(tmp_path / "clip.mp4", random_clip(12))
    sound = make_media(tmp_path / "sound.wav", video_codec=None)
    for folder in ("whole", "alone"):
        status, out, _ = run("extract", "clip.mp4", sound, "-m", folder, "-o", f"{folder}-features", "--layer", 3)
        assert status == 0
        assert "clip.mp4: AV, 12 × 96" in out
    for name in ("clip.npy", "clip-layer3.npy", "sound.npy"):
        whole, alone = (np.load(f"{folder}-features/{name}") for folder in ("whole", "alone"))
        np.testing.assert_array_equal(whole, alone)
    normed = encoder.encoder.norm(torch.from_numpy(np.load("alone-features/clip-layer3.npy")))
    np.testing.assert_allclose(np.load("alone-features/clip.npy"), normed.detach().numpy(), atol=1e-5)


def test_where_an_encoder_alone_cannot_serve(
    run: Run,  # noqa: F811
    encoder_folder: Path,
    random_corpus: Corpus,
) -> None:
    write_clip(Path("clip.mp4"), random_clip(12))
    Path("texts.txt").write_text("some words\n", encoding="utf-8")
    for arguments in (
        ("transcribe", "clip.mp4", "-m", encoder_folder),
        ("evaluate", random_corpus.root, "-m", encoder_folder, "-o", "report.jsonl"),
        ("average", encoder_folder, "mean"),
        ("convert", "--back", encoder_folder, "back.pth"),
        ("lm", "texts.txt", "-o", "lm.json", "-m", encoder_folder),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, ""), arguments
        assert "--init" in err
        assert "encoder" in err
        assert err.count("\n") == 1
    description = Path("description")
    description.mkdir()
    shutil.copy(encoder_folder / CONFIG_FILE, description)
    for command, given in (("transcribe", "clip.mp4"), ("evaluate", random_corpus.root)):
        status, _, err = run(command, given, "-m", description)  # before weights are read
        assert (status, err.startswith("error: description is an encoder alone")) == (2, True)
    with pytest.raises(ModelError, match=f"{encoder_folder} is an encoder alone"):
        seehear.load(encoder_folder, language_model="nowhere.json")
    with pytest.raises(ConfigError, match="no device 'abacus' here"):
        seehear.load(encoder_folder, search_device="abacus")
    assert not any(Path(name).exists() for name in ("report.jsonl", "mean", "back.pth", "lm.json"))
    recognizer = seehear.load(encoder_folder)
    with pytest.raises(ModelError, match="encoder alone"):
        recognizer.transcribe("clip.mp4")
    assert recognizer.extract("clip.mp4").output.shape == (12, 96)


def test_a_model_starts_from_an_encoder_without_its_final_norm(encoder_folder: Path) -> None:
    settings = ModelSettings(size="tiny", init=str(encoder_folder))
    start = find_start(settings)
    assert start is not None
    assert not start.brings_vocabulary
    student = USR(settings.resolve(30))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    words = initialise(student, start, settings)
    assert words == (
        f"from {encoder_folder}: video_frontend, audio_frontend, projections, encoder; "
        "new: encoder.norm, ctc_heads, decoder.embedding, decoder, output_heads"
    )
    source = start.model.state_dict()
    for name, value in student.state_dict().items():
        taken = name in source and not name.startswith("encoder.norm.")
        assert torch.equal(value, source[name] if taken else before[name]), name
    assert not torch.equal(before["encoder.norm.weight"], source["encoder.norm.weight"])


def test_an_encoder_of_another_depth_is_no_start(encoder_folder: Path, tmp_path: Path) -> None:
    deeper = Path(shutil.copytree(encoder_folder, tmp_path / "deeper"))
    encoder, _ = load_folder(encoder_folder)
    config = encoder.config.model_copy(update={"num_encoder_layers": 4})
    save_encoder(deeper, SpeechEncoder(config))
    settings = ModelSettings(size="tiny", init=str(deeper))
    start = find_start(settings)
    assert start is not None
    with pytest.raises(ModelError, match=r"does not fit: it has encoder\.layers\.3"):
        initialise(USR(settings.resolve(30)), start, settings)


def test_a_run_starts_from_an_encoder(
    corpus: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(corpus, "supervised", steps=1).model_dump()
    values["model"]["init"] = str(encoder_folder)
    values["optimiser"] |= {"frozen": ["encoder.layers"]}
    model = train_recipe(parse_recipe(values), tmp_path / "run")
    assert "new: encoder.norm, ctc_heads" in capsys.readouterr().out
    source = load_folder(encoder_folder)[0].state_dict()
    trained = weights(model)
    assert all(torch.equal(trained[name], source[name]) for name in trained if name.startswith("encoder.layers."))


def test_old_folders_are_read_as_before(model_folder: Path, tokenizer: Tokenizer) -> None:
    config = json.loads((model_folder / CONFIG_FILE).read_text())
    assert list(config) == ["model_type", "format_version", "input", "model"]
    network, loaded = load_folder(model_folder)
    assert isinstance(network, USR)
    assert loaded is not None
    assert loaded.pieces == tokenizer.pieces


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "decoder"}, "kind"),
        ({"kind": "model"}, "kind"),
        ({"decoder_dim": 96}, "decoder_dim"),
    ],
)
def test_a_faulty_description_is_refused(
    encoder_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    config = json.loads((folder / CONFIG_FILE).read_text())
    (config if "kind" in change else config["model"]).update(change)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_folder(folder)


def test_of_several_faces_an_encoder_takes_the_one_that_moves_most(encoder_folder: Path, tmp_path: Path) -> None:
    path = make_media(tmp_path / "two.mkv", size=(320, 240), stripe=True, duration=1.2)
    faces = ScriptedDetector([[face_at(80, 120, 0.5), face_at(240, 120 + frame, 0.5)] for frame in range(60)])
    features = seehear.load(encoder_folder).extract(path, "av", detector=faces)
    assert len(features.output) == 30
    assert any("cannot tell which face speaks" in warning for warning in features.warnings)
