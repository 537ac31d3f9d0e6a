"""Detectors, and where their file of weights comes from."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from seehear.data import face_model as face_model_module
from seehear.data.face_model import cache_folder, download, face_model
from seehear.data.faces import LIPS, STABLE, LandmarksFile, MediaPipeDetector
from seehear.data.media import iter_frames
from seehear.errors import DependencyError, FaceError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /good, half of it at /truncated; counts the requests."""

    requests = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.path not in ("/good", "/truncated"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/good" else CONTENT[: len(CONTENT) // 2])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_appears_whole(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "model.task"
    download(server.url("good"), path, SHA256)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("good", "0" * 64, "is not the expected file"),
        ("missing", SHA256, "404"),
        ("truncated", SHA256, "truncated cannot be downloaded|is not the expected file"),
    ],
)
def test_a_failed_download_leaves_nothing(server: Server, tmp_path: Path, name: str, sha256: str, message: str) -> None:
    with pytest.raises(DependencyError, match=message) as failure:
        download(server.url(name), tmp_path / "model.task", sha256)
    assert "--face-model" in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_download_keeps_what_was_there(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "model.task"
    path.write_bytes(b"old")
    with pytest.raises(DependencyError):
        download(server.url("truncated"), path, SHA256)
    assert path.read_bytes() == b"old"


def test_no_server_and_no_folder_are_one_line(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DependencyError, match="cannot be downloaded"):
        download("http://127.0.0.1:9/x", tmp_path / "model.task", SHA256)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DependencyError, match="cannot be downloaded"):
        download(server.url("good"), tmp_path / "file" / "model.task", SHA256)


