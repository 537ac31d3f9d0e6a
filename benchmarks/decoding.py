"""How fast features become tokens, against the search as one would write it first.

    python benchmarks/decoding.py search [--size base --frames 150 --tokens 30 --beams 1 5 10 20 40]
    python benchmarks/decoding.py encode [--size base --frames 150 --clips 1 8]
    python benchmarks/decoding.py throughput [--size base --frames 75 150 300 600 --clips 1 8 32 --beams 1 10 40]

`search` compares, on the same features, the plain search (`seehear.decoding.plain_search`: the decoder sees the whole
prefix for each token, CTC's variables one hypothesis at a time) with ours, in float32 and bfloat16, in turns; medians
and ratios of medians; the hypotheses in float32 must be the same. `encode` compares the encoder with its frontends in
float32 and bfloat16. `throughput` gives hours decoded in an hour.

Weights are random, so what ends a sentence is switched off and every search takes as many tokens as it is told.
"""

import argparse
from functools import partial

import torch
from torch import Tensor

from seehear.config import SIZES
from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_greedy
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.options import DecodingOptions
from seehear.decoding.plain_search import plain_search
from seehear.modality import FRAME_RATE, INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from training_step import in_turns, never_ends

AV = Modality.AUDIOVISUAL


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    search, encode, throughput = (commands.add_parser(name) for name in ("search", "encode", "throughput"))
    for command in (search, encode, throughput):
        command.add_argument("--size", default="base")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
        command.add_argument("--repeats", type=int, default=3)
        command.add_argument("--ctc-weight", type=float, default=0.1)
    search.add_argument("--frames", type=int, default=150)
    search.add_argument("--tokens", type=int, default=30)
    search.add_argument("--beams", type=int, nargs="+", default=[1, 5, 10, 20, 40])
    search.set_defaults(run=compare_searches)
    encode.add_argument("--frames", type=int, default=150)
    encode.add_argument("--clips", type=int, nargs="+", default=[1, 8])
    encode.set_defaults(run=compare_encoding)
    throughput.add_argument("--frames", type=int, nargs="+", default=[75, 150, 300, 600])
    throughput.add_argument("--clips", type=int, nargs="+", default=[1, 8, 32])
    throughput.add_argument("--beams", type=int, nargs="+", default=[1, 10, 40])
    throughput.add_argument("--bf16", action="store_true")
    throughput.set_defaults(run=measure_throughput)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    print(f"{options.size} on {where}, median of {options.repeats}\n")
    options.run(options)


def build(options: argparse.Namespace) -> USR:
    """A model that never ends and whose CTC is sharp, blank on most frames, as that of a trained one."""
    model = never_ends(USR(SIZES[options.size]).eval().to(options.device))
    for name, head in model.ctc_heads.items():
        head.weight.data *= 4.0  # type: ignore[operator, union-attr]
        head.bias.data[BLANK] = 6.0  # type: ignore[index, operator, union-attr]
        model.output_heads[name].weight.data *= 3.0  # type: ignore[operator, union-attr]
    return model


def clips_of(count: int, frames: int, model: USR, device: str) -> tuple[Tensor, Tensor]:
    """Features and mask."""
    features = torch.randn(count, frames, model.config.dim, device=device)
    return features, torch.ones(count, frames, dtype=torch.bool, device=device)


@torch.no_grad()
def compare_searches(options: argparse.Namespace) -> None:
    """A line for each beam size."""
    model = build(options)
    features, mask = clips_of(1, options.frames, model, options.device)
    print(f"a clip of {options.frames} frames, {options.tokens} tokens, CTC weight {options.ctc_weight}\n")
    print("| beam | plain, s | ours | bf16 | ours is faster by | bf16 |\n| --- | --- | --- | --- | --- | --- |")
    for beam in options.beams:
        settings = settings_for(beam, options.tokens, options.frames, options.ctc_weight)
        ours = partial(beam_search, model, features, mask, AV, settings, n_best=3)
        plain = partial(plain_search, model, features[0], AV, settings)
        found = [[hypothesis.tokens for hypothesis in hypotheses[:3]] for hypotheses in (ours()[0], plain())]
        assert found[0] == found[1], "the same hypotheses"
        s = in_turns(
            {"plain": plain, "ours": ours, "bf16": partial(half, ours, options.device)}, options.repeats, options.device
        )
        ratios = f"{s['plain'] / s['ours']:.1f} | {s['plain'] / s['bf16']:.1f}"
        print(f"| {beam} | {s['plain']:.2f} | {s['ours']:.3f} | {s['bf16']:.3f} | {ratios} |", flush=True)


def settings_for(beam: int, tokens: int, frames: int, ctc_weight: float) -> DecodingOptions:
    """A search of so many tokens."""
    return DecodingOptions(beam_size=beam, ctc_weight=ctc_weight, max_length_ratio=(tokens + 0.5) / frames)


def half(search: partial[object], device: str) -> object:
    """The search in bfloat16."""
    with torch.autocast(device, torch.bfloat16):
        return search()


@torch.no_grad()
def compare_encoding(options: argparse.Namespace) -> None:
    """A line for each number of clips."""
    model = build(options)
    print("| clips × frames, AV | float32, s | bf16 | faster by |\n| --- | --- | --- | --- |")
    for count in options.clips:
        _, mask = clips_of(count, options.frames, model, options.device)
        video = torch.randn(count, options.frames, INPUT_SIZE, INPUT_SIZE, device=options.device)
        audio = torch.randn(count, options.frames * SAMPLES_PER_FRAME, device=options.device)
        exact = partial(model.encode, video, audio, mask, [AV])
        runs = {"float32": exact, "bf16": partial(half, exact, options.device)}
        s = in_turns(runs, options.repeats, options.device)
        ratio = s["float32"] / s["bf16"]
        print(f"| {count} × {options.frames} | {s['float32']:.2f} | {s['bf16']:.2f} | {ratio:.1f} |", flush=True)


@torch.no_grad()
def measure_throughput(options: argparse.Namespace) -> None:
    """Hours of speech decoded in an hour, from features, five tokens a second."""
    model = build(options)
    methods = ["CTC", "attention", *(f"beam {beam}" for beam in options.beams)]
    print(f"| clips × seconds | {' | '.join(methods)} |\n| --- |{' --- |' * len(methods)}")
    for count in options.clips:
        for frames in options.frames:
            features, mask = clips_of(count, frames, model, options.device)
            given = (model, features, mask, AV)
            tokens = frames // 5
            runs = {
                "CTC": partial(lambda features, mask: ctc_greedy(model.ctc_logits(features, AV), mask), features, mask),
                "attention": partial(attention_greedy, *given, tokens),
            }
            for beam in options.beams:
                settings = settings_for(beam, tokens, frames, options.ctc_weight)
                runs[f"beam {beam}"] = partial(beam_search, *given, settings, n_best=1)
            with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
                seconds = in_turns(runs, options.repeats, options.device)
            speech = count * frames / FRAME_RATE
            cells = " | ".join(f"{speech / seconds[method]:.0f}" for method in methods)
            print(f"| {count} × {frames / FRAME_RATE:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
