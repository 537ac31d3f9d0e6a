"""`seehear evaluate`: error rates of a model on a prepared corpus."""

import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seehear.cli import options
from seehear.cli.options import DEFAULT_DECODING
from seehear.decoding.options import OPTIONS_OF, DecodingMethod, DecodingOptions, DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from rich.table import Table

    from seehear.data.corpus import Corpus, Utterance
    from seehear.decoding.language_model import LanguageModel
    from seehear.evaluate import Condition, Record, Report, Result
    from seehear.metrics import Interval
    from seehear.modality import Modality
    from seehear.model.usr import USR
    from seehear.tokenizer import Tokenizer

METHOD_NAMES = {
    DecodingMethod.CTC: "greedy CTC",
    DecodingMethod.ATTENTION: "greedy attention",
    DecodingMethod.CTC_DRIVEN: "CTC-driven decoding",
    DecodingMethod.CTC_BEAM: "CTC prefix search",
    DecodingMethod.RESCORE: "CTC prefix search, rescored",
    DecodingMethod.BEAM: "beam search",
}


def evaluate(  # long because its options are
    corpus: Annotated[Path, typer.Argument(help="A prepared corpus.")],
    model: options.ModelOption,
    split: Annotated[str, typer.Option(help="Which utterances.")] = "test",
    modality: Annotated[str, typer.Option(help="a (sound), v (lips), av (both), or several: a,v,av.")] = "a,v,av",
    decode: options.DecodeOption = DEFAULT_DECODING.method,
    beam_size: options.BeamSizeOption = DEFAULT_DECODING.beam_size,
    ctc_weight: options.CTCWeightOption = DEFAULT_DECODING.ctc_weight,
    length_bonus: options.LengthBonusOption = DEFAULT_DECODING.length_bonus,
    max_length_ratio: options.MaxLengthRatioOption = DEFAULT_DECODING.max_length_ratio,
    lm: options.LanguageModelOption = None,
    lm_weight: options.LanguageWeightOption = options.DEFAULT_LANGUAGE_WEIGHT,
    noise: Annotated[Path | None, typer.Option(help="A recording of noise to mix in; needs --snr.")] = None,
    snr: Annotated[float | None, typer.Option(help="Loudness of speech over noise, in decibels.")] = None,
    blank_video: Annotated[
        bool, typer.Option("--blank_video", help="Hide the mouth: what the lips contribute is what is lost.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="JSON lines, one per utterance and modality; by default in MODEL/evaluation."
        ),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Results of another model on the same utterances, to test the difference.")
    ] = None,
    device: options.DeviceOption = "auto",
    search_device: options.SearchDeviceOption = None,
    dtype: options.DTypeOption = "auto",
    half: options.HalfOption = False,
    threads: options.ThreadsOption = None,
) -> None:
    """Word and character error rates, with substitutions, deletions, insertions and 95 % intervals.

    Every utterance of the split is decoded once in each modality for which it has the streams.
    """
    modalities = options.parse_modalities(modality)
    options.use_threads(threads)

    from rich.console import Console

    from seehear.checkpoint import load_model
    from seehear.data.corpus import Corpus
    from seehear.decoding.decode import weights_type
    from seehear.decoding.ngram import NGram
    from seehear.devices import describe_search, find_search_device, same_device
    from seehear.evaluate import decodable, read_records, require_scorable, write_report
    from seehear.files import require_writable
    from seehear.recognizer import find_model_folder, require_text

    language_weight = lm_weight if lm else 0.0
    decoding = DecodingOptions(decode, beam_size, ctc_weight, length_bonus, max_length_ratio, language_weight)
    if lm:
        decoding.require_language_model_asked()
    condition = read_condition(noise, snr, blank_video)
    others = read_records(compare) if compare else {}
    loaded = Corpus.load(corpus)
    utterances = loaded.split(split)
    require_scorable(utterances)
    decodable(utterances, modalities)
    folder = find_model_folder(model)
    require_text(folder)
    home = folder / "evaluation" if Path(model).is_dir() else Path()
    place, precision = options.choose_device(device, dtype)
    search, numbers = find_search_device(place, search_device), precision.numbers
    network, tokenizer = load_model(folder, place, weights_dtype=weights_type(numbers, half=half))
    language_model = NGram.load(lm, tokenizer.vocab_size, tokenizer.pieces) if lm else None
    apart = None if same_device(search, place) else search
    name = file_name(loaded.root.resolve().name, split, modality, decoding, condition, numbers, lm, half, apart)
    path = output or home / f"{name}.jsonl"
    require_writable(path.parent)
    options.tell_device(device, place, precision, describe_search(place, search_device))
    report = measure(
        network, tokenizer, loaded, utterances, modalities, decoding, condition, language_model, numbers, search_device
    )
    about = {"model": model, "corpus": str(corpus), "split": split, "dtype": numbers}
    about |= {"device": str(place), "search_device": str(search)}
    if lm:
        about["language_model"] = str(lm)
    if half:
        about["weights"] = "half precision"
    write_report(report, path, about)
    console = Console()
    console.print(f"{corpus}, {split}: {condition}; {describe_decoding(decoding)}; normaliser {report.normaliser}")
    console.print(error_table(report))
    if report.reduced:
        console.print(describe_reduced(report))
    if compare:
        console.print(f"WER, this model minus {compare}; p by paired bootstrap")
        console.print(
            comparison_table({r.modality: list(r.records) for r in report.results if r.records}, others, compare)
        )
    console.print(f"{len(utterances)} utterances in {report.seconds:.1f} s; each of them in {path}")


