"""How fast features become tokens, against the search as one would write it first.

    python benchmarks/decoding.py search [--size base --frames 150 --tokens 30 --beams 1 5 10 20 40]
    python benchmarks/decoding.py encode [--size base --frames 150 --clips 1 8]
    python benchmarks/decoding.py throughput [--size base --frames 75 150 300 600 --clips 1 8 32 --beams 1 10 40]
    python benchmarks/decoding.py greedy [--size base --frames 150 --tokens 30 --clips 1 8]
    python benchmarks/decoding.py memory [--size base --frames 150 600 --tokens 30 --beams 1 10 40]
    python benchmarks/decoding.py int8 [--size base --frames 150 --tokens 30 --beam 10] [--model MODEL --corpus CORPUS]

`search` compares, on the same features, the plain search (`seehear.decoding.plain_search`: the decoder sees the whole
prefix for each token, CTC's variables one hypothesis at a time) with ours, in float32 and bfloat16, in turns; medians
and ratios of medians; the hypotheses in float32 must be the same. `encode` compares the encoder with its frontends in
float32, where their images also lie in memory as PyTorch lays them by itself (ours: "channels last"), and bfloat16.
`throughput` gives hours decoded in an hour. `greedy` compares greedy attention with two loops without its cache: one
puts prefix and clip through the decoder anew for each token, one keeps the clip's keys and values; the tokens in
float32 must be the same. `memory` counts what each running hypothesis of the joint search keeps, from the tensors of
the search itself, and measures by how much the peak of resident memory grows with the beam, each search in a process
of its own. `int8` compares models whose Linear layers are quantised as they run (on a CPU) in time and, given a model
and a corpus, in word error rate.

Weights are random, so what ends a sentence is switched off and every search takes as many tokens as it is told.
"""

import argparse
import copy
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from seehear.checkpoint import load_model
from seehear.config import SIZES
from seehear.data.corpus import Corpus
from seehear.decoding.beam_search import _Search, beam_search
from seehear.decoding.ctc import BLANK, ctc_greedy
from seehear.decoding.decode import precision
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.options import DecodingOptions, DType
from seehear.decoding.plain_search import extend, plain_search
from seehear.evaluate import evaluate
from seehear.modality import FRAME_RATE, INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.model.weights import Linear
from training_step import in_turns, never_ends, plain_greedy

AV = Modality.AUDIOVISUAL


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    names = ("search", "encode", "throughput", "greedy", "memory", "int8")
    search, encode, throughput, greedy, memory, int8 = every = [commands.add_parser(name) for name in names]
    for command in every:
        command.add_argument("--size", default="base")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
        command.add_argument("--repeats", type=int, default=3)
        command.add_argument("--ctc-weight", type=float, default=0.1)
    for command in (search, encode, greedy, int8):
        command.add_argument("--frames", type=int, default=150)
    for command in (search, greedy, memory, int8):
        command.add_argument("--tokens", type=int, default=30)
    for command in (encode, greedy):
        command.add_argument("--clips", type=int, nargs="+", default=[1, 8])
    search.add_argument("--beams", type=int, nargs="+", default=[1, 5, 10, 20, 40])
    search.set_defaults(run=compare_searches)
    encode.set_defaults(run=compare_encoding)
    throughput.add_argument("--frames", type=int, nargs="+", default=[75, 150, 300, 600])
    throughput.add_argument("--clips", type=int, nargs="+", default=[1, 8, 32])
    throughput.add_argument("--beams", type=int, nargs="+", default=[1, 10, 40])
    throughput.add_argument("--bf16", action="store_true")
    throughput.set_defaults(run=measure_throughput)
    greedy.set_defaults(run=compare_greedy)
    memory.add_argument("--frames", type=int, nargs="+", default=[150, 600])
    memory.add_argument("--beams", type=int, nargs="+", default=[1, 10, 40])
    memory.set_defaults(run=measure_memory)
    int8.add_argument("--beam", type=int, default=10)
    int8.add_argument("--model", type=Path, help="to be evaluated on the corpus")
    int8.add_argument("--corpus", type=Path)
    int8.set_defaults(run=compare_int8)
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


def half(work: partial[Any], device: str, dtype: DType = "bf16") -> Any:
    """The work in bfloat16, or in numbers of `dtype`."""
    with precision(torch.device(device), dtype):
        return work()


