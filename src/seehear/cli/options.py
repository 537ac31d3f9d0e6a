"""Options that several commands share, named as in Whisper where Whisper has them."""

import itertools
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from seehear.decoding.options import DecodingMethod, DecodingOptions, DType
from seehear.errors import ConfigError
from seehear.listening.options import FaceChoice, WindowOptions
from seehear.modality import Modality
from seehear.transcript import WRITERS

if TYPE_CHECKING:
    import torch

    from seehear.devices import Precision

DEFAULT_DECODING = DecodingOptions()

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A model folder, or ORGANISATION/NAME of one on the Hugging Face hub.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps; auto: CUDA, else MPS, else CPU.")]
SearchDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--search-device",
        "--search_device",
        help="Device of decoder and CTC heads, as cpu; by default that of the encoder, or the CPU beside mps.",
    ),
]
DTypeOption = Annotated[
    DType,
    typer.Option(
        "--dtype",
        help="Numbers to compute with; auto: float32 on a CPU, bf16 on GPUs that multiply it, fp16 on earlier ones.",
    ),
]
HalfOption = Annotated[
    bool,
    typer.Option(
        "--half",
        help="Keep the weights in half precision: half the memory, a little slower.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads for the arithmetic.")]
DecodeOption = Annotated[
    DecodingMethod,
    typer.Option(
        "--decode",
        help="ctc and attention are greedy; beam is the joint search; rescore ranks what a CTC search finds; "
        "ctc-driven is the teacher's way.",
    ),
]
BeamSizeOption = Annotated[int, typer.Option("--beam_size", min=1, help="Hypotheses that a search keeps.")]
CTCWeightOption = Annotated[
    float, typer.Option("--ctc_weight", min=0.0, max=1.0, help="Share of CTC in the score of a beam search.")
]
LengthBonusOption = Annotated[float, typer.Option("--length_bonus", help="Added to that score for every token.")]
MaxLengthRatioOption = Annotated[
    float, typer.Option("--max_length_ratio", min=0.0, help="Longest output in tokens per video frame.")
]


DetectorOption = Annotated[
    Literal["auto", "mediapipe", "cropped"],
    typer.Option(help="How the mouth is found; cropped: the video shows nothing else. auto: by the picture's size."),
]
FaceModelOption = Annotated[
    Path | None,
    typer.Option("--face_model", help="MediaPipe's face_landmarker.task; without it, it is downloaded once."),
]
DEFAULT_WINDOWS = WindowOptions()
LongestOption = Annotated[float, typer.Option("--longest", help="Seconds of the longest window that is heard at once.")]
PauseOption = Annotated[float, typer.Option("--pause", help="Seconds of silence at which a window ends.")]
WholeOption = Annotated[bool, typer.Option("--whole", help="Hear each file in one piece, up to ten minutes.")]
LanguageModelOption = Annotated[
    Path | None, typer.Option("--lm", help="A language model that `seehear lm` made, for beam and rescore.")
]
LanguageWeightOption = Annotated[float, typer.Option("--lm_weight", min=0.0, help="Its share, beside the others.")]
DEFAULT_LANGUAGE_WEIGHT = DEFAULT_DECODING.language_weight


WHISPER_FLAGS = ("--word_timestamps", "--word-timestamps", "--highlight_words", "--highlight-words")
"""Options that Whisper wants `True` or `False` after, and we do not."""


def without_truth(arguments: list[str]) -> list[str]:
    """The command line with the flag alone for `--word_timestamps True`, and without it for `False`."""
    plain: list[str] = []
    for before, argument in itertools.pairwise(["", *arguments]):
        name, _, truth = argument.partition("=")
        if name in WHISPER_FLAGS and truth in ("True", "False"):
            plain += [name] if truth == "True" else []
        elif before not in WHISPER_FLAGS or argument not in ("True", "False"):
            plain.append(argument)
        elif argument == "False":
            plain.pop()
    return plain


def parse_modalities(text: str) -> tuple[Modality, ...]:
    """`a,v,av` → modalities, each once."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in set(Modality)]
    if unknown:
        raise ConfigError(f"no modality '{unknown[0]}': give a (sound), v (lips), av (both), or several as in a,v,av")
    return tuple(dict.fromkeys(Modality(name) for name in names))


def parse_face(text: str) -> FaceChoice:
    """`largest`, or a number."""
    if text in ("speaking", "largest", "all"):
        return cast(FaceChoice, text)
    if text.isdecimal():
        return int(text)
    raise ConfigError(f"no face '{text}': give speaking, largest, all, or the number of a face, 0 for the first")


def parse_formats(text: str) -> tuple[str, ...]:
    """`txt,json` or `all` → names of output formats."""
    names = tuple(WRITERS) if text == "all" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise ConfigError(f"no output format '{unknown[0]}': there are {', '.join(WRITERS)} and all")
    return names


def use_threads(threads: int | None) -> None:
    """Limit PyTorch to so many CPU threads, if a number is given."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def choose_device(device: str, dtype: DType) -> tuple["torch.device", "Precision"]:
    """Where a model recognises, and with which numbers; `tell_device` prints it, and no Python warning does."""
    from seehear.devices import EmulationWarning, choose_precision, find_device

    warnings.simplefilter("ignore", EmulationWarning)
    found = find_device(device)
    return found, choose_precision(found, dtype, training=False)


def tell_device(asked: str, found: "torch.device", precision: "Precision", search: str = "") -> None:
    """Print on standard error what `choose_device` chose, and what speaks against it, once nothing is refused any more.

    `search` is what `seehear.devices.describe_search` returns, where there is a search.
    """
    from seehear.devices import describe_choice

    for line in describe_choice(asked, found, precision, "--dtype auto", search=search):
        print_beside(line)


def print_beside(text: str) -> None:
    """On standard error, if anybody reads it."""
    with suppress(BrokenPipeError):
        typer.echo(text, err=True)
