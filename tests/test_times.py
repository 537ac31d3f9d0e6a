"""Given times: subtitles and tables as they are found, and which of their cues can be clips."""

import json
from pathlib import Path

import numpy as np
import pytest

from seehear.errors import CorpusError
from seehear.listening.windows import Window
from seehear.modality import Modality
from seehear.preparation.cues import Cue, joined, parse_clock, place_cues
from seehear.preparation.labels import collect_labels
from seehear.preparation.sources import make_source
from seehear.preparation.times import find_times, read_cues
from seehear.preparation.transcripts import Transcription, read_transcripts
from seehear.transcript import Segment, SubtitleOptions, Transcript, Word, to_srt, write_transcript


def cues_of(tmp_path: Path, name: str, content: str | bytes) -> list[Cue]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_cues(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("75.5", 75.5),
        ("75,25", 75.25),
        ("0", 0.0),
        ("01:15.500", 75.5),
        ("1:00:01,5", 3601.5),
        ("00:00:07", 7.0),
        (" 3. ", 3.0),
        ("100:00:00.000", 360_000.0),
        ("", None),
        ("-1", None),
        ("1:2:3:4", None),
        ("nan", None),
        ("1e3", None),
        ("12 s", None),
    ],
)
def test_clock(text: str, seconds: float | None) -> None:
    assert parse_clock(text) == seconds


# Subtitles


NASTY_SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500 X1:100 X2:200 Y1:100 Y2:200
{\\an8}<i>Bin  blue</i>
at f <font color="#ff0000">two</font>

2
00:00:05,000-->00:00:06,000
- Now
- No, at &lt;once&gt;!

3
0:00:03.5 --> 0:00:04

4
00:00:07,000 --> 00:00:08,000
first

third after an empty line
5
00:00:09,000 --> 00:00:10,000
-5 degrees <3 \u200e”right”
00:00:11,000 --> 00:00:12,000
no number before
""".replace("\n", "\r\n")


def test_subrip_as_it_is_found(tmp_path: Path) -> None:
    assert cues_of(tmp_path, "a.srt", NASTY_SRT) == [
        Cue(1.0, 2.5, "Bin blue at f two"),
        Cue(5.0, 6.0, "Now No, at <once>!"),
        Cue(3.5, 4.0, ""),
        Cue(7.0, 8.0, "first third after an empty line"),
        Cue(9.0, 10.0, "-5 degrees <3 ”right”"),
        Cue(11.0, 12.0, "no number before"),
    ]


NASTY_VTT = """\ufeffWEBVTT Kind: captions
X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000

STYLE
::cue { color: red }

NOTE
this is
no cue

intro
00:01.000 --> 00:02.000 align:start position:0%
<v Anna>Bin <c.yellow>blue</c>

NOTE neither

00:00:03.000 --> 00:00:04.000
<v.loud Mr. Q>Lay</v>
<v Anna>red</v>

01:00:05.000\t-->\t01:00:06.000 line:0
<00:00:05.100><c>set</c> <00:00:05.500>white &amp; black
by q


