"""Speech with known phoneme and word times from espeak-ng, through the C interface of the wheel `espeakng-loader`.

espeak-ng keeps static state (the phase of a voice's flutter, for one) that makes an utterance depend on those before
it. So every utterance loads a copy of the library of its own and unloads it afterwards: that takes 4 ms, and the same
text in the same style is always the same samples.
"""

import ctypes
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from seehear.errors import DependencyError
from seehear.modality import SAMPLE_RATE


@dataclass(frozen=True)
class SpeakingStyle:
    """Who speaks, and how."""

    voice: str = "en-us"
    """A voice of espeak-ng, with a variant after a plus sign if wanted: `en-gb-scotland+f2`."""
    words_per_minute: int = 160
    pitch: int = 50
    """0 to 99, around the voice's own."""
    pitch_range: int = 50
    """Liveliness of the intonation, 0 (monotone) to 99."""


class TimedUnit(NamedTuple):
    """A phoneme or a word and where it is spoken, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """A spoken text."""

    audio: np.ndarray
    """(S,) float32 in [−1, 1], mono, 16 kHz."""
    phonemes: tuple[TimedUnit, ...]
    """IPA with stress and length marks, without the pauses; a plosive that begins a word starts at its release."""
    words: tuple[TimedUnit, ...]


def speak(text: str, style: SpeakingStyle) -> Speech:
    """Speak an English text; punctuation makes pauses."""
    with _engine() as engine:
        samples, events = engine.synthesize(text, style)
        rate = engine.sample_rate
    return Speech(
        resample(samples / np.float32(32768), rate, SAMPLE_RATE),
        _phonemes(events, rate),
        _words(text, events, rate),
    )


def version() -> str:
    """The version of espeak-ng, as it names itself."""
    with _engine() as engine:
        return engine.version


def resample(audio: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample (S,) to another rate by cutting its spectrum at the lower Nyquist frequency; returns float32.

    The signal counts as periodic: it should begin and end in silence, as an utterance does.
    """
    divisor = int(np.gcd(source_rate, target_rate))
    source_step, target_step = source_rate // divisor, target_rate // divisor
    steps = -(-len(audio) // source_step)
    spectrum = np.fft.rfft(audio, steps * source_step)
    resampled = np.fft.irfft(spectrum, steps * target_step) * (target_step / source_step)
    return resampled[: round(len(audio) * target_rate / source_rate)].astype(np.float32)


_WHEEL = "espeakng-loader"

# Constants of espeak-ng's speak_lib.h: output mode, options, parameters, text encoding, kinds of event.
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA, _DO_NOT_EXIT = 0x0001, 0x0002, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_LIST_END, _WORD, _PHONEME = 0, 1, 7


class _Event(NamedTuple):
    kind: int
    sample: int
    text_position: int
    """Of a word: the place of its first character in the text, from 1."""
    label: str
    """Of a phoneme: empty for a pause."""


class _EventStruct(ctypes.Structure):
    """espeak_EVENT; its last field is a union of which phonemes use the eight bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EventStruct))


class _Engine:
    """One loaded copy of the library."""

    def __init__(self, library: ctypes.CDLL, data_path: str) -> None:
        options = _PHONEME_EVENTS | _IPA | _DO_NOT_EXIT
        self.sample_rate: int = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), options)
        if self.sample_rate <= 0:
            raise DependencyError(
                f"espeak-ng cannot read {data_path}; run: pip install --force-reinstall espeakng-loader"
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # of breath and flutter; it was the time of day
        library.espeak_Info.restype = ctypes.c_char_p
        self.version: str = library.espeak_Info(None).decode()
        self._library = library

    def synthesize(self, text: str, style: SpeakingStyle) -> tuple[np.ndarray, list[_Event]]:
        """Speak a text: (S,) int16 at `sample_rate`, and the events in order."""
        if self._library.espeak_SetVoiceByName(style.voice.encode()) != 0:
            raise DependencyError(f"espeak-ng {self.version} has no voice {style.voice}")
        for parameter, value in ((_RATE, style.words_per_minute), (_PITCH, style.pitch), (_RANGE, style.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        pieces: list[np.ndarray] = []
        events: list[_Event] = []

        def receive(samples: Any, count: int, received: Any) -> int:
            if samples and count > 0:
                pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
            for event in iter(received):
                if event.type == _LIST_END:
                    break
                label = event.string.decode() if event.type == _PHONEME else ""
                events.append(_Event(event.type, event.sample, event.text_position, label))
            return 0  # go on

        callback = _Callback(receive)  # bound to a name, for the library holds only a pointer to it
        self._library.espeak_SetSynthCallback(callback)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
        return np.concatenate(pieces), events


_one_engine_at_a_time = threading.Lock()


@contextmanager
def _engine() -> Iterator[_Engine]:
    """A newly loaded engine, unloaded at the end."""
    try:
        from _ctypes import dlclose

        import espeakng_loader
    except ImportError as error:
        raise DependencyError(f"the synthetic corpus needs espeak-ng; run: pip install {_WHEEL} ({error})") from error
    with _one_engine_at_a_time:
        library_path = espeakng_loader.get_library_path()
        try:
            library = ctypes.CDLL(str(library_path))
        except OSError as error:
            raise DependencyError(
                f"cannot load {library_path}: {error}; run: pip install --force-reinstall {_WHEEL}"
            ) from error
        try:
            yield _Engine(library, str(espeakng_loader.get_data_path()))
        finally:
            library.espeak_Terminate()
            dlclose(library._handle)


def _phonemes(events: Sequence[_Event], rate: int) -> tuple[TimedUnit, ...]:
    """A phoneme ends where the next one, a pause or the next word begins."""
    marks = [event for event in events if event.kind in (_PHONEME, _WORD)]
    return tuple(
        TimedUnit(mark.label, mark.sample / rate, following.sample / rate)
        for mark, following in pairwise(marks)
        if mark.label
    )


def _words(text: str, events: Sequence[_Event], rate: int) -> tuple[TimedUnit, ...]:
    """A word ends where the next word or a pause begins."""
    spelling = {match.start() + 1: match.group() for match in re.finditer(r"[\w']+", text)}
    words = []
    for index, event in enumerate(events):
        if event.kind == _WORD and event.text_position in spelling:
            ends = (other.sample for other in events[index + 1 :] if other.kind == _WORD or _is_pause(other))
            words.append(TimedUnit(spelling[event.text_position], event.sample / rate, next(ends) / rate))
    return tuple(words)


def _is_pause(event: _Event) -> bool:
    return event.kind == _PHONEME and not event.label
