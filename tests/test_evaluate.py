"""Evaluation: every utterance once, batched as one by one, under stated conditions, written and compared."""

import json
import shutil
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import seehear.cli.evaluate as command
from seehear.checkpoint import load_model
from seehear.data.batch import evaluation_batches
from seehear.data.corpus import Corpus
from seehear.decoding.ngram import NGram
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import ConfigError, CorpusError
from seehear.evaluate import CLEAN, Condition, Noise, Record, Report, compare, evaluate, read_records, write_report
from seehear.metrics import count_characters, count_words
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer

CTC = DecodingOptions(method=DecodingMethod.CTC)
METHODS = [
    CTC,
    DecodingOptions(method=DecodingMethod.ATTENTION, max_length_ratio=0.4),
    DecodingOptions(method=DecodingMethod.BEAM, beam_size=3, max_length_ratio=0.4),
]
NOISE = Noise("hiss.wav", np.random.default_rng(5).normal(0, 0.1, 9000).astype(np.float32), 0.0)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> USR:
    """Random weights, but with tokens that change along the clip: blanks are made rare and scores far apart."""
    model, _ = load_model(model_folder)
    with torch.no_grad():
        for head in (*model.ctc_heads.values(), *model.output_heads.values()):
            head.weight.mul_(3.0)
        for head in model.ctc_heads.values():
            head.bias[0] = -5.0
    return model


