"""The picture of training runs."""

import json
from pathlib import Path

import cv2

from seehear.training.curves import draw_curves, joined


def test_runs_that_follow_each_other_are_one_line(tmp_path: Path) -> None:
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        lines = [{"step": step, "valid/ctc/av": 1 / step, "av/ctc/labelled": 9.0} for step in (1, 2, 2, 3)]
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    both = [tmp_path / "first", tmp_path / "second"]
    assert [record["step"] for record in joined(both)] == [1, 2, 2, 3, 4, 5, 5, 6]
    draw_curves({"both": both, "first": both[:1]}, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] == 1620