<v Bert>not a cue</v>
"""


def test_webvtt_as_it_is_found(tmp_path: Path) -> None:
    expected = [
        Cue(1.0, 2.0, "Bin blue", "Anna"),
        Cue(3.0, 4.0, "Lay red"),
        Cue(3605.0, 3606.0, "set white & black by q"),
    ]
    assert cues_of(tmp_path, "a.vtt", NASTY_VTT) == expected
    assert cues_of(tmp_path, "b.vtt", NASTY_VTT.replace("\n", "\r")) == expected
    assert cues_of(tmp_path, "c.vtt", "WEBVTT") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\ngr\xfcn", r"a\.srt is not UTF-8 \(byte 34\); save it as UTF-8"),
        ("a.srt", "1\n00:00:01,000 --> soon\nx", r"a\.srt, line 2: '00:00:01,000 --> soon' are no times such as"),
        ("a.vtt", "00:01.000 --> 00:02.000\nx", r"a\.vtt is no WebVTT"),
        ("a.tsv", "id\ttext\nx\ty\n", r"a\.tsv: line 1: there must be a first line with the columns start, end and"),
        ("a.tsv", "start\tend\ttext\n1\tx\ty\n\t\tz\n", r"a\.tsv: line 2: 'end' is 'x', not seconds .*; line 3: no st"),
        ("a.json", '[{"start": 1, "end": 2}]', r"a\.json: line 1: must be an object with the texts 'text'"),
        ("a.json", '[{"start": -1, "end": 2, "text": ""}]', r"a\.json: line 1: 'start' is '-1', not seconds"),
        ("a.json", "[1, ", r"a\.json: line 1: not valid JSON"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as error:
        cues_of(tmp_path, name, content)
    assert "\n" not in str(error.value)


def transcript() -> Transcript:
    """Three segments, one of which has signs that are marks in subtitles."""
    texts = ("bin blue at f two now", "lay red & with x < 9", "set white by q zero")
    times = [(0.48, 2.96), (2.96, 5.04), (61.2, 63.999)]
    segments = []
    for number, (text, (start, end)) in enumerate(zip(texts, times, strict=True)):
        edges = [float(edge) for edge in np.linspace(start, end, len(text.split()) + 1)]
        words = tuple(Word(*word, 1.0) for word in zip(text.split(), edges[:-1], edges[1:], strict=True))
        segments.append(Segment(number, start, end, text, (), 0.0, words=words))
    return Transcript("film.mp4", 70.0, Modality.AUDIOVISUAL, "", tuple(segments))


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "json"])
def test_transcripts_are_read_back(tmp_path: Path, format: str) -> None:
    said = transcript()
    write_transcript(said, tmp_path, "film", [format])
    (tmp_path / "film.mp4").touch()
    path = find_times([tmp_path])[tmp_path / "film"]
    assert path == tmp_path / f"film.{format}"
    found = read_cues(path)
    assert [cue.text for cue in found] == [segment.text for segment in said.segments]
    assert [(cue.start, cue.end) for cue in found] == [pytest.approx((s.start, s.end)) for s in said.segments]


def test_subtitles_that_highlight_words_are_one_cue_a_text(tmp_path: Path) -> None:
    said = transcript()
    found = cues_of(tmp_path, "a.srt", to_srt(said, SubtitleOptions(highlight_words=True)))
    placed, left_out = place_cues(found, 24.0)
    assert [cue.text for cue, _ in placed] == [segment.text for segment in said.segments]
    assert [(cue.start, cue.end) for cue, _ in placed] == [pytest.approx((s.start, s.end)) for s in said.segments]
    assert left_out == []


# Tables


def test_a_table_beside_a_recording(tmp_path: Path) -> None:
    in_seconds = [Cue(0.5, 2.0, "bin blue", "s1"), Cue(62.0, 63.25, "lay red")]
    table = "text\tspeaker\tstart\tend\nbin  blue\ts1\t0.5\t2\nlay red\t\t1:02\t0:01:03.25\n"
    assert cues_of(tmp_path, "a.tsv", table) == in_seconds
    values = [
        {"start": 0.5, "end": 2, "text": "bin blue", "speaker": "s1"},
        {"start": "1:02", "end": "63.25", "text": " lay red", "speaker": None},
    ]
    assert cues_of(tmp_path, "a.json", json.dumps(values)) == in_seconds
    assert cues_of(tmp_path, "b.json", json.dumps({"text": "…", "segments": values})) == in_seconds
    milliseconds = cues_of(tmp_path, "w.tsv", "start\tend\ttext\n500\t2000\tbin blue\n")
    assert milliseconds == [Cue(0.5, 2.0, "bin blue")]
    assert cues_of(tmp_path, "x.tsv", "start\tend\ttext\n0\t2.5\tbin blue\n") == [Cue(0.0, 2.5, "bin blue")]
    assert cues_of(tmp_path, "y.json", '[{"start": 1e-05, "end": 2.0, "text": "x"}]')[0].start == 1e-05


def test_which_file_lies_beside_a_recording(tmp_path: Path) -> None:
    film = tmp_path / "film.v2"
    (tmp_path / "film.srt").touch()
    for other in ('{"title": "metadata"}', "[[1, 2], [3, 4]]", '[{"box": 1}]', "7"):
        (tmp_path / "film.v2.json").write_text(other)
        assert find_times([tmp_path]) == {tmp_path / "film": tmp_path / "film.srt"}
    (tmp_path / "film.v2.json").write_text('{"segments": []}')
    assert find_times([tmp_path])[film] == tmp_path / "film.v2.json"
    (tmp_path / "film.v2.SRT").touch()
    assert find_times([tmp_path])[film] == tmp_path / "film.v2.SRT"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "t.tsv",
            "id\tstart\tend\ttext\tspeaker\nfilm\t0\t2\tbin blue\ts1\na\t\t\tset white\nfilm\t3\t4.5\tlay red\ts1",
        ),
        ("t.csv", "speaker,end,start,text,id\ns1,2,0,bin blue,film\n,,,set white,a\ns1,00:04.5,3,lay red,film\n"),
        (
            "t.json",
            '[{"id": "film", "start": 0, "end": 2.0, "text": "bin blue", "speaker": "s1"}, {"id": "a", "text": '
            '"set white"}, {"id": "film", "start": 3, "end": 4.5, "text": "lay red", "speaker": "s1"}]',
        ),
        (
            "t.jsonl",
            '{"id": "film", "start": 0, "end": 2.0, "text": "bin blue", "speaker": "s1"}\n{"id": "a", "text": '
            '"set white"}\n{"id": "film", "start": 3, "end": 4.5, "text": "lay red", "speaker": "s1"}\n',
        ),
    ],
)
def test_a_table_for_all_recordings(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    cues = (Cue(0.0, 2.0, "bin blue", "s1"), Cue(3.0, 4.5, "lay red", "s1"))
    assert read_transcripts(tmp_path / name) == {
        "film": Transcription("bin blue lay red", "s1", cues),
        "a": Transcription("set white"),
    }


def test_faulty_times_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tstart\tend\ttext\nfilm\t0\t\tx\nfilm\tsoon\t2\ty\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"line 2: 'end' is '', not seconds .*; line 3: 'start' is 'soon'"):
        read_transcripts(tmp_path / "t.tsv")


# Which cues become clips


def test_one_cue_is_one_clip_with_a_margin_that_ends_before_its_neighbours() -> None:
    cues = [Cue(10.0, 12.0, "c"), Cue(0.08, 2.0, "a"), Cue(2.0, 4.0, "b"), Cue(12.24, 13.0, "d"), Cue(40.0, 64.0, "e")]
    placed, left_out = place_cues(cues, 24.0)
    assert [(cue.text, window) for cue, window in placed] == [
        ("a", Window(0, 50, 2, 50)),
        ("b", Window(50, 105, 50, 100)),
        ("c", Window(245, 303, 250, 300)),
        ("d", Window(303, 330, 306, 325)),
        ("e", Window(1000, 1600, 1000, 1600)),
    ]
    assert left_out == []


def test_what_cannot_be_a_clip_is_told_with_the_reason() -> None:
    cues = [
        Cue(0.0, 3.0, "first"),
        Cue(2.9, 5.0, "rounded by 0.1 s"),
        Cue(6.0, 12.0, "over it"),
        Cue(7.0, 8.0, "two"),
        Cue(9.0, 10.0, "more"),
        Cue(11.9, 14.0, "beside it"),
        Cue(20.0, 20.0, "no time"),
        Cue(22.0, 21.0, "backwards"),
        Cue(23.0, 24.0, " - "),
        Cue(24.0, 25.0, "[door slams] (laughs)"),
        Cue(25.0, 26.0, "♪ la la ♪"),
        Cue(30.0, 60.0, "too long"),
        Cue(60.0, 61.0, "twice"),
        Cue(60.5, 62.0, "twice"),
    ]
    placed, left_out = place_cues(cues, 24.0)
    assert [cue for cue, _ in placed] == [*cues[:2], cues[5], Cue(60.0, 62.0, "twice")]
    assert [(cue.text, cue.reason) for cue in left_out] == [
        ("over it", "it overlaps with another text"),
        ("two", "it overlaps with another text"),
        ("more", "it overlaps with another text"),
        ("no time", "it ends when it begins, or before"),
        ("backwards", "it ends when it begins, or before"),
        (" - ", "it has no words"),
        ("[door slams] (laughs)", "it has no words"),
        ("♪ la la ♪", "it has no words"),
        ("too long", "it is longer than 24 s"),
    ]
    starts = [window.start for _, window in placed]
    assert starts == sorted(starts)


def test_the_text_of_a_whole_recording() -> None:
    assert joined([Cue(3, 4, "b", "y"), Cue(1, 2, "a", "x"), Cue(2, 3, "[noise]")]) == ("a b", None)
    assert joined([Cue(1, 2, "a", "x"), Cue(2, 3, "a", "x"), Cue(3, 4, "b", "x")]) == ("a a b", "x")
    assert joined([Cue(1, 3, "a", "x"), Cue(2, 4, "a", "x"), Cue(4, 5, "b", "x")]) == ("a b", "x")
    assert joined([]) == ("", None)


ROLLING = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start position:0%
\x20
bin<00:00:00.500><c> blue</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
bin blue
\x20

00:00:02.010 --> 00:00:04.500 align:start position:0%
bin blue
lay<00:00:02.800><c> red</c><00:00:03.300><c> with</c>

00:00:04.500 --> 00:00:04.510 align:start position:0%
lay red with
\x20

00:00:04.510 --> 00:00:06.000 align:start position:0%
lay red with
set<00:00:05.000><c> white</c>
"""


