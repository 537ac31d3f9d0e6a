"""From encoder features to tokens."""
