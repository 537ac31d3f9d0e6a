"""The file of weights that MediaPipe's Face Landmarker needs: named by the user, or downloaded once into the cache."""

import hashlib
import os
import shutil
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from seehear.errors import DependencyError

URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
ENVIRONMENT_VARIABLE = "SEEHEAR_FACE_MODEL"
TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""


def face_model(path: Path | None = None) -> Path:
    """The `.task` file: `path`, else what SEEHEAR_FACE_MODEL names, else the cached download.

    Raises `DependencyError` if it is not there and cannot be downloaded.
    """
    named = path or os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not Path(named).is_file():
            origin = "--face-model" if path else ENVIRONMENT_VARIABLE
            raise DependencyError(f"there is no face model {named} ({origin})")
        return Path(named)
    cached = cache_folder() / "face_landmarker.task"
    if not cached.is_file() or file_sha256(cached) != SHA256:
        download(URL, cached, SHA256)
    return cached


def cache_folder() -> Path:
    """Where downloads are kept: SEEHEAR_CACHE, else `seehear` in XDG_CACHE_HOME, else ~/.cache/seehear."""
    if folder := os.environ.get("SEEHEAR_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seehear"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch `url` into `path`, which appears only when complete and of the right SHA-256. Raises `DependencyError`."""
    remedy = f"download it by hand and name it with --face-model or {ENVIRONMENT_VARIABLE}"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, temporary.open("wb") as file:
            shutil.copyfileobj(response, file)
        if (found := file_sha256(temporary)) != sha256:
            raise DependencyError(f"{url} is not the expected file (SHA-256 {found}): {remedy}")
        temporary.replace(path)
    except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
        raise DependencyError(f"the face model {url} cannot be downloaded ({error}): {remedy}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
