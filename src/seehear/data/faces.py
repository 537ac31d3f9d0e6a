"""Where the faces are: detectors that give the points of the face that the mouth crop needs.

A detector is anything with the two members of `FaceDetector`. Two are here: MediaPipe's Face Landmarker, and points
that were found elsewhere and lie ready in a file.
"""

import atexit
import os
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seehear.errors import DependencyError, FaceError

FacePoints = NDArray[np.float32]
"""(28, 2) points (x, y) of one face, in pixels of the picture: the eight stable ones, then twenty of the lips."""

STABLE = slice(0, 8)
"""Outer and inner corner of the right eye, inner and outer of the left, nose bridge, nose base, mouth corners."""
LIPS = slice(8, 28)

MEDIAPIPE_POINTS = (
    *(33, 133, 362, 263, 197, 2, 61, 291),
    *(61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 82, 13, 312, 308, 317, 14, 87),
)
"""`FacePoints` among the 478 of MediaPipe's Face Landmarker (METHOD §1)."""
IBUG_POINTS = (36, 39, 42, 45, 28, 33, 48, 54, *range(48, 68))
"""`FacePoints` among the 68 of the iBUG layout, which dlib, FAN and most other detectors share."""
LAYOUTS = {68: IBUG_POINTS, 478: MEDIAPIPE_POINTS}

DETECT_EVERY = 3
"""Frames from one detection to the next; `benchmarks/prepare.py` measures what others cost and give."""
MAX_FACES = 5
"""Faces that MediaPipe looks for in a picture."""


class FaceDetector(Protocol):
    """Finds the faces in the pictures of a video."""

    every: int
    """Looks at each n-th frame (and at the last); what lies between is interpolated."""

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        """Every face in `frame` (H, W, 3), RGB, the picture `number` of its video."""
        ...


class MediaPipeDetector:
    """MediaPipe's Face Landmarker; `model` is its `.task` file (`seehear.data.face_model.face_model`)."""

    def __init__(self, model: Path, every: int = DETECT_EVERY) -> None:
        self.every = every
        with _native_messages_held_back():
            self._landmarker = _open_landmarker(model)
            self.detect(0, np.zeros((64, 64, 3), np.uint8))  # the rest of its start-up messages
        atexit.register(_forget, weakref.ref(self._landmarker))

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        """Every face in `frame` (H, W, 3), RGB, with its mouth inside the picture."""
        import mediapipe

        height, width = frame.shape[:2]
        # MediaPipe finds no face, and says nothing, in an array that is not C-contiguous
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        faces = []
        for landmarks in self._landmarker.detect(image).face_landmarks:
            chosen = [landmarks[index] for index in MEDIAPIPE_POINTS]
            points = np.array([(point.x * width, point.y * height) for point in chosen], np.float32)
            if np.all((points[LIPS].mean(0) >= 0) & (points[LIPS].mean(0) < (width, height))):
                faces.append(points)
        return faces


def _open_landmarker(model: Path) -> Any:
    """MediaPipe's object. Raises `DependencyError` if its libraries or `model` cannot be used."""
    try:
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        options = FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=MAX_FACES)
        return FaceLandmarker.create_from_options(options)
    except (ImportError, OSError) as error:
        if "libEGL" in str(error) or "libGLES" in str(error):
            remedy = "on Debian and Ubuntu: apt-get install libegl1 libgles2"
            raise DependencyError(f"MediaPipe lacks a system library ({error}); {remedy}") from error
        raise DependencyError(f"MediaPipe does not start: {error}") from error
    except (RuntimeError, ValueError) as error:
        raise DependencyError(f"MediaPipe cannot use the face model {model}: {str(error).splitlines()[0]}") from error


def _forget(landmarker: "weakref.ref[Any]") -> None:
    """Leave MediaPipe's object to the system when the program ends: closing itself then fails, with a traceback."""
    if (instance := landmarker()) is not None:
        instance._handle = None


@contextmanager
def _native_messages_held_back() -> Iterator[None]:
    """Keep what C++ writes to standard error off the screen; show it after all if the block raises."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(original, held_back.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


class LandmarksFile:
    """Points that lie ready in an .npz file: the detector of one clip.

    The array `landmarks` (T, N, 2) holds x and y in pixels for each frame at 25 frames/s, with N = 68 (iBUG) or 478
    (MediaPipe); a frame without a face holds NaN.
    """

    every = 1

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                landmarks = arrays["landmarks"]
        except FileNotFoundError as error:
            raise FaceError(f"there is no file of landmarks {path}") from error
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise FaceError(f"{path} must be an .npz file with an array 'landmarks'") from error
        if landmarks.ndim != 3 or landmarks.shape[1] not in LAYOUTS or landmarks.shape[2] != 2:
            raise FaceError(f"{path}: 'landmarks' must be (frames, 68 or 478, 2), not {landmarks.shape}")
        self.path = path
        self.points: NDArray[np.float32] = landmarks[:, LAYOUTS[landmarks.shape[1]]].astype(np.float32)
        """(T, 28, 2)"""

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        """The face of frame `number`, if there is one."""
        if number >= len(self.points):
            raise FaceError(f"{self.path} holds {len(self.points)} frames, but the video has more (at 25 frames/s)")
        points = self.points[number]
        return [points] if np.isfinite(points).all() else []
