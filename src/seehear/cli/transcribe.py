"""`seehear transcribe`: recordings to text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from seehear.cli import options
from seehear.cli.options import DEFAULT_DECODING
from seehear.decoding.options import DecodingOptions


def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Video or sound, anything that FFmpeg reads.")],
    model: options.ModelOption,
    modality: Annotated[
        Literal["auto", "a", "v", "av"],
        typer.Option(help="Sound, lips, both, or what the file has."),
    ] = "auto",
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
    decode: options.DecodeOption = DEFAULT_DECODING.method,
    beam_size: options.BeamSizeOption = DEFAULT_DECODING.beam_size,
    ctc_weight: options.CTCWeightOption = DEFAULT_DECODING.ctc_weight,
    length_bonus: options.LengthBonusOption = DEFAULT_DECODING.length_bonus,
    max_length_ratio: options.MaxLengthRatioOption = DEFAULT_DECODING.max_length_ratio,
    lm: options.LanguageModelOption = None,
    lm_weight: options.LanguageWeightOption = options.DEFAULT_LANGUAGE_WEIGHT,
    device: options.DeviceOption = "cpu",
    dtype: options.DTypeOption = "float32",
    threads: options.ThreadsOption = None,
) -> None:
    """Print what is said in FILES.

    The text goes to standard output, what there is to say about it to standard error. A file that cannot be read does
    not keep the others from being transcribed; the exit status is then 1.
    """
    formats = options.parse_formats(output_format or "all")
    folder = output_dir or (Path() if output_format else None)
    options.use_threads(threads)

    from seehear.errors import SeehearError
    from seehear.files import require_writable
    from seehear.recognizer import load
    from seehear.transcript import SubtitleOptions, output_names, write_transcript

    cut = SubtitleOptions(max_line_width, max_line_count, highlight_words)
    word_timestamps = word_timestamps or cut != SubtitleOptions()  # which need them
    language_weight = lm_weight if lm else 0.0
    decoding = DecodingOptions(decode, beam_size, ctc_weight, length_bonus, max_length_ratio, language_weight)
    if folder:
        require_writable(folder)
    recognizer = load(model, device, face_model=face_model, language_model=lm, dtype=dtype)
    failed = False
    for path, name in zip(files, output_names(files), strict=True):
        try:
            transcript = recognizer.transcribe(path, modality, decoding, detector=detector, word_times=word_timestamps)
            for note in (f"{transcript.modality.value.upper()}: {transcript.reason}", *transcript.warnings):
                typer.echo(f"{path}: {note}", err=True)
            typer.echo(f"{path}: {transcript.text}" if len(files) > 1 else transcript.text)
            if folder:
                write_transcript(transcript, folder, name, formats, cut)
        except (SeehearError, OSError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            failed = True
    if failed:
        raise typer.Exit(1)