def test_the_model_is_downloaded_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEHEAR_FACE_MODEL", raising=False)
    monkeypatch.setenv("SEEHEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(face_model_module, "URL", server.url("good"))
    monkeypatch.setattr(face_model_module, "SHA256", SHA256)
    first, second = face_model(), face_model()
    assert first == second == tmp_path / "cache" / "face_landmarker.task"
    assert server.requests == 1
    first.write_bytes(b"damaged")
    assert face_model().read_bytes() == CONTENT
    assert server.requests == 2


def test_a_named_model_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, other = tmp_path / "named.task", tmp_path / "other.task"
    named.write_bytes(b"")
    other.write_bytes(b"")
    monkeypatch.setenv("SEEHEAR_FACE_MODEL", str(other))
    assert face_model() == other
    assert face_model(named) == named
    with pytest.raises(DependencyError, match=r"missing\.task \(--face-model\)"):
        face_model(tmp_path / "missing.task")
    monkeypatch.setenv("SEEHEAR_FACE_MODEL", "/nowhere.task")
    with pytest.raises(DependencyError, match="SEEHEAR_FACE_MODEL"):
        face_model()


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEHEAR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/seehear")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "seehear"


def test_the_hash_is_that_of_the_published_file(shared: Path) -> None:
    sums = dict(reversed(line.split()) for line in (shared / "models" / "SHA256SUMS").read_text().splitlines())
    assert sums["face_landmarker.task"] == face_model_module.SHA256


# Ready landmarks


@pytest.mark.parametrize("points", [68, 478])
def test_landmarks_from_a_file(tmp_path: Path, points: int) -> None:
    landmarks = np.random.default_rng(0).uniform(0, 300, (4, points, 2))
    landmarks[2] = np.nan
    np.savez(tmp_path / "clip.npz", landmarks=landmarks)
    detector = LandmarksFile(tmp_path / "clip.npz")
    frame = np.zeros((9, 9, 3), np.uint8)
    corner = {68: 36, 478: 33}[points]
    np.testing.assert_allclose(detector.detect(1, frame)[0][0], landmarks[1, corner], rtol=1e-6)
    assert detector.detect(2, frame) == []
    with pytest.raises(FaceError, match="holds 4 frames, but the video has more"):
        detector.detect(4, frame)


def test_unusable_landmarks(tmp_path: Path) -> None:
    path = tmp_path / "clip.npz"
    with pytest.raises(FaceError, match="no file of landmarks"):
        LandmarksFile(path)
    path.write_bytes(b"no archive")
    with pytest.raises(FaceError, match=r"must be an \.npz file"):
        LandmarksFile(path)
    np.savez(path, points=np.zeros((3, 68, 2)))
    with pytest.raises(FaceError, match="array 'landmarks'"):
        LandmarksFile(path)
    np.savez(path, landmarks=np.array([{"not": "numbers"}], dtype=object))
    with pytest.raises(FaceError, match=r"must be an \.npz file"):
        LandmarksFile(path)
    np.savez(path, landmarks=np.zeros((3, 70, 2)))
    with pytest.raises(FaceError, match="68 or 478"):
        LandmarksFile(path)


# MediaPipe


@pytest.fixture(scope="module")
def detector(shared: Path) -> MediaPipeDetector:
    return MediaPipeDetector(shared / "models" / "face_landmarker.task", every=1)


@pytest.fixture(scope="module")
def portrait(shared: Path) -> np.ndarray:
    """A frame (288, 360, 3) of GRID."""
    return next(iter_frames(shared / "data" / "grid-s1" / "clips" / "bbaf4p.mp4"))


def test_mediapipe_finds_a_face(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    (points,) = detector.detect(0, portrait)
    assert points.shape == (28, 2)
    eyes, mouth = points[STABLE][:4], points[LIPS]
    assert np.all(np.diff(eyes[:, 0]) > 0), "eye corners run from left to right in the picture"
    assert eyes[:, 1].max() < points[4, 1] < points[5, 1] < mouth[:, 1].mean(), "eyes, nose, mouth run downwards"
    assert 40 < np.linalg.norm(eyes[3] - eyes[0]) < 90


def test_mediapipe_takes_any_memory_layout(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    fortran = np.asfortranarray(portrait)
    window = np.pad(portrait, ((0, 0), (8, 8), (0, 0)))[:, 8:-8]
    for array in (fortran, window):
        assert not array.flags.c_contiguous
        np.testing.assert_array_equal(detector.detect(0, array), detector.detect(0, portrait))


def test_mediapipe_finds_several_faces_or_none(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    assert len(detector.detect(0, np.hstack([portrait, portrait[:, ::-1]]))) == 2
    assert detector.detect(0, np.zeros_like(portrait)) == []


def test_a_face_whose_mouth_is_outside_the_picture_is_none(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    (points,) = detector.detect(0, portrait)
    nose = int(points[5, 1])
    assert detector.detect(0, portrait[:nose]) == []


def test_an_unusable_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "face.task"
    path.write_bytes(b"no model")
    with pytest.raises(DependencyError, match=r"face\.task") as failure:
        MediaPipeDetector(path)
    assert "\n" not in str(failure.value)


def run_python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_mediapipe_is_quiet(shared: Path) -> None:
    model = shared / "models" / "face_landmarker.task"
    code = f"""
import numpy
from pathlib import Path
from seehear.data.faces import MediaPipeDetector
detector = MediaPipeDetector(Path({str(model)!r}))
print(detector.detect(0, numpy.zeros((64, 64, 3), numpy.uint8)))
"""
    run = run_python(code)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="libEGL is a library of Linux")
def test_a_missing_system_library_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "libEGL.so.1").write_bytes(b"")  # the loader meets this one first, and it cannot be loaded
    code = """
from pathlib import Path
from seehear.data.faces import MediaPipeDetector
MediaPipeDetector(Path("face.task"))
"""
    run = run_python(code, LD_LIBRARY_PATH=str(tmp_path))
    assert "DependencyError: MediaPipe lacks a system library" in run.stderr
    assert "apt-get install libegl1 libgles2" in run.stderr.splitlines()[-1]
