"""Compare seehear with golden outputs of the published implementation: `python tests/reference_case.py DIR NAME`.

DIR holds `weights.py` (weights and inputs of a case from names and shapes), `NAME.json` (sizes, clip lengths, greedy
labels, searches), `NAME.npz` (golden arrays) and `keys_NAME.json` (published names and shapes). Prints the largest
error of each kind and exits 1 if a feature or log-probability is off by more than the tolerance or a greedy label
sequence differs; with --searches also if a hypothesis of a beam search does.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seehear.config import ModelConfig
from seehear.convert import to_ours
from seehear.decoding.beam_search import beam_search
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.options import DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR

TOLERANCE = 1e-3
SCORED_POSITIONS = [0, 4]
"""Decoder positions whose log-probabilities the golden files hold."""
LABEL_RATIO = 5
"""A greedy label has at most one token per so many frames of the padded batch."""


@dataclass
class Comparison:
    """What was compared, and how it came out."""

    errors: dict[str, float] = field(default_factory=dict)
    """Largest absolute error of each kind of number."""
    differences: list[str] = field(default_factory=list)
    """Token sequences that are not the golden ones, in words."""

    def add(self, kind: str, ours: Tensor, golden: NDArray[np.float32]) -> None:
        """Compare numbers; what is not a number is infinitely wrong."""
        assert ours.shape == golden.shape, f"{kind}: {tuple(ours.shape)} is not {golden.shape}"
        error = (ours - torch.from_numpy(golden)).abs().nan_to_num(torch.inf).max().item()
        self.errors[kind] = max(error, self.errors.get(kind, 0.0))

    def add_choices(self, kind: str, ours: Tensor, golden: NDArray[np.int64]) -> None:
        """Compare the best tokens of log-probabilities (…, V): the golden one must be as probable as our best."""
        chosen = ours.gather(-1, torch.from_numpy(golden)[..., None]).squeeze(-1)
        self.add(kind, chosen, ours.amax(-1).numpy())

    def add_sequence(self, what: str, ours: list[int], golden: list[int]) -> None:
        """Compare tokens."""
        if ours != golden:
            self.differences.append(f"{what}: {ours} instead of {golden}")

    def passes(self, tolerance: float) -> bool:
        """Whether every number is within `tolerance` and every sequence the golden one."""
        return not self.differences and all(error <= tolerance for error in self.errors.values())


@dataclass(frozen=True)
class Case:
    """A case and its model, with the case's weights."""

    description: dict[str, Any]
    golden: dict[str, NDArray[Any]]
    model: USR
    video: Tensor
    """(B, T, 88, 88)."""
    audio: Tensor
    """(B, 640·T)."""
    mask: Tensor
    """(B, T)."""

    @torch.no_grad()
    def features(self) -> dict[Modality, Tensor]:
        """The padded batch, encoded (B, T, D)."""
        return self.model.encode(self.video, self.audio, self.mask)


def model_config(sizes: dict[str, int]) -> ModelConfig:
    """The sizes of a case in our words."""
    return ModelConfig(
        dim=sizes["adim"],
        num_heads=sizes["aheads"],
        ffn_dim=sizes["eunits"],
        num_encoder_layers=sizes["elayers"],
        decoder_dim=sizes["ddim"],
        decoder_num_heads=sizes["dheads"],
        decoder_ffn_dim=sizes["dunits"],
        num_decoder_layers=sizes["dlayers"],
        vocab_size=sizes["odim"],
    )


