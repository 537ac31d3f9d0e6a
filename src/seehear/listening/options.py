"""What is listened to in a recording, and how it is cut."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seehear.errors import ConfigError
from seehear.modality import Modality

DetectorName = Literal["auto", "mediapipe", "cropped"]
FaceChoice = Literal["speaking", "largest", "all"] | int
"""Whose lips are read: of the face that speaks, the largest, every one, or the one with this number."""


@dataclass(frozen=True)
class WindowOptions:
    """How a recording is cut; all in seconds."""

    longest: float = 24.0
    """Longest window: 600 frames, the longest clip that the paper trains on."""
    pause: float = 0.8
    """Silence at which one window ends and another may begin."""
    margin: float = 1.0
    """Silence that is kept before and after speech; twice as much at the ends of the recording."""
    overlap: float = 1.6
    """How far two windows reach into each other where there is no pause."""
    whole: bool = False
    """Take the recording in one piece, whatever its length."""

    def __post_init__(self) -> None:
        least = 2 * (self.margin + self.overlap)
        if not least <= self.longest < math.inf:
            raise ConfigError(
                f"--longest must be at least {least:.1f} s, not {self.longest:g}: a window may hold {self.margin:g} s "
                f"of silence and {self.overlap:g} s of its neighbor at either end"
            )
        if not 0 < self.pause < math.inf:
            raise ConfigError(f"a pause must be longer than 0 s, not {self.pause:g}")


@dataclass(frozen=True)
class ListeningOptions:
    """What is listened to in a recording."""

    modality: Modality | None = None
    """None: in each window what there is."""
    detector: DetectorName = "auto"
    """How the mouth is found. `cropped` takes the video for a mouth crop as prepared corpora hold them, `auto` does so
    if it measures 96×96."""
    face: FaceChoice = "speaking"
    windows: WindowOptions = field(default_factory=WindowOptions)
    max_gap: int | None = None
    """Frames in a row over which a missing face is interpolated; None: `seehear.data.mouth.MAX_GAP`."""
    face_model: Path | None = None
    """MediaPipe's `.task` file; without it that of the cache, downloaded once if need be."""