def test_captions_that_roll_up(tmp_path: Path) -> None:
    found = cues_of(tmp_path, "a.vtt", ROLLING)
    assert found == [Cue(0.0, 2.01, "bin blue"), Cue(2.01, 4.5, "lay red with"), Cue(4.51, 6.0, "set white")]
    assert len(place_cues(found, 24.0)[0]) == 3
    times = [f"00:00:0{n},000 --> 00:00:0{n + 1},000" for n in (0, 1, 3)]
    srt = f"{times[0]}\na\nb\n\n{times[1]}\nb\nc\n\n{times[2]}\nc\n"
    assert [cue.text for cue in cues_of(tmp_path, "a.srt", srt)] == ["a b", "c", "c"]


def test_a_word_that_is_said_again_is_another_cue(tmp_path: Path) -> None:
    srt = "00:00:01,000 --> 00:00:02,000\nyes\n\n00:00:02,000 --> 00:00:03,000\nyes\n\n"
    found = cues_of(tmp_path, "a.srt", srt)
    assert joined(found) == ("yes yes", None)
    assert [window[:2] for _, window in place_cues(found, 24.0)[0]] == [(20, 50), (50, 80)]


def test_no_text_is_lost_where_cues_share_their_frames() -> None:
    placed, left_out = place_cues([Cue(1.0, 1.08, "a"), Cue(1.0, 1.08, "b"), Cue(5.0, 5.2, "a whole sentence")], 24.0)
    assert placed == []
    assert [(cue.text, cue.reason) for cue in left_out] == [
        ("a", "it overlaps with another text"),
        ("b", "it overlaps with another text"),
        ("a whole sentence", "it is too short for its text"),
    ]


