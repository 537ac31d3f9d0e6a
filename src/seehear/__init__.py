"""seehear: speech recognition from sound, from lips, or from both."""

__version__ = "0.1.0"
