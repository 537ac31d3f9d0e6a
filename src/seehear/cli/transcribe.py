"""`seehear transcribe`: recordings to text."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seehear.cli import options
from seehear.cli.options import DEFAULT_DECODING
from seehear.decoding.options import NO_SPEECH, DecodingOptions

if TYPE_CHECKING:
    from seehear.transcript import Transcript


def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Video or sound, anything that FFmpeg reads.")],
    model: options.ModelOption,
    modality: Annotated[
        Literal["auto", "a", "v", "av"],
        typer.Option(help="Sound, lips, both, or at any time what there is."),
    ] = "auto",
    face: Annotated[
        str, typer.Option(help="Whose lips: speaking, the one who speaks; largest; all; or the number of a face.")
    ] = "speaking",
    detector: options.DetectorOption = "auto",
    face_model: options.FaceModelOption = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output_dir", "-o", help="Folder to write transcripts to as files.")
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--output_format",
            "-f",
            help="txt, vtt, srt, tsv, json, several as in txt,srt, or all. Without --output_dir, files go here.",
        ),
    ] = None,
    save_crops: Annotated[
        bool, typer.Option("--save_crops", help="Write what the model saw as NAME-crops.mp4, with its text.")
    ] = False,
    word_timestamps: Annotated[
        bool, typer.Option("--word_timestamps", help="Find out when each word is said; json and subtitles tell.")
    ] = False,
    max_line_width: Annotated[
        int | None, typer.Option("--max_line_width", min=1, help="Characters of a subtitle's line.")
    ] = None,
    max_line_count: Annotated[int | None, typer.Option("--max_line_count", min=1, help="Lines of a subtitle.")] = None,
    highlight_words: Annotated[
        bool, typer.Option("--highlight_words", help="Underline each word of a subtitle as it is said.")
    ] = False,
    longest: options.LongestOption = options.DEFAULT_WINDOWS.longest,
    pause: options.PauseOption = options.DEFAULT_WINDOWS.pause,
    whole: options.WholeOption = False,
    decode: options.DecodeOption = DEFAULT_DECODING.method,
    beam_size: options.BeamSizeOption = DEFAULT_DECODING.beam_size,
    ctc_weight: options.CTCWeightOption = DEFAULT_DECODING.ctc_weight,
    length_bonus: options.LengthBonusOption = DEFAULT_DECODING.length_bonus,
    max_length_ratio: options.MaxLengthRatioOption = DEFAULT_DECODING.max_length_ratio,
    lm: options.LanguageModelOption = None,
    lm_weight: options.LanguageWeightOption = options.DEFAULT_LANGUAGE_WEIGHT,
    no_speech_threshold: Annotated[
        float,
        typer.Option(
            "--no_speech_threshold", min=0.0, max=1.0, help="Probability of silence above which nothing is written."
        ),
    ] = NO_SPEECH,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Windows recognised at once.")] = 8,
    device: options.DeviceOption = "auto",
    search_device: options.SearchDeviceOption = None,
    dtype: options.DTypeOption = "auto",
    half: options.HalfOption = False,
    threads: options.ThreadsOption = None,
) -> None:
    """Print what is said in FILES.

    The text goes to standard output, what there is to say about it to standard error. A file that cannot be read does
    not keep the others from being transcribed; the exit status is then 1.
    """
    formats = options.parse_formats(output_format or "all")
    whose = options.parse_face(face)
    folder = output_dir or (Path() if output_format or save_crops else None)
    texts = folder if output_dir or output_format else None
    options.use_threads(threads)

    from seehear.cli.progress import RecordingProgress
    from seehear.devices import describe_search
    from seehear.files import require_writable
    from seehear.listening.options import WindowOptions
    from seehear.recognizer import find_model_folder, load, require_text
    from seehear.transcribing.crops_video import CropsVideos
    from seehear.transcript import SubtitleOptions, Transcript, output_names, write_transcript

    cut = SubtitleOptions(max_line_width, max_line_count, highlight_words)
    word_timestamps = word_timestamps or cut != SubtitleOptions()  # which need them
    language_weight = lm_weight if lm else 0.0
    decoding = DecodingOptions(decode, beam_size, ctc_weight, length_bonus, max_length_ratio, language_weight)
    if lm:
        decoding.require_language_model_asked()
    windows = WindowOptions(longest, pause, whole=whole)
    if folder:
        require_writable(folder)
    place, precision = options.choose_device(device, dtype)
    search = describe_search(place, search_device)
    model_folder = find_model_folder(model)
    require_text(model_folder)
    recognizer = load(
        model_folder,
        place,
        face_model=face_model,
        language_model=lm,
        dtype=precision.numbers,
        half=half,
        search_device=search_device,
    )
    options.tell_device(device, place, precision, search)
    names = output_names(files)
    named = dict(reversed([*zip(files, names, strict=True)]))  # of a file that is given twice, the first
    failed = False
    with (
        recognizer,
        CropsVideos(folder or Path(), named, by_face=whose == "all") as crops,
        RecordingProgress() as progress,
    ):
        results = recognizer.transcribe_all(
            files,
            modality,
            decoding,
            detector=detector,
            face=whose,
            windows=windows,
            word_times=word_timestamps,
            no_speech_threshold=no_speech_threshold,
            batch_size=batch_size,
            on_progress=progress.advance,
            on_window=crops.add if save_crops else None,
        )
        for (path, result), name in zip(results, names, strict=True):
            with progress.paused():
                if isinstance(result, Transcript):
                    if texts:  # first: nobody may be reading what is printed
                        failed |= not _done(partial(write_transcript, result, texts, name, formats, cut))
                    failed |= not _done(partial(_tell, path, result, named=len(files) > 1, needed=texts is None))
                else:
                    failed |= not _done(partial(_raise, result))
                failed |= not _done(partial(crops.close, path))
    if failed:
        raise typer.Exit(1)


def _done(step: Callable[[], object]) -> bool:
    """Whether a step succeeds; if not, why is printed."""
    from seehear.errors import SeehearError

    try:
        step()
    except (SeehearError, OSError) as error:
        options.print_beside(f"error: {' '.join(str(error).split())}")
        return False
    return True


def _raise(error: Exception) -> None:
    raise error


def _tell(path: Path, transcript: "Transcript", *, named: bool, needed: bool) -> None:
    """Print the text, and what there is to say about it. Where nobody reads it any more, all ends if it is `needed`."""
    for note in (f"{transcript.modality.value.upper()}: {transcript.reason}", *transcript.warnings):
        options.print_beside(f"{path}: {note}")
    try:
        text = transcript.text if transcript.one_voice else transcript.to_txt().rstrip("\n")
        typer.echo(f"{path}: {text}" if named else text)
    except BrokenPipeError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if needed:
            raise typer.Exit(1) from None