def test_an_id_with_times_in_some_lines_only(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tstart\tend\ttext\nfilm\t1\t2\tone\na\t\t\tgreen\nfilm\t\t\ttwo\n")
    with pytest.raises(CorpusError, match=r"line 4: the id 'film' has times in other lines and none here"):
        read_transcripts(tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("film.tsv", "film 0.1 0.3 word\n"),
        ("film.tsv", "file\tsentence\n"),
        ("film.json", '[{"start": 1, "end": 2, "word": "x"}]'),
    ],
)
def test_files_of_other_programs_are_left_alone(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert find_times([tmp_path]) == {}


def test_subtitles_named_by_their_language(tmp_path: Path) -> None:
    for name in ("film.en.srt", "film.en.vtt", "talk.de.vtt", "talk.pt-BR.srt", "film.final.srt"):
        (tmp_path / name).write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nbin blue\n")
    for id in ("film", "talk"):
        (tmp_path / f"{id}.mp4").touch()
    sources = [make_source(id, f"{id}.mp4", tmp_path / f"{id}.mp4") for id in ("film", "talk")]
    labels = collect_labels(sources, {})
    assert (labels.of("film").origin, labels.of("film").cues) == ("film.en.srt", (Cue(1.0, 2.0, "bin blue"),))
    assert labels.of("talk").cues == ()
    assert labels.several_languages == ["talk.mp4: talk.pt-BR.srt, talk.de.vtt"]
