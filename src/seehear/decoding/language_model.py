"""What else may say how probable a sentence is."""

from typing import Protocol

from torch import Tensor


class LanguageModel(Protocol):
    """A model of token sequences, which a search may ask."""

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Of the next token, (N, V), after `tokens` (N, U), which begin with sos; eos is one of them, blank is not."""
