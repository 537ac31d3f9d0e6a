"""Transcripts as files."""

import json
from pathlib import Path

import pytest

from seehear.modality import Modality
from seehear.transcript import WRITERS, Segment, Transcript, output_names, write_transcript

SEGMENTS = (
    Segment(0, 0.0, 1.2, "bin blue", (3, 4), -0.25),
    Segment(1, 1.2, 2.0, "naïve 'n' <b>", (5,), -1.5),
)
TRANSCRIPT = Transcript("a/b.mp4", 2.0, Modality.AUDIOVISUAL, "the file has both", SEGMENTS, ("a hole",))
NOTHING = Transcript("a/b.mp4", 2.0, Modality.VIDEO, "as asked for")


def test_text() -> None:
    assert TRANSCRIPT.text == "bin blue naïve 'n' <b>"
    assert TRANSCRIPT.to_txt() == "bin blue\nnaïve 'n' <b>\n"
    assert (NOTHING.text, NOTHING.to_txt()) == ("", "")


def test_json_has_the_keys_of_whisper() -> None:
    values = json.loads(TRANSCRIPT.to_json())
    assert values["text"] == TRANSCRIPT.text
    assert values["segments"][0] == {
        "id": 0,
        "start": 0.0,
        "end": 1.2,
        "text": "bin blue",
        "tokens": [3, 4],
        "avg_logprob": -0.25,
    }
    assert (values["modality"], values["reason"], values["warnings"]) == ("av", "the file has both", ["a hole"])
    assert json.loads(NOTHING.to_json())["segments"] == []


def test_files(tmp_path: Path) -> None:
    paths = write_transcript(TRANSCRIPT, tmp_path / "new" / "folder", "b", ["txt", "json"])
    assert [path.name for path in paths] == ["b.txt", "b.json"]
    assert paths[0].read_bytes() == TRANSCRIPT.to_txt().encode()
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["b.json", "b.txt"]
    assert set(WRITERS) == {"txt", "json"}


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["a/x.mp4", "b/y.wav"], ["x", "y"]),
        (["x.mp4", "x.wav", "y.mp4"], ["x.mp4", "x.wav", "y"]),
        (["a/x.mp4", "b/x.mp4"], ["x.mp4", "x.mp4-2"]),
        (["x.mp4", "X.MP4"], ["x.mp4", "X.MP4-2"]),
        (["a/x.mp4", "b/x.mp4", "c/x.mp4.mov"], ["x.mp4", "x.mp4-2", "x.mp4-3"]),
        (["x.mp4"] * 3, ["x.mp4", "x.mp4-2", "x.mp4-3"]),
        ([], []),
    ],
)
def test_no_two_inputs_share_an_output(inputs: list[str], names: list[str]) -> None:
    assert output_names([Path(path) for path in inputs]) == names
    assert len({name.casefold() for name in names}) == len(names)
