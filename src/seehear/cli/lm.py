"""`seehear lm`: a language model from text."""

from pathlib import Path
from typing import Annotated

import typer

from seehear.cli import options


def lm(
    texts: Annotated[list[Path], typer.Argument(help="Text files, a sentence a line.")],
    model: options.ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")],
    order: Annotated[int, typer.Option(min=1, max=10, help="Tokens that are looked at together.")] = 4,
) -> None:
    """Learn token n-grams from TEXTS, in a model's vocabulary, for `--lm` of transcribe and evaluate."""
    from seehear.checkpoint import load_model
    from seehear.decoding.ngram import NGram
    from seehear.errors import ConfigError
    from seehear.recognizer import find_model_folder
    from seehear.tokenizer import UNKNOWN_ID

    _, tokenizer = load_model(find_model_folder(model))
    sequences: list[list[int]] = []
    left_out = 0
    for path in texts:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not text in UTF-8") from error
        encoded = [tokenizer.encode(line) for line in lines if line.strip()]
        said = [tokens for tokens in encoded if tokens]
        if not said:
            raise ConfigError(f"{path} holds no words: a language model needs text to learn from")
        sequences += said
        left_out += len(encoded) - len(said)
    learnt = NGram.learn(sequences, tokenizer.vocab_size, order, tokenizer.pieces)
    learnt.save(output)
    typer.echo(f"{output}: {len(sequences):,} sentences, {sum(map(len, learnt.counts.values())):,} n-grams")
    if left_out:
        typer.echo(f"left out: {left_out:,} lines without words")
    unknown = sum(tokens.count(UNKNOWN_ID) for tokens in sequences)
    if unknown:
        typer.echo(f"unknown to the model: {unknown:,} of {sum(map(len, sequences)):,} tokens")
