"""From a recording to what is said in it: the object that `seehear.load` returns.

recording ─► which streams? ─┬─ lips:  face, mouth crop ─┬─► USR ─► decoding ─► Transcript
                             └─ sound: mono, 16 kHz ─────┘
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seehear.checkpoint import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model
from seehear.data.batch import single
from seehear.data.clipfile import MouthClip
from seehear.data.faces import FaceDetector, MediaPipeDetector
from seehear.data.media import MediaInfo, probe, read_audio
from seehear.decoding.ctc import BLANK
from seehear.decoding.decode import decode_batch, precision
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.ngram import NGram
from seehear.decoding.options import DecodingOptions, DType
from seehear.decoding.word_times import time_words
from seehear.errors import FaceError, MediaError, ModelError
from seehear.modality import CROP_SIZE, FRAME_RATE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.tokenizer import DESCRIPTION_FILE, PIECES_FILE, Tokenizer
from seehear.transcript import Segment, Transcript, Word

MAX_SECONDS = 60.0
"""Longest recording; it is encoded in one piece, and attention takes memory by the square of the length."""
SILENCE = 2.0**-15
"""Sound that never exceeds this amplitude, one step of 16 bits, is none."""
HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
"""ORGANISATION/NAME."""

DetectorName = Literal["auto", "mediapipe", "cropped"]
DEFAULT_DECODING = DecodingOptions()


class Source(NamedTuple):
    """What is listened to of a recording, and why; T frames."""

    modality: Modality
    reason: str
    frames: int
    """T, 25 a second."""
    video: NDArray[np.uint8] | None
    """(T, 96, 96) mouth."""
    audio: NDArray[np.float32] | None
    """(640·T,) sound."""


class Features(NamedTuple):
    """What the encoder makes of a recording: T vectors, 25 a second; the first is that of the first 40 ms."""

    modality: Modality
    output: NDArray[np.float32]
    """(T, D) of the whole encoder, normalised: what the heads and the decoder read."""
    layers: Mapping[int, NDArray[np.float32]]
    """(T, D) of single blocks."""
    warnings: tuple[str, ...]


class Recognizer:
    """A model that transcribes files."""

    def __init__(
        self,
        model: USR,
        tokenizer: Tokenizer,
        face_model: Path | None = None,
        language_model: LanguageModel | None = None,
        dtype: DType = "float32",
    ) -> None:
        """`face_model` is MediaPipe's `.task` file; without it that of the cache, downloaded once if need be.

        A `language_model` is asked by decoding that scores, with the options' `language_weight`.
        `dtype` "bf16" is faster where the machine multiplies such numbers, and about as exact (RESULTS.md).
        """
        self.model = model
        self.tokenizer = tokenizer
        self.face_model = face_model
        self.language_model = language_model
        self.dtype: DType = dtype

    def transcribe(
        self,
        media: str | Path,
        modality: Modality | Literal["auto", "a", "v", "av"] = "auto",
        options: DecodingOptions = DEFAULT_DECODING,
        *,
        detector: FaceDetector | DetectorName = "auto",
        word_times: bool = False,
    ) -> Transcript:
        """What is said in the file `media`, up to 60 s of video or sound.

        Args:
            media: any file that FFmpeg reads.
            modality: `a` sound, `v` lips, `av` both; `auto` takes what the file has, and the transcript says what.
            options: how to decode.
            detector: how the mouth is found. `cropped` takes the video for a mouth crop as prepared corpora hold
                them, `auto` does so if it measures 96×96.
            word_times: whether to say when each word is said, which takes a few times as long as encoding.

        Raises:
            MediaError: the file cannot be read, is too long, or lacks what `modality` asks for.
            FaceError: lips are asked for, or there is nothing else, and no face can be followed.
        """
        path = Path(media)
        warnings: list[str] = []
        wanted = None if modality == "auto" else Modality(modality)
        source = self._read(path, wanted, detector, warnings)
        segments: tuple[Segment, ...] = ()
        if source.audio is not None and source.video is None and _silent(source.audio):
            warnings.append("there is nothing but silence")
        else:
            segments = self._recognise(source, options, word_times)
        return Transcript(
            source=str(media),
            duration=source.frames / FRAME_RATE,
            modality=source.modality,
            reason=source.reason,
            segments=segments,
            warnings=tuple(warning.removeprefix(f"{path}: ") for warning in warnings),
        )

    @torch.no_grad()
    def extract(
        self,
        media: str | Path,
        modality: Modality | Literal["auto", "a", "v", "av"] = "auto",
        layers: Sequence[int] = (),
        *,
        detector: FaceDetector | DetectorName = "auto",
    ) -> Features:
        """The encoder's features of the file `media`, for other tasks.

        `layers` are blocks of the encoder whose outputs are wanted as well, 1 for the first; the other arguments and
        the errors are those of `transcribe`, and `ModelError` for a block that there is not.
        """
        count = len(self.model.encoder.layers)
        for layer in layers:
            if not 1 <= layer <= count:
                raise ModelError(f"the encoder has the layers 1 to {count}, and no layer {layer}")
        warnings: list[str] = []
        source = self._read(Path(media), None if modality == "auto" else Modality(modality), detector, warnings)
        with self._precision():
            streams, mask = self._streams(source, (source.modality,))
        kept: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[object, object, Tensor], None]:
            return lambda _, __, output: kept.update({layer: output[0]})

        hooks = [self.model.encoder.layers[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
        try:
            with self._precision():
                output = self.model.contextualise(streams, mask)[source.modality][0]
        finally:
            for hook in hooks:
                hook.remove()
        by_layer = {layer: kept[layer].float().cpu().numpy() for layer in layers}
        return Features(source.modality, output.float().cpu().numpy(), by_layer, tuple(warnings))

    @cached_property
    def _mediapipe(self) -> MediaPipeDetector:
        from seehear.data.face_model import face_model

        return MediaPipeDetector(face_model(self.face_model))

    def _read(
        self, path: Path, wanted: Modality | None, detector: FaceDetector | DetectorName, warnings: list[str]
    ) -> Source:
        """The streams that are wanted, or those there are."""
        info = probe(path)
        if info.duration > MAX_SECONDS:
            raise MediaError(f"{path} is {info.duration:.0f} s long; at most {MAX_SECONDS:.0f} s can be transcribed")
        if wanted is not None:
            _check_streams(info, wanted)
        reason = _reason(info, wanted)
        video = None
        if info.has_video and (wanted is None or wanted.uses_video):
            try:
                video = self._read_mouth(info, detector, warnings)
            except FaceError as error:
                if wanted is not None or not info.has_audio:
                    raise FaceError(f"{path}: {error}") from error
                reason = f"no usable face ({error}), so sound alone"
        audio = None
        if info.has_audio and (wanted is None or wanted.uses_audio):
            audio = read_audio(path, num_frames=None if video is None else len(video), on_warning=warnings.append)
            audio = np.pad(audio, (0, -len(audio) % SAMPLES_PER_FRAME))
            if wanted is None and video is not None and _silent(audio):
                audio, reason = None, "the file's sound is silent, so lips alone"
        frames = len(video) if video is not None else len(audio) // SAMPLES_PER_FRAME if audio is not None else 0
        if frames > MAX_SECONDS * FRAME_RATE:  # what a header says of the duration may be wrong
            raise MediaError(f"{path} is longer than the {MAX_SECONDS:.0f} s that can be transcribed")
        used = Modality.AUDIOVISUAL if audio is not None else Modality.VIDEO
        return Source(used if video is not None else Modality.AUDIO, reason, frames, video, audio)

    def _read_mouth(
        self, info: MediaInfo, detector: FaceDetector | DetectorName, warnings: list[str]
    ) -> NDArray[np.uint8]:
        """The mouth (T, 96, 96) in a video."""
        from seehear.data.mouth import crop_video, read_cropped  # and with them OpenCV, which sound does without

        if detector == "auto":
            detector = "cropped" if (info.width, info.height) == (CROP_SIZE, CROP_SIZE) else "mediapipe"
        if detector == "cropped":
            track = read_cropped(info.path, on_warning=warnings.append)
        else:
            finder = self._mediapipe if detector == "mediapipe" else detector
            track = crop_video(info.path, finder, on_warning=warnings.append)
        if track.report.faces > 1:
            warnings.append(f"lips are read from {track.report.chosen}")
        warnings.extend(track.report.warnings)
        return track.frames

    @torch.no_grad()
    def _recognise(self, source: Source, options: DecodingOptions, word_times: bool) -> tuple[Segment, ...]:
        """Encode and decode in one piece; no segment if nothing is said."""
        modality = source.modality
        heard_by = tuple(Modality) if word_times and modality is Modality.AUDIOVISUAL else (modality,)
        with self._precision():
            streams, mask = self._streams(source, heard_by)
            features = self.model.contextualise({modality: streams[modality]}, mask)[modality]
            (tokens,) = decode_batch(self.model, features, mask, modality, options, self.language_model)
            text = self.tokenizer.decode(tokens)
            if not text:
                return ()
            score = self._mean_log_prob(tokens, features, mask, modality)
            blanks = self.model.ctc_logits(features, modality).float().log_softmax(-1)[..., BLANK]
        words = self._times_of_words(tokens, streams, mask) if word_times else ()
        start, end = (words[0].start, words[-1].end) if words else (0.0, source.frames / FRAME_RATE)
        return (Segment(0, start, end, text, tuple(tokens), score, float(blanks.sum().exp()), words),)

    def _precision(self) -> torch.autocast:
        return precision(next(self.model.parameters()).device, self.dtype)

    def _streams(self, source: Source, modalities: tuple[Modality, ...]) -> tuple[dict[Modality, Tensor], Tensor]:
        """What enters the encoder, (1, T, D) by modality, and its mask."""
        device = next(self.model.parameters()).device
        mask = torch.ones(1, source.frames, dtype=torch.bool, device=device)
        audio = torch.from_numpy(source.audio)[None].to(device) if source.audio is not None else None
        video = None
        if source.video is not None:
            silence = np.zeros(source.frames * SAMPLES_PER_FRAME, np.float32)
            video = single(MouthClip(source.video, silence)).video.to(device)
        return self.model.streams(video, audio, mask, modalities), mask

    def _times_of_words(self, tokens: list[int], streams: dict[Modality, Tensor], mask: Tensor) -> tuple[Word, ...]:
        """When each word is said, in seconds."""
        words = [word for word in self.tokenizer.words(tokens) if self.tokenizer.decode(word)]
        (times,) = time_words(self.model, streams, mask, [words])
        return tuple(
            Word(self.tokenizer.decode(word), time.start / FRAME_RATE, time.end / FRAME_RATE, time.probability)
            for word, time in zip(words, times, strict=True)
        )

    def _mean_log_prob(self, tokens: list[int], features: Tensor, mask: Tensor, modality: Modality) -> float:
        """Mean log-probability of `tokens` and the end of sentence under the decoder, whatever chose them."""
        sequence = torch.tensor([[self.model.sos, *tokens, self.model.eos]], device=features.device)
        states = self.model.decode(sequence[:, :-1], features, mask)
        log_probs = self.model.logits(states, modality).float().log_softmax(-1)
        return float(log_probs.gather(-1, sequence[:, 1:, None]).mean())


def load(
    model: str | Path,
    device: str = "cpu",
    *,
    face_model: Path | None = None,
    language_model: Path | None = None,
    dtype: DType = "float32",
) -> Recognizer:
    """The recogniser of a model folder, or of ORGANISATION/NAME on the Hugging Face hub, which is downloaded once.

    Raises `ModelError` that says what is wrong with the model.
    """
    network, tokenizer = load_model(find_model_folder(model), device)
    asked = NGram.load(language_model, tokenizer.vocab_size) if language_model else None
    return Recognizer(network, tokenizer, face_model, asked, dtype)


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


def _silent(audio: NDArray[np.float32]) -> bool:
    return bool(np.abs(audio).max(initial=0.0) <= SILENCE)


def _check_streams(info: MediaInfo, wanted: Modality) -> None:
    """Raise `MediaError` if the file lacks what is wanted."""
    if wanted.uses_video and not info.has_video:
        raise MediaError(f"{info.path} has no video to read lips from; --modality a transcribes its sound")
    if wanted.uses_audio and not info.has_audio:
        raise MediaError(f"{info.path} has no sound; --modality v reads the lips")


def _reason(info: MediaInfo, wanted: Modality | None) -> str:
    """Why these streams are used."""
    if wanted is not None:
        return "as asked for"
    if info.has_audio and info.has_video:
        return "the file has sound and video"
    return "the file has no video" if info.has_audio else "the file has no sound"
