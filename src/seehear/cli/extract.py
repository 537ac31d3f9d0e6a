"""`seehear extract`: what the encoder makes of recordings, for other tasks."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seehear.cli import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def extract(
    files: Annotated[list[Path], typer.Argument(help="Video or sound, anything that FFmpeg reads.")],
    model: options.ModelOption,
    output_dir: Annotated[Path, typer.Option("--output_dir", "-o", help="Folder to write to.")],
    modality: Annotated[
        Literal["auto", "a", "v", "av"], typer.Option(help="Sound, lips, both, or what the file has.")
    ] = "auto",
    layer: Annotated[
        list[int], typer.Option(help="A block of the encoder, 1 for the first, beside its output; repeat for more.")
    ] = [],  # noqa: B006  # how Typer wants it
    output_format: Annotated[
        Literal["npy", "safetensors"], typer.Option("--output_format", "-f", help="Of the files.")
    ] = "npy",
    detector: options.DetectorOption = "auto",
    face_model: options.FaceModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DTypeOption = "auto",
    half: options.HalfOption = False,
    threads: options.ThreadsOption = None,
) -> None:
    """Write the encoder's features of FILES: float32, (frames, width), 25 frames a second from the start of the file.

    npy: NAME.npy, and NAME-layerN.npy for single layers. safetensors: NAME.safetensors with `output` and `layerN`, and
    modality and frame rate in its header.
    """
    options.use_threads(threads)

    from safetensors.numpy import save

    from seehear.errors import ConfigError, SeehearError
    from seehear.files import require_writable, write_atomically
    from seehear.modality import FRAME_RATE
    from seehear.recognizer import load
    from seehear.transcript import output_names

    require_writable(output_dir)
    place, precision = options.choose_device(device, dtype)
    recognizer = load(model, place, face_model=face_model, dtype=precision.numbers, half=half)
    options.tell_device(device, place, precision)
    failed = False
    taken: set[Path] = set()
    for path, name in zip(files, output_names(files), strict=True):
        try:
            features = recognizer.extract(path, modality, layer, detector=detector)
            by_name = {"": features.output} | {f"layer{n}": x for n, x in features.layers.items()}
            if output_format == "safetensors":
                header = {"modality": features.modality.value, "frames_per_second": str(FRAME_RATE)}
                tensors = {key or "output": values for key, values in by_name.items()}
                contents = {output_dir / f"{name}.safetensors": save(tensors, header)}
            else:
                named = {output_dir / f"{'-'.join(filter(None, (name, key)))}.npy": x for key, x in by_name.items()}
                contents = {target: _npy(values) for target, values in named.items()}
            if clash := taken.intersection(contents):
                raise ConfigError(f"{path}: {min(clash)} is written already: rename one of the files")
            for target, content in contents.items():
                write_atomically(target, content)
            taken.update(contents)
        except (SeehearError, OSError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            failed = True
            continue
        for warning in features.warnings:
            typer.echo(f"{path}: {warning.removeprefix(f'{path}: ')}", err=True)
        typer.echo(f"{path}: {features.modality.value.upper()}, {len(features.output)} × {features.output.shape[1]}")
    if failed:
        raise typer.Exit(1)


def _npy(values: "NDArray[np.float32]") -> bytes:
    """The contents of a NumPy file."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()
