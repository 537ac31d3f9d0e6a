"""What a model listens to, and the clock that sound and picture share."""

from enum import StrEnum

FRAME_RATE = 25
"""Video frames per second."""
SAMPLE_RATE = 16_000
"""Audio samples per second."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
"""Audio samples per video frame (640)."""
CROP_SIZE = 96
"""Side of a stored mouth crop, in pixels."""
INPUT_SIZE = 88
"""Side of the crop that a model sees, in pixels: random in training, central otherwise."""


class Modality(StrEnum):
    """An input of the unified model; the value is its name on the command line and in files."""

    AUDIO = "a"
    VIDEO = "v"
    AUDIOVISUAL = "av"

    @property
    def uses_audio(self) -> bool:
        """Whether this modality needs sound."""
        return self is not Modality.VIDEO

    @property
    def uses_video(self) -> bool:
        """Whether this modality needs a mouth video."""
        return self is not Modality.AUDIO

    @classmethod
    def of(cls, *, audio: bool, video: bool) -> "Modality":
        """The modality of what has sound, a picture or both; something has one of them at least."""
        if not video:
            return cls.AUDIO
        return cls.AUDIOVISUAL if audio else cls.VIDEO

    @property
    def contents(self) -> str:
        """What a clip with these streams has, in words."""
        return {"a": "sound alone", "v": "picture alone", "av": "sound and picture"}[self.value]

    @property
    def readable(self) -> tuple["Modality", ...]:
        """The modalities in which a clip with these streams can be recognized: all three for one that has both."""
        return tuple(m for m in Modality if m.uses_audio <= self.uses_audio and m.uses_video <= self.uses_video)