def load_weights_module(folder: Path) -> ModuleType:
    """The `weights.py` of a folder."""
    spec = importlib.util.spec_from_file_location("reference_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_case(folder: Path, name: str) -> Case:
    """Build the model of a case and its batch."""
    made = load_weights_module(folder)
    description = json.loads((folder / f"{name}.json").read_text())
    shapes = json.loads((folder / f"keys_{name}.json").read_text())
    weights = {key: torch.from_numpy(value) for key, value in made.state(shapes, description["gain"]).items()}
    model = to_ours(weights, model_config(description["model"])).model.eval()
    assert isinstance(model, USR)
    batch = {
        key: torch.from_numpy(value) for key, value in made.inputs(description["case"], description["lengths"]).items()
    }
    mask = torch.arange(batch["video"].shape[1]) < batch["lengths"][:, None]
    with np.load(folder / f"{name}.npz") as golden:
        return Case(description, dict(golden), model, batch["video"], batch["audio"].squeeze(-1), mask)


@torch.no_grad()
def compare_outputs(case: Case) -> Comparison:
    """Features, CTC and decoder log-probabilities of every modality, and greedy labels."""
    comparison = Comparison()
    model, mask, golden = case.model, case.mask, case.golden
    encoded = case.features()
    fused = encoded[Modality.AUDIOVISUAL]
    start = torch.full((len(mask), 1), model.sos)
    states = model.decode(torch.cat([start, torch.from_numpy(golden["dec_tokens"])], dim=1), fused, mask)
    real = mask.numpy()
    for modality, features in encoded.items():
        m = modality.value
        comparison.add("features", features[mask], golden[f"features_{m}"][real])
        ctc = model.ctc_logits(features, modality).log_softmax(-1)
        comparison.add("CTC log-probabilities", ctc.amax(-1)[mask], golden[f"ctc_maxlogp_{m}"][real])
        comparison.add_choices("CTC log-probabilities", ctc[mask], golden[f"ctc_argmax_{m}"][real])
        comparison.add("CTC log-probabilities", ctc[:, 0], golden[f"ctc_logp_frame0_{m}"])
        decoder = model.logits(states, modality).log_softmax(-1)
        comparison.add("decoder log-probabilities", decoder[:, SCORED_POSITIONS], golden[f"dec_logp_{m}"])
        comparison.add_choices("decoder log-probabilities", decoder, golden[f"dec_argmax_{m}"])
    labels = attention_greedy(model, fused, mask, Modality.AUDIOVISUAL, mask.shape[1] // LABEL_RATIO)
    for clip, (tokens, golden_tokens) in enumerate(zip(labels.tokens, case.description["usr_ar"], strict=True)):
        comparison.add_sequence(f"greedy label of clip {clip}", tokens[: labels.lengths[clip]].tolist(), golden_tokens)
    return comparison


@torch.no_grad()
def compare_searches(case: Case) -> Comparison:
    """The beam searches of a case: tokens (with start and end) and scores of their best hypotheses."""
    comparison = Comparison()
    model, encoded = case.model, case.features()
    for search in case.description.get("searches", []):
        modality, item = Modality(search["modality"]), search["item"]
        options = DecodingOptions(
            beam_size=search["beam"],
            ctc_weight=search["ctc_weight"],
            length_bonus=search["penalty"],
            max_length_ratio=search["maxlenratio"],
        )
        features = encoded[modality][item][case.mask[item]][None]
        real = torch.ones(features.shape[:2], dtype=torch.bool)
        hypotheses = beam_search(model, features, real, modality, options)[0]
        for rank, golden in enumerate(search["hyps"]):
            what = f"hypothesis {rank + 1} of clip {item}, {modality.value}, {options}"
            if rank >= len(hypotheses):
                comparison.differences.append(f"{what}: missing")
                continue
            ours = hypotheses[rank]
            tokens = [model.sos, *ours.tokens, *[model.eos] * ours.num_ends]
            comparison.add_sequence(what, tokens, golden["tokens"])
            scores = torch.tensor([ours.score, ours.decoder_score, ours.ctc_score])
            comparison.add("search scores", scores, np.float32([golden[key] for key in ("score", "decoder", "ctc")]))
    return comparison


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--searches", action="store_true", help="compare the beam searches too")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest error allowed (%(default)s)")
    arguments = parser.parse_args()
    case = load_case(arguments.folder, arguments.name)
    comparisons = [compare_outputs(case), *([compare_searches(case)] if arguments.searches else [])]
    for comparison in comparisons:
        for kind, error in comparison.errors.items():
            sys.stdout.write(f"{arguments.name}: {kind}: largest error {error:.1e}\n")
        for difference in comparison.differences:
            sys.stdout.write(f"{arguments.name}: {difference}\n")
    if all(comparison.passes(arguments.tolerance) for comparison in comparisons):
        sys.stdout.write(f"{arguments.name}: equal\n")
        return 0
    sys.stdout.write(f"{arguments.name}: NOT EQUAL\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
