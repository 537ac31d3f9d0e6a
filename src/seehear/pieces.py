"""From which strings a vocabulary is made: seeds that SentencePiece chooses from, and all of a very small one."""

from collections import Counter
from collections.abc import Mapping, Sequence

WORD_START = "▁"
MAX_PIECE_LENGTH = 16
MAX_SEEDS = 1_000_000
MOST_WORDS = 256
"""Different words beyond which the choice takes too long, and a few whole words make little difference."""
LEAST_OCCURRENCES = 16
"""Times that a word must occur to be a piece: rarer ones are better learnt from the characters that they share."""


def count_words(lines: Sequence[str]) -> Counter[str]:
    """How often each word occurs."""
    return Counter(word for line in lines for word in line.split())


def seed_pieces(words: Mapping[str, int]) -> list[tuple[str, int]]:
    """The strings inside words from which pieces are chosen, and their weight: occurrences times length, largest first.

    SentencePiece's own seeds count every different word once. On the few sentences of a small corpus that rules out
    whole words, and with them short label sequences: on GRID's 100 labelled sentences 48 pieces spell a sentence with
    16 pieces from its seeds and with 9 from these.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        marked = WORD_START + word
        for start in range(len(marked)):
            for end in range(start + 2, min(len(marked), start + MAX_PIECE_LENGTH) + 1):
                counts[marked[start:end]] += count
    weights = ((piece, count * len(piece)) for piece, count in counts.items() if count > 1)
    return sorted(weights, key=lambda seed: (-seed[1], seed[0]))[:MAX_SEEDS]


def spelt(word: str) -> list[str]:
    """The characters of a word, the first of them marked as its start."""
    return [WORD_START + word[0], *word[1:]]


def characters(words: Mapping[str, int]) -> set[str]:
    """The characters of `words`, those that begin a word apart from those inside one."""
    return {piece for word in words for piece in spelt(word)}


def small_vocabulary(words: Mapping[str, int], size: int) -> list[str] | None:
    """At most `size` pieces that spell `words` in few tokens, where a word of one character is one token; or None.

    For vocabularies that its characters alone would nearly fill. Some words are pieces, the rest are spelt; a character
    that no spelt word needs is none of the pieces, so that words which never occurred may be unknown. What begins a
    word says so itself: SentencePiece puts a piece for the space before a character that it has no longer piece for,
    and CTC tends to lose such a lone character when it is not sure of it (RESULTS.md).

    Greedily: of the words that are spelt, the one that saves most tokens for each piece more becomes whole.
    """
    spelling = {word for word in words if len(word) > 1}
    if len(words) > MOST_WORDS or len(_needed(words, spelling)) > size:
        return None
    while True:
        now = len(_needed(words, spelling))
        moves = []
        for word in spelling:
            if words[word] < LEAST_OCCURRENCES:
                continue
            more = len(_needed(words, spelling - {word})) - now
            if now + more <= size:
                saved = words[word] * (len(word) - 1)
                moves.append((saved / max(more, 0.25), word))
        if not moves:
            return sorted(_needed(words, spelling))
        spelling.discard(max(moves)[1])


def _needed(words: Mapping[str, int], spelling: set[str]) -> set[str]:
    """The pieces of words when those in `spelling` are spelt and the others whole."""
    whole = {WORD_START + word for word in words if word not in spelling}
    return whole | {piece for word in spelling for piece in spelt(word)}
