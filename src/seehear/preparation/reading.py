"""A source becomes a clip: its mouth cropped, its sound on the clock of the picture. Either may be missing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seehear.data.clipfile import MouthClip
from seehear.data.face_model import face_model, file_sha256
from seehear.data.faces import DETECT_EVERY, FaceDetector, LandmarksFile, MediaPipeDetector
from seehear.data.media import Header, Warn, probe, read_audio, read_header
from seehear.data.mouth import GEOMETRY_VERSION, MAX_GAP, MouthTrack, TrackReport, crop_video, read_cropped
from seehear.data.workers import spread
from seehear.errors import FaceError, MediaError
from seehear.listening.options import ListeningOptions, WindowOptions
from seehear.modality import CROP_SIZE, FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, Modality
from seehear.preparation.parts import NOTICED_DIFFERENCE, Recording
from seehear.preparation.sources import Source

DetectorName = Literal["auto", "mediapipe", "cropped"]
READY_SIZE = (CROP_SIZE, CROP_SIZE)
"""Videos of this size are taken for ready crops unless the settings say otherwise."""
SMALLEST_FACE = 160
"""Square videos smaller than this, in pixels, that show no face may be ready crops."""
MISSING_FRAMES = FRAME_RATE
"""Frames that a video may have fewer than its corpus states; beyond, its transcript is not that of what is left."""
NO_PICTURES = "none"
"""In `prepare.json`: no video has been cropped so far."""
BY_SIZE = "by_size"
"""Key of `prepare.json`: videos of 96×96 are ready crops, and others are not."""


@dataclass(frozen=True)
class CropSettings:
    """How the mouth is found. One corpus, one way."""

    model: Path | None = None
    """The `.task` file of MediaPipe's Face Landmarker; None takes the cached one."""
    landmarks: Path | None = None
    """Folder with an ID.npz for each clip, as `LandmarksFile` reads it."""
    detector: DetectorName = "auto"
    """`cropped` takes the videos for aligned mouths, `auto` does so with those of 96×96 pixels."""
    detect_every: int = DETECT_EVERY
    max_gap: int = MAX_GAP

    def record(self, sources: Sequence[Source]) -> dict[str, Any]:
        """What decides how the crops of `sources` look, for `prepare.json`."""
        faces = self._faces([source.path for source in sources if not source.is_sound])
        geometry = {"geometry": GEOMETRY_VERSION, "max_gap": self.max_gap}
        if faces == "landmarks":
            return {"faces": faces, **geometry}
        by_size = {BY_SIZE: True} if self.detector == "auto" else {}
        if faces == "mediapipe":
            model = file_sha256(face_model(self.model))
            faces_by = {"face_model_sha256": model, "detect_every": self.detect_every}
            return {"faces": faces, **faces_by, **geometry, **by_size}
        return {"faces": faces} | (by_size if faces == "cropped" else {})

    def _faces(self, videos: Sequence[Path]) -> str:
        """Where the mouths of `videos` come from; with `auto`, from MediaPipe as soon as one of them needs it."""
        if self.landmarks:
            return "landmarks"
        if self.detector != "auto" or not videos:
            return self.detector if videos else NO_PICTURES
        found = NO_PICTURES
        with closing(spread(_header_reader, videos, 1)) as headers:  # another process: a file may be what kills it
            for _, header in headers:
                if isinstance(header, Header) and header.has_video:
                    if header.size != READY_SIZE:
                        return "mediapipe"
                    found = "cropped"
        return found


