"""Text ↔ token ids: SentencePiece unigram pieces between CTC's blank (id 0) and end of sentence (the last id)."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from seehear.errors import ConfigError, ModelError
from seehear.files import write_atomically
from seehear.pieces import WORD_START, characters, count_words, seed_pieces, small_vocabulary
from seehear.text import DEFAULT_NORMALISER, NORMALISERS, Normaliser

SPECIALS = 2
"""Blank and end of sentence, which are not pieces."""
UNKNOWN = "<unk>"
UNKNOWN_ID = 1
DESCRIPTION_FILE = "tokenizer.json"
PIECES_FILE = "tokenizer.model"


class Tokenizer:
    """A vocabulary: blank, pieces (the first is <unk>), end of sentence; and the normal form of its text."""

    def __init__(self, pieces: Sequence[str], normaliser: Normaliser, sentencepiece_model: bytes | None = None) -> None:
        """`sentencepiece_model` is what splits text into pieces; without it a vocabulary can only decode."""
        self.pieces = tuple(pieces)
        self.normaliser = normaliser
        self.sentencepiece_model = sentencepiece_model
        self._splitter = (
            sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model) if sentencepiece_model else None
        )

    @property
    def vocab_size(self) -> int:
        """Pieces and specials."""
        return len(self.pieces) + SPECIALS

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, brought to its normal form first; no specials. What is unknown becomes <unk>."""
        if self._splitter is None:
            raise ModelError(
                "this vocabulary is a list of units and can only decode; encoding needs a SentencePiece model"
            )
        return [piece + 1 for piece in self._splitter.encode(self.normaliser(text))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; specials are passed over."""
        pieces = [self.pieces[id - 1] for id in ids if 0 < id <= len(self.pieces)]
        return "".join(pieces).replace(WORD_START, " ").strip()

    def words(self, ids: Sequence[int]) -> list[list[int]]:
        """Token ids, without specials, by word: one begins where a piece says so."""
        words: list[list[int]] = []
        for id in ids:
            if not words or self.pieces[id - 1].startswith(WORD_START):
                words.append([])
            words[-1].append(id)
        return words

    @classmethod
    def train(
        cls, texts: Sequence[str], vocab_size: int, normaliser: Normaliser = NORMALISERS[DEFAULT_NORMALISER]
    ) -> "Tokenizer":
        """Learn at most `vocab_size` tokens, specials included, from `texts`; fewer where the text supports no more.

        Raises `ConfigError` if there is no text, or `vocab_size` does not even hold its characters.
        """
        lines = [line for line in map(normaliser, texts) if line]
        if not lines:
            raise ConfigError("no vocabulary can be learnt: the labelled clips hold no words")
        least = len(set("".join(lines)) - {" "} | {WORD_START}) + 1
        if vocab_size < least + SPECIALS:
            raise ConfigError(
                f"a vocabulary of {vocab_size} is too small for {least - 1} characters: "
                f"set model.vocab_size to at least {least + SPECIALS}"
            )
        words = count_words(lines)
        size = vocab_size - SPECIALS
        few = small_vocabulary(words, size - 1) if size < 2 * len(characters(words)) else None
        proto = sentencepiece_model_pb2.ModelProto.FromString(_unigrams(lines, words, least if few else size))
        if few:
            del proto.pieces[1:]  # all but <unk>
            proto.pieces.extend(proto.SentencePiece(piece=piece, score=-1.0) for piece in few)  # fewest tokens are best
            proto.trainer_spec.vocab_size = len(proto.pieces)
        proto.trainer_spec.ClearField("seed_sentencepieces_file")  # the name of a temporary file
        learnt = proto.SerializeToString(deterministic=True)
        splitter = sentencepiece.SentencePieceProcessor(model_proto=learnt)
        pieces = [splitter.id_to_piece(index) for index in range(splitter.get_piece_size())]
        return cls(pieces, normaliser, learnt)

    @classmethod
    def from_units(cls, path: Path, normaliser: Normaliser = NORMALISERS["upper-words-1"]) -> "Tokenizer":
        """The published list of units: one piece a line, its id after it or not, beginning with <unk>; it only decodes.

        Raises `ModelError` for a file that is no such list.
        """
        if not path.is_file():
            raise ModelError(f"no unit list {path}")
        try:
            lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ModelError(f"{path} is no unit list: it is not UTF-8 text") from error
        lines = [line for line in lines if line[0] not in ("<blank>", "<eos>", "<sos/eos>")]
        pieces = [line[0] for line in lines]
        if not pieces or pieces[0] != UNKNOWN:
            raise ModelError(f"{path} is no unit list: its first piece must be {UNKNOWN}")
        if len(set(pieces)) < len(pieces):
            raise ModelError(f"{path} lists a piece twice")
        ids = [line[1] for line in lines if len(line) > 1]
        if ids and ids != [str(id) for id in range(1, len(pieces) + 1)]:
            raise ModelError(f"{path}: the ids must count the pieces from 1 on, without a gap")
        return cls(pieces, normaliser)

    def save(self, folder: Path) -> None:
        """Write the vocabulary into `folder`, its description last: a folder that has it is complete."""
        if self.sentencepiece_model is not None:
            write_atomically(folder / PIECES_FILE, self.sentencepiece_model)
        description = {"version": 1, "normaliser": self.normaliser.name, "pieces": self.pieces}
        write_atomically(
            folder / DESCRIPTION_FILE, json.dumps(description, ensure_ascii=False, indent=1).encode() + b"\n"
        )

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read what `save` wrote. Raises `ModelError` if it is missing or damaged."""
        path = folder / DESCRIPTION_FILE
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            pieces, normaliser = [str(piece) for piece in description["pieces"]], NORMALISERS[description["normaliser"]]
        except FileNotFoundError as error:
            raise ModelError(f"{folder} has no {DESCRIPTION_FILE}") from error
        except KeyError as error:
            raise ModelError(f"{path} is damaged, or of a later version of seehear: it has no known {error}") from error
        except (ValueError, TypeError, OSError) as error:
            raise ModelError(f"{path} is damaged: {error}") from error
        model_path = folder / PIECES_FILE
        try:
            tokenizer = cls(pieces, normaliser, model_path.read_bytes() if model_path.is_file() else None)
        except (RuntimeError, OSError) as error:
            raise ModelError(f"{model_path} is damaged") from error
        splitter = tokenizer._splitter
        if splitter is not None and [splitter.id_to_piece(i) for i in range(splitter.get_piece_size())] != pieces:
            raise ModelError(f"{model_path} and {path} hold different pieces: they do not belong together")
        return tokenizer


def _unigrams(lines: Sequence[str], words: Mapping[str, int], size: int) -> bytes:
    """A SentencePiece model of at most `size` pieces, <unk> included."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        seeds.write_text("".join(f"{piece}\t{score}\n" for piece, score in seed_pieces(words)), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            seed_sentencepieces_file=str(seeds),
            character_coverage=1.0,
            max_sentence_length=10 + max(len(line.encode()) for line in lines),  # longer ones are left out
            normalization_rule_name="identity",
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            num_threads=1,
            minloglevel=2,
        )
    return model.getvalue()
