"""Transcripts as files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seehear.modality import Modality
from seehear.transcript import (
    WRITERS,
    Segment,
    SubtitleOptions,
    Transcript,
    Word,
    output_names,
    subtitles,
    to_srt,
    to_vtt,
    write_transcript,
)

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
        "no_speech_prob": 0.0,
        "words": [],
        "modality": None,
        "face": None,
    }
    assert (values["modality"], values["reason"], values["warnings"]) == ("av", "the file has both", ["a hole"])
    assert json.loads(NOTHING.to_json())["segments"] == []


def test_files(tmp_path: Path) -> None:
    paths = write_transcript(TRANSCRIPT, tmp_path / "new" / "folder", "b", ["txt", "json"])
    assert [path.name for path in paths] == ["b.txt", "b.json"]
    assert paths[0].read_bytes() == TRANSCRIPT.to_txt().encode()
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["b.json", "b.txt"]
    assert set(WRITERS) == {"txt", "vtt", "srt", "tsv", "json"}
    everything = write_transcript(TRANSCRIPT, tmp_path, "c", list(WRITERS))
    assert [path.read_text() for path in everything] == [
        write(TRANSCRIPT, SubtitleOptions()) for write in WRITERS.values()
    ]


def test_tsv_is_in_whole_milliseconds_and_one_line_a_segment() -> None:
    odd = replace(TRANSCRIPT, segments=(Segment(0, 0.0004, 1.2345, "a\tb\nc", (), 0.0),))
    assert odd.to_tsv() == "start\tend\ttext\n0\t1234\ta b c\n"


# --- Subtitles ---


def spoken(text: str, starts: list[float], seconds: float = 0.5) -> Transcript:
    """A segment of words that last so many seconds."""
    words = tuple(Word(w, start, start + seconds, 0.9) for w, start in zip(text.split(), starts, strict=True))
    segment = Segment(0, words[0].start, words[-1].end, text, (), 0.0, 0.0, words)
    return Transcript("x", 4000.0, Modality.AUDIO, "", (segment,))


def test_subtitles_of_segments() -> None:
    assert to_srt(TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,200\nbin blue\n\n2\n00:00:01,200 --> 00:00:02,000\nnaïve 'n' <b>\n"
    )
    assert to_vtt(TRANSCRIPT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.200\nbin blue\n\n00:00:01.200 --> 00:00:02.000\nnaïve 'n' &lt;b&gt;\n"
    )
    assert to_srt(NOTHING) == ""
    assert to_vtt(NOTHING) == "WEBVTT\n"


def test_times_over_an_hour_and_arrows_in_text() -> None:
    said = spoken("go --> there & back", [3599.9996, 3601.0, 3602.0, 3603.0, 3604.0])
    assert to_srt(said) == "1\n01:00:00,000 --> 01:00:04,500\ngo -> there & back\n"
    assert to_vtt(said).endswith("\ngo --&gt; there &amp; back\n")


def test_lines_are_filled_and_subtitles_end_at_a_pause() -> None:
    said = spoken("one two three four five six", [0.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    cues = subtitles(said, SubtitleOptions(max_line_width=9, max_line_count=2))
    assert [(cue.start, cue.end, cue.lines) for cue in cues] == [
        (0.0, 2.5, [["one", "two"], ["three"]]),
        (3.0, 4.5, [["four", "five"]]),
        (9.0, 9.5, [["six"]]),
    ]
    one_line = subtitles(said, SubtitleOptions(max_line_count=1))
    assert [cue.lines for cue in one_line] == [[["one", "two", "three", "four", "five"]], [["six"]]]
    wide_word = subtitles(spoken("extraordinarily so", [0.0, 1.0]), SubtitleOptions(max_line_width=4))
    assert [cue.lines for cue in wide_word] == [[["extraordinarily"]], [["so"]]]


def test_words_are_underlined_as_they_are_said() -> None:
    said = spoken("one two <three>", [0.0, 1.0, 2.0])
    assert to_vtt(said, SubtitleOptions(highlight_words=True)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<u>one</u> two &lt;three&gt;\n\n"
        "00:00:01.000 --> 00:00:02.000\none <u>two</u> &lt;three&gt;\n\n"
        "00:00:02.000 --> 00:00:02.500\none two <u>&lt;three&gt;</u>\n"
    )


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


def test_faces_that_speak_at_once_are_named() -> None:
    words = (Word("bin", 0.5, 1.0, 0.9), Word("blue", 1.0, 1.5, 0.9))
    segments = (
        Segment(0, 0.5, 1.5, "bin blue", (1,), -0.1, 0.0, words, Modality.AUDIOVISUAL, 0),
        Segment(1, 0.5, 2.0, "lay red", (1,), -0.1, 0.0, (), Modality.AUDIOVISUAL, 1),
        Segment(2, 3.0, 4.0, "please", (1,), -0.1, 0.0, (), Modality.AUDIO),
    )
    both = Transcript("x", 4.0, Modality.AUDIOVISUAL, "", segments)
    assert both.to_txt() == "face 0: bin blue\nface 1: lay red\nplease\n"
    assert "500\t2000\tface 1: lay red\n" in both.to_tsv()
    assert "face 0: bin blue" in to_srt(both)
    assert "face 0: bin <u>blue</u>" in to_vtt(both, SubtitleOptions(highlight_words=True))
    assert json.loads(both.to_json())["text"] == "bin blue lay red please"
    turns = Transcript("x", 4.0, Modality.AUDIOVISUAL, "", (segments[0], replace(segments[2], face=1)))
    assert turns.to_txt() == "bin blue\nplease\n"
