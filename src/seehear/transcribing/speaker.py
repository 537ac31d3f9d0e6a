"""Who speaks, of several faces in a window."""

from seehear.listening.lips import Mouth
from seehear.listening.stream import Piece
from seehear.transcribing.batches import Transcriber


def speaking(piece: Piece, transcriber: Transcriber) -> Mouth:
    """The mouth whose lips go with the sound."""
    return max(piece.mouths, key=lambda mouth: mouth.motion)
