"""What is believed of what was heard: another stream where both together say little, and nothing where nothing is said.

Both are judged by CTC, which, unlike a decoder, has learnt what nothing sounds and looks like (RESULTS.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

from seehear.modality import Modality
from seehear.transcribing.batches import Heard, Input, Transcriber

FEEBLE = 5.0
"""Nats of evidence per token below which sound and lips are asked one by one: clean speech has 8 and more."""
DECODER_IS_SURE = -0.55
"""Mean log-probability from which on the decoder may be right against CTC: in noise it often is."""
CTC_IS_SURE = 0.98
"""`no_speech_prob` from which on it is not: 4 nats of evidence for silence per token."""


class Believed(NamedTuple):
    """What is believed of a window."""

    given: Input
    heard: Heard
    reason: str | None
    """Why another stream than asked first."""


def choose_streams(heard: Sequence[Believed], moving: Sequence[bool], transcriber: Transcriber) -> list[Believed]:
    """Of each window what has most evidence: both streams, or one of them where both say little.

    `moving` says whether lips move in a window: where they do not, they are not asked.
    """
    believed = list(heard)
    places: list[int] = []
    others: list[Input] = []
    for place, ((given, text, _), lips) in enumerate(zip(heard, moving, strict=True)):
        if given.modality is not Modality.AUDIOVISUAL or text.evidence >= FEEBLE * max(1, len(text.tokens)):
            continue
        alone = [given._replace(modality=Modality.AUDIO, video=None)]
        if lips:
            alone.append(given._replace(modality=Modality.VIDEO, audio=None))
        places += [place] * len(alone)
        others += alone
    for place, given, text in zip(places, others, transcriber(others), strict=True):
        if text.evidence > believed[place].heard.evidence:
            unclear = "the sound is" if given.modality is Modality.VIDEO else "the lips are"
            believed[place] = Believed(given, text, f"{unclear} of no help there")
    return believed


def silence_doubtful(heard: Heard, threshold: float) -> Heard:
    """Nothing, where CTC finds it more likely than `threshold` that nothing is said, and the decoder is not sure of the
    contrary, or CTC is quite sure of it.

    A threshold of 1 lets everything pass; that of 0 is one like others: a text stays if the decoder is sure of it.
    """
    sure = heard.avg_logprob > DECODER_IS_SURE and heard.no_speech_prob < CTC_IS_SURE
    if not heard.tokens or heard.no_speech_prob <= threshold or sure:
        return heard
    return heard._replace(tokens=(), text="", words=(), doubtful=heard.text)
