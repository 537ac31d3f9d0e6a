"""Time and peak memory of recognition at size Huge on a CPU: load, encode, joint search with several beams.

    python benchmarks/huge.py WORK [--size huge] [--threads 2] [--seconds 4 15] [--beams 1 10 20 40] [--weights float32]

Makes a model folder with random weights in WORK (at size Huge 3.8 GB, kept for the next time). Each figure comes from a
process of its own: how long it takes, and the largest resident memory meanwhile, weights included. Weights in float32
are mapped from the file: loading reads little, encoding the rest, from the disk if the system has not kept it. With
`--weights fp16` or `bf16` loading reads all and keeps it in half precision. Every result is added to
WORK/SIZE-WEIGHTS-THREADS.json at once; a run that was interrupted goes on with what is missing.

Random weights never end a sentence early, so each search takes as many tokens as real speech of that length has:
`--tokens-per-second` (4; the published units have about 3 characters, and speech has 12 to 15 a second).
Clips are noise, with sound and lips; the search has the published CTC weight of 0.1.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from peak_memory import Peak, in_its_own_process
from seehear.card import ModelCard
from seehear.checkpoint import CONFIG_FILE, load_model, save_model
from seehear.config import SIZES
from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK
from seehear.decoding.options import DecodingOptions
from seehear.files import write_atomically
from seehear.modality import FRAME_RATE, INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer
from training_step import never_ends

AV = Modality.AUDIOVISUAL
WEIGHTS = {"float32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_model(folder: Path, size: str) -> None:
    """Save a model that never ends a sentence, whose CTC is sharp and mostly blank, as that of a trained one."""
    torch.manual_seed(0)
    units = folder.with_name("units.txt")
    config = SIZES[size].model_copy(update={"vocab_size": 1049})
    units.write_text("<unk> 1\n" + "".join(f"▁W{number} {number + 2}\n" for number in range(1046)), encoding="utf-8")
    model = never_ends(USR(config).eval())
    for name, head in model.ctc_heads.items():
        head.weight.data *= 4.0
        head.bias.data[BLANK] = 6.0
        model.output_heads[name].weight.data *= 3.0
    save_model(folder, model, Tokenizer.from_units(units), ModelCard(title=f"{size}, random weights"))


@torch.no_grad()
def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One figure: of loading, with `--seconds` of encoding, with `--beams` too of a search."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with Peak() as loading:
        model, _ = load_model(folder, weights_dtype=WEIGHTS[options.weights])
    if not options.seconds:
        return loading.result()
    frames = int(options.seconds[0] * FRAME_RATE)
    video = torch.randn(1, frames, INPUT_SIZE, INPUT_SIZE)
    audio = 0.1 * torch.randn(1, frames * SAMPLES_PER_FRAME)
    mask = torch.ones(1, frames, dtype=torch.bool)
    with Peak() as encoding:
        features = model.encode(video, audio, mask, [AV])[AV]
    if not options.beams:
        return encoding.result()
    del video, audio
    ratio = options.tokens_per_second / FRAME_RATE
    settings = DecodingOptions(beam_size=options.beams[0], ctc_weight=0.1, max_length_ratio=ratio)
    with Peak() as searching:
        found = beam_search(model, features, mask, AV, settings, n_best=1)
    return searching.result() | {"tokens": len(found[0][0].tokens)}


def table(results: dict[str, dict[str, float]], seconds: list[float], beams: list[int]) -> str:
    """A line for each figure."""
    lines = ["| what | seconds | peak memory, MB | of it private, MB | tokens |", "| --- | --- | --- | --- | --- |"]
    for key in keys(seconds, beams):
        if key in results:
            one = results[key]
            sizes = f"{one['resident'] / 1e6:,.0f} | {one['private'] / 1e6:,.0f}"
            lines.append(f"| {key} | {one['seconds']:.2f} | {sizes} | {one.get('tokens', '')} |")
    return "\n".join(lines)


def keys(seconds: list[float], beams: list[int]) -> dict[str, list[str]]:
    """What is measured, in words, with the arguments of its process."""
    found: dict[str, list[str]] = {"load": []}
    for length in seconds:
        found[f"encode {length:g} s"] = ["--seconds", str(length)]
        for beam in beams:
            found[f"search {length:g} s, beam {beam}"] = ["--seconds", str(length), "--beams", str(beam)]
    return found


def main() -> None:
    """Measure what is missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="huge", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, nargs="*", default=[4.0, 15.0])
    parser.add_argument("--beams", type=int, nargs="*", default=[1, 10, 20, 40])
    parser.add_argument("--tokens-per-second", type=float, default=4.0)
    parser.add_argument("--weights", choices=WEIGHTS, default="float32")
    parser.add_argument("--step", choices=["make", "measure"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder = options.work / f"{options.size}-random"
    if options.step == "make":
        make_model(folder, options.size)
        print("{}")
        return
    if options.step == "measure":
        print(json.dumps(measure(folder, options)))
        return
    given = [str(options.work), "--size", options.size, "--threads", str(options.threads), "--weights", options.weights]
    given += ["--tokens-per-second", str(options.tokens_per_second)]
    if not (folder / CONFIG_FILE).is_file():
        in_its_own_process([*given, "--step", "make"])
    log = options.work / f"{options.size}-{options.weights}-{options.threads}.json"
    results = json.loads(log.read_text()) if log.is_file() else {}
    for key, arguments in keys(options.seconds, options.beams).items():
        if key not in results:
            switched_off = [name for name in ("--seconds", "--beams") if name not in arguments]
            results[key] = in_its_own_process([*given, "--step", "measure", *arguments, *switched_off])
            write_atomically(log, json.dumps(results, indent=2) + "\n")
            print(f"{key}: {results[key]['seconds']:.2f} s", flush=True)
    print(f"\n{options.size}, random weights in {options.weights}, CPU, {options.threads} threads\n")
    print(table(results, options.seconds, options.beams))


if __name__ == "__main__":
    main()
