"""What a user did wrong, in one line: the message says what is wrong and what to do.

The command line prints the message and exits with status 2; in Python these are exceptions to catch.
"""


class SeehearError(ValueError):
    """Base of every error that a user can cause and mend."""


class MediaError(SeehearError):
    """A media file cannot be read, or lacks what was asked of it."""


class FaceError(SeehearError):
    """No usable face track in a video; the message is the reason."""


class CorpusError(SeehearError):
    """A corpus, manifest, split or transcript file is faulty."""


class ConfigError(SeehearError):
    """A recipe or setting is faulty."""


class ModelError(SeehearError):
    """A model folder, checkpoint or tokenizer cannot be used."""


class TrainingError(SeehearError):
    """A run cannot go on as it is."""


class DependencyError(SeehearError):
    """Something that has to be installed or downloaded is missing."""


class PreemptionError(Exception):
    """A run was asked to stop, and did, with a checkpoint: the same command goes on. No fault of the user's."""