def joined_record(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a corpus with crops of both records, as `CropSettings.record` makes them; None if they exclude each
    other."""
    if NO_PICTURES in (earlier.get("faces"), now["faces"]):
        return dict(earlier if now["faces"] == NO_PICTURES else now)
    if earlier.get(BY_SIZE) and now.get(BY_SIZE) and earlier["faces"] != now["faces"]:
        return dict(earlier if now["faces"] == "cropped" else now)  # one has no crops by MediaPipe
    first, second = ({key: value for key, value in each.items() if key != BY_SIZE} for each in (earlier, now))
    return (dict(now) if earlier.get(BY_SIZE) else second) if first == second else None


def _header_reader() -> Callable[[Path], Header | None]:
    """Reads headers; None for a file that cannot be opened, which is rejected when its turn comes."""

    def read(path: Path) -> Header | None:
        try:
            return read_header(path)
        except MediaError:
            return None

    return read


class Reading(NamedTuple):
    """What was read of a source."""

    clip: MouthClip
    report: TrackReport | None
    """Of its crop, without its warnings; None where there is no picture."""
    warnings: tuple[str, ...]
    """Of all of it."""


class SourceReader:
    """Reads sources as the settings say. MediaPipe starts with the first video that needs it."""

    def __init__(self, settings: CropSettings) -> None:
        self.settings = settings

    @cached_property
    def detector(self) -> MediaPipeDetector:
        """Opened for the first face."""
        return MediaPipeDetector(face_model(self.settings.model), self.settings.detect_every)

    def read(self, source: Source) -> Reading:
        """The clip of `source`. Raises `MediaError` or `FaceError` with the reason if it cannot be one."""
        warnings: list[str] = []
        header = read_header(source.path)
        if source.is_sound or not (header.has_video or source.sound):
            clip, report = MouthClip(None, _sound_alone(source.path, warnings.append)), None
        else:
            track = self._crop(source, header, warnings.append)
            clip = MouthClip(track.frames, _sound_of(source, header, len(track.frames), warnings.append))
            warnings[:0], report = track.report.warnings, replace(track.report, warnings=())
        _check_length(source, clip.frames, warnings.append)
        return Reading(clip, report, tuple(warnings))

    def open(self, source: Source, header: Header) -> Recording:
        """The files of `source`, to be read in order. Raises `MediaError` if they cannot be read."""
        media = probe(source.path)
        sound = None if source.sound is None else replace(probe(source.sound), start=0.0)
        heard = sound or media
        if (source.is_sound or sound or header.has_audio) and not heard.has_audio:
            raise MediaError(f"{heard.path.name}: no audio track that can be decoded")
        if source.is_sound or not (header.has_video or sound):
            return Recording(media, Modality.AUDIO)
        if not media.has_video:
            raise MediaError(f"{source.path}: no frame of the video can be decoded")
        return Recording(media, Modality.AUDIOVISUAL if heard.has_audio else Modality.VIDEO, sound)

    def listening(self, modality: Modality, windows: WindowOptions, *, ready: bool) -> ListeningOptions:
        """How a long recording is read: the largest face of each part, or `ready` crops."""
        detector: Literal["mediapipe", "cropped"] = "cropped" if ready else "mediapipe"
        return ListeningOptions(modality, detector, "largest", windows, self.settings.max_gap)

    def detector_of(self, source: Source, header: Header) -> FaceDetector | None:
        """The detector for `source`; None if it is a ready crop."""
        settings, ready = self.settings, header.size == READY_SIZE
        if settings.landmarks:
            return LandmarksFile(settings.landmarks / f"{source.id}.npz")
        if settings.detector == "cropped" or (settings.detector == "auto" and ready):
            return None
        return self.detector

    def _crop(self, source: Source, header: Header, warn: Warn) -> MouthTrack:
        """The mouth in `source`, found as the settings say."""
        settings, detector = self.settings, self.detector_of(source, header)
        if detector is None:
            return read_cropped(source.path, on_warning=warn)
        try:
            return crop_video(source.path, detector, max_gap=settings.max_gap, on_warning=warn)
        except FaceError as error:
            width, height = header.size
            if settings.landmarks or width != height or width >= SMALLEST_FACE:
                raise
            raise FaceError(f"{error}; if it is a crop of a mouth already, use --detector cropped") from error


def _sound_of(source: Source, header: Header, num_frames: int, warn: Warn) -> NDArray[np.float32] | None:
    """The sound that goes with the picture of `source`, of the same length; None if there is none."""
    if source.sound is not None:
        return _separate_sound(source.path, source.sound, num_frames, warn)
    return read_audio(source.path, num_frames=num_frames, on_warning=warn) if header.has_audio else None


def _separate_sound(video: Path, path: Path, num_frames: int, warn: Warn) -> NDArray[np.float32]:
    """The sound file `path`, which begins when `video` does: with the earlier of that file's picture and sound."""
    try:
        sound = read_audio(path, start=probe(video).picture_delay, on_warning=warn)
    except MediaError as error:
        raise MediaError(str(error).replace(f"{path}:", f"{path.name}:", 1)) from error
    heard, seen = len(sound) / SAMPLE_RATE, num_frames / FRAME_RATE
    if abs(heard - seen) > NOTICED_DIFFERENCE:
        warn(f"the sound of {path.name} is {heard:.1f} s long, the picture {seen:.1f} s")
    wanted = num_frames * SAMPLES_PER_FRAME
    return np.pad(sound[:wanted], (0, max(0, wanted - len(sound))))


def _sound_alone(path: Path, warn: Warn) -> NDArray[np.float32]:
    """The sound of a file without a picture, cut to whole video frames (METHOD §1)."""
    sound = read_audio(path, on_warning=warn)
    frames = len(sound) // SAMPLES_PER_FRAME
    if not frames:
        raise MediaError(f"{path}: the sound is shorter than a video frame ({1000 // FRAME_RATE} ms)")
    return sound[: frames * SAMPLES_PER_FRAME]


def _check_length(source: Source, frames: int, warn: Warn) -> None:
    """Compare the length with the one that the corpus states, if it does."""
    if source.frames is None or abs(frames - source.frames) <= 1:
        return
    if frames < source.frames - MISSING_FRAMES:
        raise MediaError(f"{source.path}: it has {frames} frames, its list says {source.frames}: is it cut off?")
    warn(f"{frames} frames, where the list says {source.frames}")