@torch.no_grad()
def compare_encoding(options: argparse.Namespace) -> None:
    """A line for each number of clips."""
    model = build(options)
    channels_first = copy.deepcopy(model)
    for frontend in (channels_first.video_frontend, channels_first.audio_frontend):
        frontend.trunk.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    print("| clips × frames, AV | channels first, s | float32 | bf16 | faster than float32 by | than channels first |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in options.clips:
        _, mask = clips_of(count, options.frames, model, options.device)
        video = torch.randn(count, options.frames, INPUT_SIZE, INPUT_SIZE, device=options.device)
        audio = torch.randn(count, options.frames * SAMPLES_PER_FRAME, device=options.device)
        exact = partial(model.encode, video, audio, mask, [AV])
        plain = partial(channels_first.encode, video, audio, mask, [AV])
        runs = {"plain": plain, "float32": exact, "bf16": partial(half, exact, options.device)}
        s = in_turns(runs, options.repeats, options.device)
        cells = [f"{s[name]:.2f}" for name in runs] + [f"{s[name] / s['bf16']:.1f}" for name in ("float32", "plain")]
        print(f"| {count} × {options.frames} | {' | '.join(cells)} |", flush=True)


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


@torch.no_grad()
def compare_greedy(options: argparse.Namespace) -> None:
    """A line for each number of clips and kind of numbers."""
    model = build(options)
    print(f"clips of {options.frames} frames, {options.tokens} tokens\n")
    print("| clips, numbers | all anew, s | prefix anew | ours | ours is faster by | than prefix anew |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in options.clips:
        given = (model, *clips_of(count, options.frames, model, options.device), AV, options.tokens)
        loops = {"plain": plain_greedy, "prefix": prefix_greedy, "ours": attention_greedy}
        runs: dict[str, partial[Any]] = {name: partial(loop, *given) for name, loop in loops.items()}
        ours = runs["ours"]()
        assert ours.lengths.tolist() == [options.tokens] * count, "as many tokens as asked for"
        assert torch.equal(ours.tokens, runs["plain"]().tokens), "the same tokens"
        assert torch.equal(ours.tokens, runs["prefix"]()), "the same tokens"
        for dtype in ("float32", "bf16"):
            timed = {name: partial(half, run, options.device, dtype) for name, run in runs.items()}
            s = in_turns(timed, options.repeats, options.device)
            cells = [*(f"{s[name]:.3f}" for name in runs), *(f"{s[name] / s['ours']:.1f}" for name in list(runs)[:2])]
            print(f"| {count}, {dtype} | {' | '.join(cells)} |", flush=True)


def prefix_greedy(model: USR, features: Tensor, mask: Tensor, modality: Modality, num_tokens: int) -> Tensor:
    """So many tokens (B, U), each from the whole prefix anew; only the keys and values of the clips are kept."""
    tokens = torch.full((len(features), 1), model.sos, device=features.device)
    cache = model.new_cache()
    for _ in range(num_tokens):
        cache.tokens, cache.num_tokens = [], 0
        states = model.decode(tokens, features, mask, cache)
        chosen = model.logits(states[:, -1], modality).float().log_softmax(-1).argmax(-1)
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
    return tokens[:, 1:]


def measure_memory(options: argparse.Namespace) -> None:
    """What hypotheses keep, and by how much the peak of resident memory grows with their number."""
    print("| frames, search | per token: keys and values | id | fixed: CTC | scores | bytes in all |")
    print("| --- | --- | --- | --- | --- | --- |")
    beam, model = max(options.beams), build(options)
    for frames in options.frames:
        for dtype in ("float32", "bf16"):
            cells = half(partial(kept_by_ours, options, model, frames, beam), options.device, dtype)
            print(f"| {frames}, ours, {dtype} | {' | '.join(f'{cell:,.0f}' for cell in cells)} |", flush=True)
        array, behind = kept_by_plain(options, model, frames, beam)
        print(f"| {frames}, plain | 0 | (8) | {array:,.0f}; {behind:,.0f} with what they are cut from | (24) | |")
    print(
        f"\n| peak of one run each, MiB | {' | '.join(f'beam {beam}' for beam in options.beams)} | KiB per hypothesis |"
    )
    print(f"| --- |{' --- |' * (len(options.beams) + 1)}")
    for frames in options.frames:
        for name in ("ours, float32", "ours, bf16", "plain"):
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
                peaks = list(pool.map(partial(peak_memory, options, name, frames), options.beams))
            growth = (peaks[-1] - peaks[0]) / (options.beams[-1] - options.beams[0])
            cells = " | ".join(f"{peak / 2**10:.1f}" for peak in peaks)
            print(f"| {frames}, {name} | {cells} | {growth:.0f} |", flush=True)


@torch.no_grad()
def kept_by_ours(options: argparse.Namespace, model: USR, frames: int, beam: int) -> list[float]:
    """Bytes of a hypothesis after the last token, and all of them; see the heading of the table."""
    features, mask = clips_of(1, frames, model, options.device)
    settings = settings_for(beam, options.tokens, frames, options.ctc_weight)
    search = _Search(model, features, mask, AV, settings, None)
    for _ in range(options.tokens):
        search.advance()
    running = search.beam
    assert running.ctc is not None
    assert running.score.shape[1] == beam, "a full beam"
    *ctc, ctc_score = running.ctc
    scores = (running.score, running.decoder_score, running.language_score, ctc_score)
    keys_values = [part for layer in search.cache.tokens for part in layer]
    parts = (keys_values, [running.tokens], ctc, scores)
    sizes = [sum(tensor.untyped_storage().nbytes() for tensor in part) / beam for part in parts]
    return [sizes[0] / search.cache.num_tokens, sizes[1] / running.tokens.shape[2], *sizes[2:], sum(sizes)]


def kept_by_plain(options: argparse.Namespace, model: USR, frames: int, beam: int) -> tuple[float, float]:
    """Bytes of what CTC knows of a hypothesis, and of the arrays that it is a part of and keeps alive."""
    settings = settings_for(beam, 4, frames, options.ctc_weight)
    with mock.patch("seehear.decoding.plain_search.extend", wraps=extend) as calls:
        plain_search(model, clips_of(1, frames, model, options.device)[0][0], AV, settings)
    seen = [call.args[0] for call in calls.call_args_list[-beam:]]
    arrays = [array for prefix in seen for array in (prefix.token, prefix.blank)]
    behind = {id(array.base): array.base.nbytes for array in arrays if array.base is not None}
    return sum(array.nbytes for array in arrays) / beam, sum(behind.values()) / beam


def peak_memory(options: argparse.Namespace, name: str, frames: int, beam: int) -> int:
    """The peak of this process' resident memory in a search, in KiB."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = build(options)
    features, mask = clips_of(1, frames, model, options.device)
    settings = settings_for(beam, options.tokens, frames, options.ctc_weight)
    ours = partial(beam_search, model, features, mask, AV, settings)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of making the model, is forgotten
    if name == "plain":
        plain_search(model, features[0], AV, settings)
    else:
        half(ours, options.device, "bf16" if name.endswith("bf16") else "float32")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@torch.no_grad()
def compare_int8(options: argparse.Namespace) -> None:
    """Times on random weights; error rates of a model, if one is given."""
    ways = ways_to_compute(build(options))
    features, mask = clips_of(1, options.frames, ways["float32"][0], "cpu")
    video = torch.randn(1, options.frames, INPUT_SIZE, INPUT_SIZE)
    audio = torch.randn(1, options.frames * SAMPLES_PER_FRAME)
    settings = settings_for(options.beam, options.tokens, options.frames, options.ctc_weight)
    works = {
        "encode AV": lambda model: model.encode(video, audio, mask, [AV]),
        "encode, without frontends": lambda model: model.contextualise({AV: features}, mask),
        f"decode, beam {options.beam}": lambda model: beam_search(model, features, mask, AV, settings, n_best=1),
    }
    print(f"| {options.frames} frames, s | {' | '.join(ways)} | int8 is faster than bf16 by | and with bf16 by |")
    print(f"| --- |{' --- |' * (len(ways) + 2)}")
    for name, work in works.items():
        runs = {way: partial(half, partial(work, model), "cpu", dtype) for way, (model, dtype) in ways.items()}
        s = in_turns(runs, options.repeats, "cpu")
        ratios = " | ".join(f"{s['bf16'] / s[way]:.2f}" for way in ("int8", "int8, bf16"))
        print(f"| {name} | {' | '.join(f'{s[way]:.3f}' for way in ways)} | {ratios} |", flush=True)
    if not options.model:
        return
    model, tokenizer = load_model(options.model)
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split("test")[:100]
    settings = DecodingOptions(beam_size=options.beam, ctc_weight=0.5, max_length_ratio=0.4)
    print(f"\n| WER, {len(utterances)} clips | {' | '.join(m.value for m in Modality)} | seconds |")
    print(f"| --- |{' --- |' * (len(Modality) + 1)}")
    for way, (each, dtype) in ways_to_compute(model).items():
        report = evaluate(each, tokenizer, corpus, utterances, tuple(Modality), settings, dtype=dtype)
        rates = " | ".join(f"{100 * (result.wer or 0):.1f}" for result in report.results)
        print(f"| {way} | {rates} | {report.seconds:.0f} |", flush=True)


def ways_to_compute(model: USR) -> dict[str, tuple[USR, DType]]:
    """A model and the numbers for what is not quantised, by name."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear  # no other is quantised
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is one more package
        quantised = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8, inplace=True)
    for module in quantised.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):  # they take float32 only
            module.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    exact: dict[str, tuple[USR, DType]] = {"float32": (model, "float32"), "bf16": (model, "bf16")}
    return {**exact, "int8": (quantised, "float32"), "int8, bf16": (quantised, "bf16")}


if __name__ == "__main__":
    main()
