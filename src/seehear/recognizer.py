"""From recordings to what is said in them: the object that `seehear.load` returns.

recordings ─► listening: windows with their sound and mouths ─► batches ─► USR, decoding ─► assembly ─► Transcript
             (in a process of its own)
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seehear.checkpoint import CARD_FILE, CONFIG_FILE, ENCODER_ALONE, WEIGHTS_FILE, load_folder
from seehear.data.faces import FaceDetector
from seehear.decoding.decode import precision, search_on, weights_type
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.ngram import NGram
from seehear.decoding.options import NO_SPEECH, DecodingOptions, DType
from seehear.decoding.shortage import ran_out, release
from seehear.devices import EmulationWarning, choose_precision, find_device, find_search_device
from seehear.errors import MediaError, ModelError, SeehearError
from seehear.listening.lips import Mouth
from seehear.listening.options import DetectorName, FaceChoice, ListeningOptions, WindowOptions
from seehear.listening.reader import Reader
from seehear.listening.stream import Event, Opened, Piece, Read, listen
from seehear.modality import FRAME_RATE, Modality
from seehear.model.usr import USR, SpeechEncoder
from seehear.tokenizer import DESCRIPTION_FILE, PIECES_FILE, Tokenizer
from seehear.transcribing import memory
from seehear.transcribing.assembly import Assembly
from seehear.transcribing.batches import Input, Transcriber, streams
from seehear.transcribing.recognition import OnWindow, Recognition, Recording
from seehear.transcribing.speaker import moving_most, speaking
from seehear.transcript import Transcript

HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
"""ORGANISATION/NAME."""
DEFAULT_DECODING = DecodingOptions()
DEFAULT_WINDOWS = WindowOptions()
BATCH_SIZE = 8
"""Windows that are recognised at once."""

ModalityName = Modality | Literal["auto", "a", "v", "av"]
Progress = Callable[[Path, float, float], None]
"""Is told the recording, the seconds of it that have been read, and those there are."""


class Features(NamedTuple):
    """What the encoder makes of a recording: T vectors, 25 a second; the first is that of the first 40 ms."""

    modality: Modality
    output: NDArray[np.float32]
    """(T, D) of the whole encoder, normalised: what the heads and the decoder read."""
    layers: Mapping[int, NDArray[np.float32]]
    """(T, D) of single blocks."""
    warnings: tuple[str, ...]


class Recognizer:
    """A model that transcribes files. One thread at a time may use it."""

    def __init__(
        self,
        model: SpeechEncoder,
        tokenizer: Tokenizer | None,
        face_model: Path | None = None,
        language_model: LanguageModel | None = None,
        dtype: DType = "auto",
        *,
        isolated: bool = True,
        search_device: str | None = None,
    ) -> None:
        """`model` and `tokenizer` are those of `seehear.checkpoint.load_folder`; an encoder alone can only `extract`.

        `face_model` is MediaPipe's `.task` file; without it that of the cache, downloaded once if need be.

        A `language_model` is asked by decoding that scores, with the options' `language_weight`.
        `dtype` is what the model computes with. "auto" is float32 on a CPU and half precision on NVIDIA GPUs, which is
        faster and about as exact (RESULTS.md).
        `isolated` reads recordings in a process of its own, which may die of them (`seehear.listening.reader`).
        `search_device` is where decoder and heads run, by default where the encoder does, but the CPU beside MPS.
        What is taken stands in `device`, `model.search_device` and `precision`, with its reason. Warns
        (`EmulationWarning`) of a `dtype` that is emulated on this device.
        """
        self.device = next(model.parameters()).device
        self.precision = choose_precision(self.device, dtype, training=False)
        if self.precision.warning:
            warnings.warn(self.precision.warning, EmulationWarning, stacklevel=3)  # who calls `load`
        search = find_search_device(self.device, search_device)
        if isinstance(model, USR):
            model = search_on(model, search_device)
        if "cpu" in (self.device.type, search.type):
            memory.bound()
        self.model = model
        self.tokenizer = tokenizer
        self.face_model = face_model
        self.language_model = language_model
        self.dtype = self.precision.numbers
        self._reader = Reader() if isolated else None

    def transcribe(
        self,
        media: str | Path,
        modality: ModalityName = "auto",
        options: DecodingOptions = DEFAULT_DECODING,
        *,
        detector: FaceDetector | DetectorName = "auto",
        face: FaceChoice = "speaking",
        windows: WindowOptions = DEFAULT_WINDOWS,
        word_times: bool = False,
        no_speech_threshold: float = NO_SPEECH,
    ) -> Transcript:
        """What is said in the file `media`, up to 12 hours of video or sound.

        Args:
            media: any file that FFmpeg reads.
            modality: `a` sound, `v` lips, `av` both; `auto` takes in each window what there is, and the transcript
                says what.
            options: how to decode.
            detector: how the mouth is found. `cropped` takes the video for a mouth crop as prepared corpora hold
                them, `auto` does so if it measures 96×96.
            face: whose lips are read, where there are several: of the one who speaks, the `largest`, `all`, each for
                itself, or a number.
            windows: how the recording is cut.
            word_times: whether to say when each word is said, which takes a few times as long as encoding.
            no_speech_threshold: where a window's `no_speech_prob` is above it, nothing is written; 1: never.

        Raises:
            MediaError: the file cannot be read, or lacks what `modality` asks for.
            FaceError: lips are asked for, or there is nothing else, and no face can be followed.
        """
        ((_, result),) = self.transcribe_all(
            [media],
            modality,
            options,
            detector=detector,
            face=face,
            windows=windows,
            word_times=word_times,
            no_speech_threshold=no_speech_threshold,
        )
        if isinstance(result, Transcript):
            return result
        raise result

    def transcribe_all(
        self,
        media: Iterable[str | Path],
        modality: ModalityName = "auto",
        options: DecodingOptions = DEFAULT_DECODING,
        *,
        detector: FaceDetector | DetectorName = "auto",
        face: FaceChoice = "speaking",
        windows: WindowOptions = DEFAULT_WINDOWS,
        word_times: bool = False,
        no_speech_threshold: float = NO_SPEECH,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        on_window: OnWindow | None = None,
    ) -> Iterator[tuple[Path, Transcript | SeehearError | OSError]]:
        """Each of the files `media`, in order, with its transcript or what is wrong with it.

        `batch_size` windows, of one file or of several, are recognised at once; a text does not depend on that. So a
        short file's transcript comes when others have filled the batch, or `media` ends. `on_progress` and `on_window`
        are told how far it is, and what was made of each window. The other arguments are those of `transcribe`.
        """
        transcriber = self._transcriber(options, word_times)
        listening = self._listening(modality, detector, face, windows)
        finder = None if isinstance(detector, str) else detector
        recognition = Recognition(
            transcriber,
            choose=listening.modality is None,
            no_speech_threshold=no_speech_threshold,
            batch_size=batch_size,
            on_window=on_window,
        )
        open_recordings: list[Recording] = []
        for source in media:
            path = Path(source)
            name = os.fsencode(source).decode("utf-8", "replace")  # whatever the locale makes of it
            recording = Recording(path, Assembly(name, path, transcriber.tokenizer, word_times, by_face=face == "all"))
            open_recordings.append(recording)
            for piece in self._pieces(recording, listening, finder, on_progress):
                for mouth, given in self._inputs(piece, face, transcriber, recording):
                    recognition.add(recording, piece, mouth, given)
                if recording.error is not None:
                    break
            recording.read = True
            while open_recordings and open_recordings[0].done:
                finished = open_recordings.pop(0)
                yield finished.path, finished.result()
        recognition.finish()
        for recording in open_recordings:
            yield recording.path, recording.result()

    def _transcriber(self, options: DecodingOptions, word_times: bool = False) -> Transcriber:
        """What recognises with these options. Raises `ModelError` if the model cannot."""
        if not isinstance(self.model, USR) or self.tokenizer is None:
            raise ModelError(f"this model is {ENCODER_ALONE.format(folder='FOLDER')}")
        return Transcriber(self.model, self.tokenizer, options, self.language_model, self.dtype, word_times)

    def _listening(
        self,
        modality: ModalityName,
        detector: FaceDetector | DetectorName,
        face: FaceChoice,
        windows: WindowOptions,
    ) -> ListeningOptions:
        return ListeningOptions(
            modality=None if modality == "auto" else Modality(modality),
            detector=detector if isinstance(detector, str) else "mediapipe",
            face=face,
            windows=windows,
            face_model=self.face_model,
        )

    def _listen(
        self, path: Path, options: ListeningOptions, detector: FaceDetector | None, note: Callable[[str], None]
    ) -> Iterator[Event]:
        """A recording, read in the other process if that is possible."""
        if self._reader is None or detector is not None:
            return listen(path, options, note, detector)
        return self._reader.listen(path, options, note)

    def _pieces(
        self,
        recording: Recording,
        options: ListeningOptions,
        detector: FaceDetector | None,
        on_progress: Progress | None,
    ) -> Iterator[Piece]:
        """Those of a recording; what is wrong with it is kept with it."""
        try:
            for event in self._listen(recording.path, options, detector, recording.assembly.note):
                if isinstance(event, Piece):
                    yield event
                else:
                    _note(recording, event, on_progress)
        except (SeehearError, OSError) as error:
            recording.error = error
        except (MemoryError, RuntimeError) as error:
            recording.fail(error)

    def _inputs(
        self, piece: Piece, face: FaceChoice, transcriber: Transcriber | None, recording: Recording | None = None
    ) -> Iterator[tuple[Mouth | None, Input]]:
        """What the model is given of a window: once, or for each face that is asked for."""
        frames = piece.window.end - piece.window.start
        mouths: Sequence[Mouth | None] = piece.mouths or [None]
        if len(mouths) > 1 and face == "speaking":
            try:
                mouths = [speaking(piece, transcriber)]
            except (MemoryError, RuntimeError) as error:
                if recording is None or not ran_out(error):
                    raise
                when = piece.window.start / FRAME_RATE
                recording.assembly.note(
                    f"memory did not suffice at {when:.1f} s to find who speaks: it is whose lips move most"
                )
                mouths = [moving_most(piece)]
        for mouth in mouths:
            yield mouth, Input(piece.modality, frames, piece.audio, None if mouth is None else mouth.frames)

    def close(self) -> None:
        """End the process that reads recordings; it is started again when it is needed."""
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> "Recognizer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @torch.no_grad()
    def extract(
        self,
        media: str | Path,
        modality: ModalityName = "auto",
        layers: Sequence[int] = (),
        *,
        detector: FaceDetector | DetectorName = "auto",
    ) -> Features:
        """The encoder's features of the file `media`, taken as a whole, for other tasks.

        `layers` are blocks of the encoder whose outputs are wanted as well, 1 for the first; the other arguments and
        the errors are those of `transcribe`, and `ModelError` for a block that there is not. Raises `MediaError` too
        if memory does not suffice: features of parts would be others.
        """
        count = len(self.model.encoder.layers)
        for layer in layers:
            if not 1 <= layer <= count:
                raise ModelError(f"the encoder has the layers 1 to {count}, and no layer {layer}")
        try:
            return self._encode(Path(media), modality, layers, detector)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        release()
        advice = "cut it, or take another device or a smaller model"
        raise MediaError(f"{media}: the memory does not suffice to encode it in one piece: {advice}")

    def _encode(
        self, path: Path, modality: ModalityName, layers: Sequence[int], detector: FaceDetector | DetectorName
    ) -> Features:
        """What `extract` returns."""
        given, notes = self._whole(path, modality, detector)
        with precision(self.device, self.dtype):
            entering, mask = streams(self.model, [given], (given.modality,))
        kept: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[object, object, Tensor], None]:
            return lambda _, __, output: kept.update({layer: output[0]})

        hooks = [self.model.encoder.layers[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
        try:
            with precision(self.device, self.dtype):
                output = self.model.contextualise(entering, mask)[given.modality][0]
        finally:
            for hook in hooks:
                hook.remove()
        by_layer = {layer: kept[layer].float().cpu().numpy() for layer in layers}
        return Features(given.modality, output.float().cpu().numpy(), by_layer, notes)

    def _whole(
        self, path: Path, modality: ModalityName, detector: FaceDetector | DetectorName
    ) -> tuple[Input, tuple[str, ...]]:
        """A recording in one piece, and what there is to say about it."""
        notes: list[str] = []
        listening = self._listening(modality, detector, "speaking", replace(DEFAULT_WINDOWS, whole=True))
        finder = None if isinstance(detector, str) else detector
        transcriber = self._transcriber(DEFAULT_DECODING) if isinstance(self.model, USR) else None
        given = None
        for event in self._listen(path, listening, finder, notes.append):
            if isinstance(event, Piece):
                if len(event.mouths) > 1 and transcriber is None:
                    notes.append("an encoder alone cannot tell which face speaks: the one that moves most is taken")
                ((mouth, given),) = self._inputs(event, "speaking", transcriber)
                notes.extend(() if mouth is None else mouth.notes)
        if given is None:
            raise MediaError(f"{path}: there is nothing in it")
        return given, tuple(notes)


def _note(recording: Recording, event: Opened | Read, on_progress: Progress | None) -> None:
    """Keep what is known of a recording."""
    assembly = recording.assembly
    if isinstance(event, Opened):
        assembly.opened = event
        return
    assembly.frames = event.frames
    if on_progress and assembly.opened:
        seconds = event.frames / FRAME_RATE
        on_progress(recording.path, seconds, max(seconds, assembly.opened.duration))


def load(
    model: str | Path,
    device: torch.device | str = "auto",
    *,
    face_model: Path | None = None,
    language_model: str | Path | None = None,
    dtype: DType = "auto",
    half: bool = False,
    isolated: bool = True,
    search_device: str | None = None,
) -> Recognizer:
    """The recogniser of a model folder, or of ORGANISATION/NAME on the Hugging Face hub, which is downloaded once.

    `device` "auto" is CUDA, else MPS, else the CPU. `language_model` is a file that `seehear lm` made. `half` keeps the
    weights in half precision: half the memory, a little slower; with `dtype` "fp16" they always are. The other
    arguments are those of `Recognizer`.
    Raises `ModelError` that says what is wrong with the model, and `ConfigError` for a device or `dtype` that there is
    not.
    """
    place = find_device(device)
    find_search_device(place, search_device)  # which is refused before the weights are read
    numbers = choose_precision(place, dtype, training=False).numbers
    folder = find_model_folder(model)
    if language_model:
        require_text(folder)
    network, tokenizer = load_folder(folder, place, weights_dtype=weights_type(numbers, half=half))
    asked = None
    if language_model and tokenizer:
        asked = NGram.load(Path(language_model), tokenizer.vocab_size, tokenizer.pieces)
    return Recognizer(network, tokenizer, face_model, asked, dtype, isolated=isolated, search_device=search_device)


def require_text(folder: Path) -> None:
    """Raise `ModelError` if `folder` is that of an encoder alone, which makes no text; no weights are read."""
    kind = None
    with suppress(OSError, ValueError, AttributeError):  # a damaged folder is refused when it is loaded
        kind = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("kind")
    if kind == "encoder":
        raise ModelError(f"{folder} is {ENCODER_ALONE.format(folder=folder)}")


def find_model_folder(model: str | Path) -> Path:
    """The folder `model` if there is one; else, if it looks like ORGANISATION/NAME, that model of the hub."""
    folder = Path(model)
    if folder.exists() or not HUB_NAME.fullmatch(str(model)):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = [CONFIG_FILE, WEIGHTS_FILE, DESCRIPTION_FILE, PIECES_FILE, CARD_FILE]
    try:
        return Path(snapshot_download(str(model), allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"there is no folder {model}, and the Hugging Face hub does not give it: {reason}") from error
