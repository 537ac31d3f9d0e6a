"""seehear: speech recognition from sound, from lips, or from both.

    import seehear

    model = seehear.load("path/to/model")
    print(model.transcribe("video.mp4").text)

Each name is loaded when it is first used, so that `import seehear` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seehear.decoding.options import DecodingMethod, DecodingOptions
    from seehear.listening.options import WindowOptions
    from seehear.modality import Modality
    from seehear.recognizer import Recognizer, load
    from seehear.transcript import Transcript

__version__ = "0.1.0"
_HOMES = {
    "DecodingMethod": "decoding.options",
    "DecodingOptions": "decoding.options",
    "Modality": "modality",
    "Recognizer": "recognizer",
    "Transcript": "transcript",
    "WindowOptions": "listening.options",
    "load": "recognizer",
}
__all__ = [
    "DecodingMethod",
    "DecodingOptions",
    "Modality",
    "Recognizer",
    "Transcript",
    "WindowOptions",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seehear' has no attribute '{name}'")
    return getattr(import_module(f"seehear.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
