"""Who speaks, of several faces in a window.

What the sound says is read off the lips of each: the face whose lips make it most probable for the decoder is the one
that speaks. On films of two GRID speakers side by side this is right 50 times of 50; how far lips and sound go up and
down together tells no more than 34 of 50 (RESULTS.md).
"""

from seehear.listening.lips import Mouth
from seehear.listening.stream import Piece
from seehear.modality import Modality
from seehear.transcribing.batches import Input, Transcriber


def speaking(piece: Piece, transcriber: Transcriber | None) -> Mouth:
    """The mouth whose lips go with the sound; without sound, words in it or a transcriber, the one that moves most."""
    frames = piece.window.end - piece.window.start
    if piece.audio is not None and transcriber is not None:
        (heard,) = transcriber.greedily([Input(Modality.AUDIO, frames, piece.audio, None)])
        if heard:
            seen = [Input(Modality.VIDEO, frames, None, mouth.frames) for mouth in piece.mouths]
            scores = [transcriber.score([heard], [lips])[0] for lips in seen]  # one by one: there may be many
            return max(zip(scores, piece.mouths, strict=True), key=lambda scored: scored[0])[1]
    return moving_most(piece)


def moving_most(piece: Piece) -> Mouth:
    """The mouth that moves most."""
    return max(piece.mouths, key=lambda mouth: mouth.motion)
