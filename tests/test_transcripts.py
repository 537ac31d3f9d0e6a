"""Tables of transcripts, good and bad."""

from pathlib import Path

import pytest

from seehear.errors import CorpusError
from seehear.preparation.transcripts import Transcription, read_transcripts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", 'a\tsay "no", twice\nb/c\tgreen\n'),
        ("t.tsv", '\ufeffID\tSpeaker\tText\r\na\t\tsay "no", twice\r\n\r\nb/c\t\tgreen\r\n'),
        ("t.csv", 'a,"say ""no"", twice"\nb/c,green\n'),
        ("t.csv", 'text,id\n"say ""no"", twice",a\ngreen,b/c\n'),
        ("t.jsonl", '{"id": "a", "text": "say \\"no\\", twice"}\n\n{"id": "b/c", "text": "green", "x": 1}\n'),
    ],
    ids=["tsv", "tsv of a spreadsheet", "csv", "csv with header", "jsonl"],
)
def test_transcripts_are_read(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read_transcripts(path) == {"a": Transcription('say "no", twice'), "b/c": Transcription("green")}


def test_a_transcript_may_name_the_speaker(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tgreen\ts1\nb\tblue\n", encoding="utf-8")
    assert read_transcripts(path) == {"a": Transcription("green", "s1"), "b": Transcription("blue", None)}


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("t.tsv", "a\tgreen\nb\n\tblue\na\tred\n", ["line 2: no text", "line 3: no id", "line 4: the id 'a'"]),
        ("t.csv", 'a,one, two, three, four\nb,"open\n', ["line 1: 5 columns", "quote a text", "line 2: unexpected"]),
        ("t.csv", 'a,"two\nlines"\nb\n', ["line 3: no text"]),
        ("t.jsonl", '{"id": "a"}\n[]\n{"id": 1, "text": "x"}\n{', ["line 1: must", "line 2", "line 3", "line 4: not"]),
        ("t.doc", "a\tgreen\n", ["transcripts are .tsv, .csv, .jsonl or .json"]),
        ("t.tsv", b"a\t\xff\n", ["is not UTF-8"]),
    ],
    ids=["tsv", "csv", "csv of several lines", "jsonl", "suffix", "encoding"],
)  # fmt: skip
def test_all_faults_of_transcripts_are_named(
    tmp_path: Path, name: str, content: "str | bytes", faults: "list[str]"
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError) as failure:
        read_transcripts(path)
    for fault in faults:
        assert fault in str(failure.value)
    assert str(path) in str(failure.value)
