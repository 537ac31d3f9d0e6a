"""The Python that the documentation shows runs."""

import re
from pathlib import Path

import pytest

from conftest import random_clip
from seehear.data.clipfile import write_clip

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/DECODING.md"])
def test_examples_run(
    page: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("talk.mp4", "a.mp4"):
        write_clip(tmp_path / name, random_clip(20))
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example.replace('"MODEL"', repr(str(model_folder))), page, "exec"), {})
    if page == "docs/DECODING.md":
        assert "b.wav failed: b.wav: no such file" in capsys.readouterr().out
