"""The model card: what a model was trained on, how, what it reaches, and under which licence it may be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FRONT_MATTER = """\
---
license: {licence}
library_name: seehear
pipeline_tag: {task}
tags:
- audio-visual-speech-recognition
- visual-speech-recognition
- lip-reading
- usr2
{metrics}---
"""
"""What the Hugging Face hub reads of a card."""

ERROR_RATES = """\
metrics:
- wer
- cer
"""

SYNTHETIC = """\
**Trained on synthetic speech and drawn mouths only**: it shows that the method works and is of no use on recordings.
"""

ENCODER = """\
**An encoder alone**: it turns sound (`a`), lips (`v`) or both (`av`) into features, 25 vectors a second. It has no
heads, decoder or vocabulary, so it cannot transcribe; a model that can is trained from it.
"""


@dataclass(frozen=True)
class ModelCard:
    """What cannot be read off the model itself."""

    title: str = "A seehear model"
    training_data: str = ""
    """In words: which corpus, how many labelled and unlabelled clips."""
    synthetic: bool = False
    """Whether the training data are synthetic."""
    method: str = ""
    """In words: the objective and the number of steps, or where the weights come from."""
    licence: str = "unknown"
    """Of the weights, as the Hugging Face hub names licences."""
    results: Mapping[str, str] = field(default_factory=dict)
    """Error rates by what they were measured on, each with its conditions."""

    def to_markdown(self, num_parameters: int, vocab_size: int, normaliser: str, recipe: str | None = None) -> str:
        """The card of a model with these figures; `recipe` is the TOML that trained it."""
        facts = {
            "Trained on": self.training_data or "not stated",
            "Method": self.method or "not stated",
            "Parameters": f"{num_parameters:,}",
            "Vocabulary": f"{vocab_size} tokens, blank and end of sentence included",
            "Text normaliser": f"`{normaliser}`, of the training text and of both sides of every error rate",
            "Licence": self._stated_licence,
        }
        sections = [
            FRONT_MATTER.format(licence=self.licence, task="automatic-speech-recognition", metrics=ERROR_RATES),
            f"# {self.title}\n",
            "Recognises speech from sound (`a`), lips (`v`) or both (`av`) with one set of weights.\n",
            *([SYNTHETIC] if self.synthetic else []),
            _table("", "", facts),
            '## Use\n\n```python\nimport seehear\n\nmodel = seehear.load("PATH")\n'
            'print(model.transcribe("video.mp4").text)\n```\n',
            "## Results\n",
            _table("measured on", "error rate", self.results) if self.results else "None recorded.\n",
            *([f"## Recipe\n\n```toml\n{recipe.strip()}\n```\n"] if recipe else []),
        ]
        return "\n".join(sections)

    def to_encoder_markdown(self, num_parameters: int) -> str:
        """The card of an encoder alone."""
        facts = {
            "Trained on": self.training_data or "not stated",
            "Method": self.method or "not stated",
            "Parameters": f"{num_parameters:,}",
            "Licence": self._stated_licence,
        }
        sections = [
            FRONT_MATTER.format(licence=self.licence, task="feature-extraction", metrics=""),
            f"# {self.title}\n",
            ENCODER,
            *([SYNTHETIC] if self.synthetic else []),
            _table("", "", facts),
            "## Use\n\n```console\n$ seehear extract video.mp4 --model PATH --output_dir features\n"
            "$ seehear train RECIPE --corpus CORPUS --init PATH --out RUN\n```\n",
        ]
        return "\n".join(sections)

    @property
    def _stated_licence(self) -> str:
        return self.licence if self.licence != "unknown" else "not stated"


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    """A Markdown table of two columns."""
    lines = [f"| {left} | {right} |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"