def run(model: USR, tokenizer: Tokenizer, corpus: Corpus, **settings: object) -> Report:
    values = {"modalities": tuple(Modality), "options": CTC, "max_frames": 2400, **settings}
    return evaluate(model, tokenizer, corpus, corpus.split("test"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: options.method.value)
def test_a_batch_gives_what_its_clips_give_alone(
    model: USR, tokenizer: Tokenizer, random_corpus: Corpus, options: DecodingOptions
) -> None:
    together = run(model, tokenizer, random_corpus, options=options)
    alone = run(model, tokenizer, random_corpus, options=options, max_frames=1)
    assert any(record.hypothesis for record in together.records)
    assert list(together.records) == list(alone.records)


def test_padding_does_not_change_features(model: USR, random_corpus: Corpus) -> None:
    utterances = random_corpus.split("test")
    (batch,) = evaluation_batches(random_corpus, utterances, 2400)
    with torch.no_grad():
        together = model.encode(batch.video, batch.audio, batch.mask, mask_padding=True)
        for single in evaluation_batches(random_corpus, utterances, 1):
            row, frames = batch.ids.index(single.ids[0]), int(single.lengths[0])
            alone = model.encode(single.video, single.audio, single.mask, mask_padding=True)
            for modality in Modality:
                assert torch.allclose(together[modality][row, :frames], alone[modality][0], atol=1e-5), modality


def test_every_utterance_is_scored_once_in_its_order(model: USR, tokenizer: Tokenizer, random_corpus: Corpus) -> None:
    done: list[int] = []
    report = run(model, tokenizer, random_corpus, max_frames=60, on_batch=done.append)
    assert sum(done) == 5
    assert [result.modality for result in report.results] == list(Modality)
    for result in report.results:
        assert [record.id for record in result.records] == [f"clip-{number}" for number in range(5)]
        assert result.words.reference_length == sum(len(u.text.split()) for u in random_corpus.split("test") if u.text)
        assert result.wer_interval is not None
        assert result.wer is not None
        assert result.wer_interval.low <= result.wer <= result.wer_interval.high
        assert result.cer is not None
        assert result.cer_interval is not None
    assert report[Modality.VIDEO] is report.results[1]
    assert report.normaliser == "lower-words-1"


def test_what_would_spoil_a_figure_is_refused(model: USR, tokenizer: Tokenizer, random_corpus: Corpus) -> None:
    test, mute = random_corpus.split("test"), random_corpus.split("mute")
    for utterances, message in (
        ([], "no utterances"),
        ([*test, test[1]], "'clip-1' is listed twice"),
        ([*test, *mute], "1 of 6 utterances have no transcript to compare with, as 'clip-5'"),
    ):
        with pytest.raises(CorpusError, match=message):
            evaluate(model, tokenizer, random_corpus, utterances, tuple(Modality), CTC)


def test_an_empty_reference_counts_insertions(model: USR, tokenizer: Tokenizer, random_corpus: Corpus) -> None:
    utterance = replace(random_corpus.split("test")[0], text="?!")
    report = evaluate(model, tokenizer, random_corpus, [utterance], [Modality.AUDIO], CTC)
    (record,) = report[Modality.AUDIO].records
    assert record.words.insertions == len(record.hypothesis.split()) > 0
    assert report[Modality.AUDIO].wer is None
    assert report[Modality.AUDIO].wer_interval is None
    json.dumps(report.summary(), allow_nan=False)


def test_blank_video_hides_the_lips_and_nothing_else(model: USR, tokenizer: Tokenizer, random_corpus: Corpus) -> None:
    clean = run(model, tokenizer, random_corpus)
    blank = run(model, tokenizer, random_corpus, condition=Condition(blank_video=True))
    assert blank[Modality.AUDIO].records == clean[Modality.AUDIO].records
    assert blank[Modality.VIDEO].records != clean[Modality.VIDEO].records
    assert (str(blank.condition), str(clean.condition)) == ("blank video", "clean")


def test_noise_is_at_the_asked_ratio_and_the_same_in_any_batch(random_corpus: Corpus) -> None:
    utterances = random_corpus.split("test")
    condition = Condition(noise=NOISE)
    (clean,) = evaluation_batches(random_corpus, utterances, 2400)
    together = condition.apply(clean)
    assert torch.equal(clean.video, together.video)
    for single in evaluation_batches(random_corpus, utterances, 1):
        noisy = condition.apply(single).audio[0]
        row = clean.ids.index(single.ids[0])
        assert torch.equal(together.audio[row, : len(noisy)], noisy)
        assert not together.audio[row, len(noisy) :].any()
        noise = noisy - single.audio[0]
        ratio = 10 * torch.log10(single.audio.square().mean() / noise.square().mean())
        assert ratio == pytest.approx(NOISE.snr_db, abs=0.01)
    assert str(Condition(NOISE, blank_video=True)) == "hiss.wav at 0 dB, blank video"


def test_noise_changes_what_is_heard_alone(model: USR, tokenizer: Tokenizer, random_corpus: Corpus) -> None:
    clean = run(model, tokenizer, random_corpus)
    noisy = run(model, tokenizer, random_corpus, condition=Condition(noise=NOISE))
    assert noisy[Modality.VIDEO].records == clean[Modality.VIDEO].records
    assert noisy[Modality.AUDIO].records != clean[Modality.AUDIO].records


def test_results_are_read_back(model: USR, tokenizer: Tokenizer, random_corpus: Corpus, tmp_path: Path) -> None:
    report = run(model, tokenizer, random_corpus)
    path = tmp_path / "deep" / "results.jsonl"
    summary_path = write_report(report, path, {"model": "somewhere"})
    assert read_records(path) == {result.modality: list(result.records) for result in report.results}
    summary = json.loads(summary_path.read_text(encoding="utf-8"))
    assert summary["model"] == "somewhere"
    assert summary["normaliser"] == "lower-words-1"
    assert summary["decoding"]["method"] == "ctc"
    assert summary["results"]["av"]["wer"] == report[Modality.AUDIOVISUAL].wer
    assert summary["results"]["av"]["utterances"] == 5
    assert sorted(path.name for path in path.parent.iterdir()) == ["results.jsonl", "results.summary.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [*lines, lines[0]], "line 16: 'clip-0' stands twice for 'a'"),
        (lambda lines: [lines[0], "{"], "line 2: not a result"),
        (lambda lines: [lines[0], "[]"], "line 2: not a result"),
        (lambda lines: [lines[0].replace('"a"', '"smell"')], "line 1: not a result"),
        (lambda lines: [lines[0].replace('"hits"', '"kisses"')], "line 1: not a result"),
        (lambda lines: [], "no results"),
    ],
)
def test_damaged_results_are_refused(
    model: USR, tokenizer: Tokenizer, random_corpus: Corpus, tmp_path: Path, damage, message: str
) -> None:
    path = tmp_path / "results.jsonl"
    write_report(run(model, tokenizer, random_corpus), path, {})
    path.write_text("\n".join(damage(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_records(path)
    with pytest.raises(CorpusError, match="cannot be read"):
        read_records(tmp_path / "missing.jsonl")


def record(id: str, reference: str, hypothesis: str) -> Record:
    counts = (count_words(reference, hypothesis), count_characters(reference, hypothesis))
    return Record(id, Modality.AUDIO, reference, hypothesis, *counts)


def test_two_systems_are_compared_on_the_same_utterances_only() -> None:
    first = [record(str(number), "a b c", "a x c") for number in range(40)]
    second = [record(str(number), "a b c", "a b c") for number in reversed(range(40))]
    comparison = compare(first, second)
    assert comparison is not None
    assert comparison.difference == pytest.approx(-1 / 3)
    assert comparison.p_value < 0.01
    with pytest.raises(CorpusError, match="1 are in one alone, as '0'"):
        compare(first, second[:-1])
    with pytest.raises(CorpusError, match=r"references of 1 utterances differ, as of '39'"):
        compare(first, [record("39", "a b d", "a"), *second[1:]])


# The command


def test_results_of_two_language_models_do_not_overwrite_each_other(
    model_folder: Path, tokenizer: Tokenizer, random_corpus: Corpus, tmp_path: Path
) -> None:
    """Not even of two of the same name; their weight and their name are those of the file."""
    home = Path(shutil.copytree(model_folder, tmp_path / "model"))
    files = []
    for folder, text in (("one", "bin blue"), ("two", "set red")):
        files.append(tmp_path / folder / "lm.json")
        learnt = NGram.learn([tokenizer.encode(text)], tokenizer.vocab_size, pieces=tokenizer.pieces)
        learnt.save(files[-1])
    evaluate_command = partial(command.evaluate, random_corpus.root, str(home), modality="a", beam_size=2)
    for file in (None, *files):
        evaluate_command(lm=file, max_length_ratio=0.1)
    evaluate_command(lm=files[0], lm_weight=1.0, max_length_ratio=0.1)
    stem = "random-test-beam-beam_size=2-max_length_ratio=0.1"
    one, two = (f"lm-{zlib.crc32(file.read_bytes()):08x}" for file in files)
    names = {f"{stem}-a", f"{stem}-{one}=0.3-a", f"{stem}-{two}=0.3-a", f"{stem}-{one}=1-a"}
    assert {path.stem for path in (home / "evaluation").glob("*.jsonl")} == names


def test_results_of_searches_on_other_devices_do_not_overwrite_each_other() -> None:
    name = partial(command.file_name, "lrs3", "test", "a,v,av", CTC, CLEAN, "fp16")
    assert name() == "lrs3-test-ctc-fp16"
    assert name(search_device=torch.device("cpu")) == "lrs3-test-ctc-fp16-search=cpu"
    assert name(search_device=torch.device("cuda:1")) == "lrs3-test-ctc-fp16-search=cuda1"


@pytest.mark.parametrize("method", [DecodingMethod.CTC, DecodingMethod.ATTENTION, DecodingMethod.CTC_BEAM])
def test_a_language_model_that_would_not_be_asked_is_refused(
    model_folder: Path, random_corpus: Corpus, tmp_path: Path, method: DecodingMethod
) -> None:
    given = partial(command.evaluate, random_corpus.root, str(model_folder), lm=tmp_path / "lm.json")
    with pytest.raises(ConfigError, match=rf"^decoding by {method} asks no language model: beam and rescore do"):
        given(decode=method)
    with pytest.raises(ConfigError, match=r"^a language weight of 0 asks no language model"):
        given(lm_weight=0.0)


@pytest.mark.parametrize(
    ("options", "description"),
    [
        (DecodingOptions(language_weight=0.0), "beam search (40 hypotheses, CTC weight 0.1, length ratio 1)"),
        (
            DecodingOptions(length_bonus=2.0, max_length_ratio=0.4, language_weight=0.3),
            "beam search (40 hypotheses, CTC weight 0.1, length bonus 2, language model 0.3, length ratio 0.4)",
        ),
        (
            DecodingOptions(max_length_ratio=0.0, language_weight=0.0),
            "beam search (40 hypotheses, CTC weight 0.1, length ratio 0)",
        ),
        (
            DecodingOptions(DecodingMethod.RESCORE, 4, 0.5, -1.0, language_weight=2.0),
            "CTC prefix search, rescored (4 hypotheses, CTC weight 0.5, length bonus -1, language model 2)",
        ),
        (
            DecodingOptions(DecodingMethod.ATTENTION, max_length_ratio=0.0),
            "greedy attention (length ratio 0)",
        ),
        (DecodingOptions(DecodingMethod.CTC_BEAM, 7), "CTC prefix search (7 hypotheses)"),
        (CTC, "greedy CTC"),
    ],
)
def test_decoding_is_described_by_what_matters(options: DecodingOptions, description: str) -> None:
    assert command.describe_decoding(options) == description
