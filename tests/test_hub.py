"""A model of the Hugging Face hub, from a server on this machine that speaks as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

SEEHEAR = Path(sys.executable).with_name("seehear")
NAME = "lips/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves the files of `folder` as the model `NAME`."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.asked.append(self.path)
        path = self.path.split("?")[0]
        file = self.folder / path.rpartition("/")[2]
        if path.startswith(f"/api/models/{NAME}"):
            files = sorted(self.folder.iterdir())
            info = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
            tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
            body, kind = json.dumps(tree if "/tree/" in path else info).encode(), "application/json"
        elif path.startswith(f"/{NAME}/resolve/") and file.is_file():
            body, kind = file.read_bytes(), "application/octet-stream"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(model_folder: Path) -> Iterator[str]:
    """The address of a hub that has one model."""
    Hub.folder, Hub.asked = model_folder, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def transcribe(name: str, hub: str, cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    sound = cache.with_name("sound.wav")
    soundfile.write(sound, np.random.default_rng(0).uniform(-0.3, 0.3, 16_000).astype(np.float32), 16_000)
    command = [SEEHEAR, "transcribe", sound, "--model", name, "--decode", "ctc"]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_model_is_downloaded_once_and_then_needs_no_network(hub: str, tmp_path: Path) -> None:
    first = transcribe(NAME, hub, tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    assert any(path.endswith("/model.safetensors") for path in Hub.asked)
    Hub.asked.clear()
    again = transcribe(NAME, hub, tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert not Hub.asked


def test_a_name_that_the_hub_does_not_have_is_one_line(hub: str, tmp_path: Path) -> None:
    result = transcribe("lips/other", hub, tmp_path / "cache")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no folder lips/other, and the Hugging Face hub does not give it: ")
    assert result.stderr.count("\n") == 1