def measure(
    model: "USR",
    tokenizer: "Tokenizer",
    corpus: "Corpus",
    utterances: "Sequence[Utterance]",
    modalities: "Sequence[Modality]",
    decoding: DecodingOptions,
    condition: "Condition",
    language_model: "LanguageModel | None",
    dtype: DType,
    search_device: str | None = None,
) -> "Report":
    """Evaluate, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    from seehear.evaluate import evaluate

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(str(condition), total=len(utterances))
        return evaluate(
            model,
            tokenizer,
            corpus,
            utterances,
            modalities,
            decoding,
            condition=condition,
            language_model=language_model,
            dtype=dtype,
            search_device=search_device,
            on_batch=lambda clips: progress.advance(task, clips),
        )


def read_condition(noise: Path | None, snr: float | None, blank_video: bool) -> "Condition":
    """What is done to the clips; the noise is read from its file."""
    from seehear.data.media import read_audio
    from seehear.errors import ConfigError
    from seehear.evaluate import Condition, Noise

    if noise is None:
        if snr is not None:
            raise ConfigError("--snr says how loud a noise is: give a recording of it with --noise")
        return Condition(blank_video=blank_video)
    if snr is None:
        raise ConfigError("--noise needs --snr, its ratio to the speech in decibels, as --snr 0")
    samples = read_audio(noise)
    if not samples.any():
        raise ConfigError(f"{noise} is silent: nothing would be mixed in")
    return Condition(Noise(noise.name, samples, snr), blank_video)


def file_name(
    corpus: str,
    split: str,
    modality: str,
    decoding: DecodingOptions,
    condition: "Condition",
    dtype: DType,
    lm: Path | None = None,
    half: bool = False,
    search_device: "torch.device | None" = None,
) -> str:
    """A name that tells results of other options, language models and conditions apart.

    `search_device` is where the search runs, if not where the encoder does.
    """
    parts = [corpus, split, decoding.method.value, *unusual(decoding)]
    if lm:  # by its content: names repeat
        parts.append(f"{lm.stem}-{zlib.crc32(lm.read_bytes()):08x}={decoding.language_weight:g}")
    if modality != "a,v,av":
        parts.append(modality.replace(",", "-"))
    if str(condition) != "clean":
        parts.append(str(condition).replace(", ", "-").replace(" ", "-"))
    if dtype != "float32":
        parts.append(dtype)
    if half:
        parts.append("half")
    if search_device:
        parts.append(f"search={search_device}".replace(":", ""))
    return "-".join(parts)


def unusual(decoding: DecodingOptions) -> list[str]:
    """The options that matter for the method and are not what they are by default, as `ctc_weight=0.5`; the weight of a
    language model stands with its name."""
    names = [name for name in OPTIONS_OF[decoding.method] if name != "language_weight"]
    values = {name: (getattr(decoding, name), getattr(DEFAULT_DECODING, name)) for name in names}
    return [f"{name}={value:g}" for name, (value, default) in values.items() if value != default]


def describe_decoding(decoding: DecodingOptions) -> str:
    """The method and the options that matter for it."""
    values = {
        "beam_size": f"{decoding.beam_size} hypotheses",
        "ctc_weight": f"CTC weight {decoding.ctc_weight:g}",
        "length_bonus": f"length bonus {decoding.length_bonus:g}" if decoding.length_bonus else "",
        "language_weight": f"language model {decoding.language_weight:g}" if decoding.language_weight else "",
        "max_length_ratio": f"length ratio {decoding.max_length_ratio:g}",
    }
    matter = ", ".join(filter(None, (values[name] for name in OPTIONS_OF[decoding.method])))
    return METHOD_NAMES[decoding.method] + (f" ({matter})" if matter else "")


def error_table(report: "Report") -> "Table":
    """Two rows for each modality: words and characters."""
    from rich.table import Table

    table = Table("input", "")
    for heading in ("%", "95 % interval", "sub", "del", "ins", "ref", "clips"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in report.results:
        clips, name = count_clips(result), result.modality.value.upper()
        for label, counts, interval in (
            ("WER", result.words, result.wer_interval),
            ("CER", result.characters, result.cer_interval),
        ):
            numbers = (counts.substitutions, counts.deletions, counts.insertions, counts.reference_length)
            cells = map(str, numbers) if result.records else ["–"] * len(numbers)
            table.add_row(name, label, percent(counts.rate), bounds(interval), *cells, clips)
            name = clips = ""
        table.add_section()
    return table


def count_clips(result: "Result") -> str:
    """How many clips were measured; if some lack sound or picture, of how many."""
    measured = len(result.records)
    return f"{measured} of {measured + result.lacking}" if result.lacking else str(measured)


def describe_reduced(report: "Report") -> str:
    """How many clips were decoded otherwise than asked for, as memory did not suffice."""
    counts = Counter(report.reduced.values())
    ways = ", ".join(f"{count} {way}" for way, count in counts.most_common())
    clips = len({record.id for record in report.records})
    return f"memory did not suffice for {len(report.reduced)} of {clips} clips, which these figures hold: {ways}"


def comparison_table(
    records: dict["Modality", list["Record"]], others: dict["Modality", list["Record"]], path: Path
) -> "Table":
    """The difference of word error rates in the modalities that both have."""
    from rich.table import Table

    from seehear.errors import CorpusError
    from seehear.evaluate import compare

    common = [modality for modality in records if modality in others]
    if not common:
        raise CorpusError(f"{path} holds none of the modalities {', '.join(m.value for m in records)}")
    table = Table("input")
    for heading in ("points", "95 % interval", "p"):
        table.add_column(heading, justify="right")
    for modality in common:
        comparison = compare(others[modality], records[modality])
        if comparison is None:
            table.add_row(modality.value.upper(), "–", "–", "–")
        else:
            low, high = (f"{100 * bound:+.1f}" for bound in comparison.interval)
            difference = f"{100 * comparison.difference:+.1f}"
            table.add_row(modality.value.upper(), difference, f"{low} to {high}", f"{comparison.p_value:.3f}")
    return table


def percent(rate: float | None) -> str:
    """A rate in percent, or a dash where there is none."""
    return "–" if rate is None else f"{100 * rate:.1f}"


def bounds(interval: "Interval | None") -> str:
    """An interval in percent."""
    return "–" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
