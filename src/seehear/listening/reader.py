"""Recordings read in a process of their own, so that a file that crashes a decoder, hangs it or eats the memory costs
that file and nothing else.

FFmpeg and MediaPipe are large C and C++ libraries, and recordings come from anywhere. `Reader` starts this module with
limits on memory, hands it paths and takes back what `listen` gives, as plain JSON and arrays: nothing that comes from
the process is ever executed. It runs as the same user; whoever must keep it from files and the network as well, puts
the whole program into a container.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

import seehear
from seehear import errors
from seehear.data.media import Warn
from seehear.data.mouth import TrackReport
from seehear.errors import MediaError, SeehearError
from seehear.listening.lips import Mouth
from seehear.listening.options import ListeningOptions, WindowOptions
from seehear.listening.stream import Event, Opened, Piece, Read, listen
from seehear.listening.windows import Window
from seehear.modality import Modality

MEMORY = 6 * 2**30
"""Bytes that the process may allocate; MediaPipe takes one GiB, the largest pictures that are let through a few."""
PATIENCE = 600.0
"""Seconds without a sign of life, which comes every ten seconds of a recording, until a process counts as hanging."""
AHEAD = 8
"""Pieces that are read before they are asked for."""
ATTEMPTS = 2
"""Times that a recording is tried whose process dies."""

Message = tuple[dict[str, Any], list[np.ndarray[Any, Any]]]


class Reader:
    """Reads recordings, one after the other, in a process that is started when the first one comes."""

    def __init__(self, memory: int = MEMORY) -> None:
        """The process may allocate `memory` bytes, where the system can hold it to that."""
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = False

    def listen(self, path: Path, options: ListeningOptions, on_warning: Warn) -> Iterator[Event]:
        """What `seehear.listening.stream.listen` gives, and the errors it raises.

        A process that dies is started again, once; a second time is a `MediaError`. One recording is read at a time.
        """
        if self._busy:
            raise RuntimeError("a recording is being read: end that first, or take another recogniser")
        self._busy = True
        try:
            yield from self._tries(path, options, on_warning)
        finally:
            self._busy = False

    def _tries(self, path: Path, options: ListeningOptions, on_warning: Warn) -> Iterator[Event]:
        given = warned = 0
        for attempt in range(1, ATTEMPTS + 1):
            seen = heard = 0
            try:
                for header, arrays in self._ask(path, options):
                    if "warning" in header:
                        heard += 1
                        if heard > warned:
                            on_warning(header["warning"])
                            warned = heard
                    else:
                        seen += 1
                        if seen > given:
                            given = seen
                            yield _unpacked((header, arrays))
                return
            except _DiedError as died:
                if attempt == ATTEMPTS:
                    raise MediaError(f"{path}: it cannot be read; {died}") from None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._process = None

    def __del__(self) -> None:
        self.close()

    def _ask(self, path: Path, options: ListeningOptions) -> Iterator[Message]:
        """Messages about a recording, the last one left out. Raises what `listen` raised, and `_DiedError`."""
        process = self._process = self._process or _start(self.memory)
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"path": str(path), "folder": _folder(), "options": asdict(options)}
        with suppress(OSError):  # if it is dead, that shows when it is to answer
            process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            process.stdin.flush()
        messages: _Answers = queue.Queue(AHEAD)
        stop = threading.Event()
        threading.Thread(target=_fetch, args=(process.stdout, messages, stop), daemon=True).start()
        finished = False
        try:
            while True:
                try:
                    message = messages.get(timeout=PATIENCE)
                except queue.Empty:
                    raise _DiedError(f"for {PATIENCE:.0f} s the process that reads it did nothing") from None
                if message is None:
                    raise _DiedError(_how(process))
                if isinstance(message, Exception):
                    raise _DiedError(f"what was read cannot be taken ({type(message).__name__})")
                if "error" in message[0]:
                    finished = True
                    raise _error(message[0])
                if "done" in message[0]:
                    finished = True
                    return
                yield message
        finally:
            stop.set()
            if not finished:
                self.close()


_Answers = queue.Queue[Message | Exception | None]


class _DiedError(Exception):
    """The process is dead or hangs."""


def _start(memory: int) -> "subprocess.Popen[bytes]":
    package = str(Path(seehear.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # -P: no module is taken from the folder that the user is in
        [sys.executable, "-P", "-c", f"from seehear.listening.reader import serve; serve({memory})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def _fetch(pipe: IO[bytes], messages: "_Answers", stop: threading.Event) -> None:
    """Take messages from the process until the last about a recording; None if it has died, or what befell this."""
    message: Message | Exception | None
    while True:
        try:
            message = _receive(pipe)
        except (OSError, ValueError, EOFError, KeyError):
            message = None
        except Exception as error:  # whatever it is, the program must not wait for a thread that has died
            message = error
        while not stop.is_set():
            with suppress(queue.Full):
                messages.put(message, timeout=0.2)
                break
        if stop.is_set() or not isinstance(message, tuple) or "error" in message[0] or "done" in message[0]:
            return


def _folder() -> str | None:
    """The folder that relative paths start from, if it is still there."""
    with suppress(OSError):
        return str(Path.cwd())
    return None


def _unpacked(message: Message) -> Event:
    """Raises `_DiedError` for what is no event: such a process is not itself any more."""
    try:
        return unpack(message)
    except (LookupError, TypeError, ValueError) as error:
        raise _DiedError("the process that reads it answers what makes no sense") from error


def _how(process: "subprocess.Popen[bytes]") -> str:
    """How a process ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    code = process.poll() or 0
    if code >= 0:
        return f"the process that reads it ended with status {code}"
    hint = " (out of memory?)" if -code in (signal.SIGKILL, signal.SIGABRT) else ""
    return f"the process that reads it died of {signal.Signals(-code).name}{hint}"


def _error(header: dict[str, Any]) -> SeehearError:
    """The error that a message tells of."""
    kind = getattr(errors, str(header["error"]), MediaError)
    return kind(header["message"]) if issubclass(kind, SeehearError) else MediaError(header["message"])


def pack(event: Event) -> Message:
    """What is given, as JSON and arrays."""
    if isinstance(event, Opened):
        return {"opened": event}, []
    if isinstance(event, Read):
        return {"read": event.frames}, []
    mouths = [{**mouth._asdict(), "frames": None, "report": asdict(mouth.report)} for mouth in event.mouths]
    header = {"window": event.window, "modality": event.modality, "reason": event.reason, "mouths": mouths}
    sound = [] if event.audio is None else [event.audio]
    return {**header, "moving": event.moving, "sound": len(sound)}, [*sound, *(mouth.frames for mouth in event.mouths)]


def unpack(message: Message) -> Event:
    """The opposite of `pack`."""
    header, arrays = message
    if "opened" in header:
        duration, modality, reason = header["opened"]
        return Opened(duration, Modality(modality), reason)
    if "read" in header:
        return Read(header["read"])
    audio, pictures = (arrays[0], arrays[1:]) if header["sound"] else (None, arrays)
    mouths = (
        Mouth(**{**facts, "frames": frames, "report": TrackReport.from_json(facts["report"])})
        for facts, frames in zip(header["mouths"], pictures, strict=True)
    )
    return Piece(
        Window(*header["window"]),
        Modality(header["modality"]),
        header["reason"],
        audio,
        tuple(mouths),
        header["moving"],
    )


def _send(pipe: IO[bytes], header: dict[str, Any], arrays: list[np.ndarray[Any, Any]]) -> None:
    facts = {**header, "arrays": [(str(array.dtype), array.shape) for array in arrays]}
    pipe.write(json.dumps(facts).encode() + b"\n")
    for array in arrays:
        pipe.write(np.ascontiguousarray(array).tobytes())
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Message:
    """Raises `EOFError` at the end."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    arrays = []
    for dtype, shape in header.pop("arrays"):
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        content = bytearray(pipe.read(size))
        if len(content) < size:
            raise EOFError
        arrays.append(np.frombuffer(content, dtype).reshape(shape))
    return header, arrays


def _parse(options: dict[str, Any]) -> ListeningOptions:
    """Options from JSON."""
    modality, face_model = options["modality"], options["face_model"]
    parsed = {
        "modality": Modality(modality) if modality else None,
        "windows": WindowOptions(**options["windows"]),
        "face_model": Path(face_model) if face_model else None,
    }
    return ListeningOptions(**{**options, **parsed})


def serve(memory: int) -> None:
    """Read the recordings whose paths come on standard input, in so many bytes; what is found goes to standard
    output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that asked will close the pipe
    _limit_memory(memory)
    with suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            _send(answers, _answer(answers, json.loads(line), memory), [])


def _answer(answers: IO[bytes], request: dict[str, Any], memory: int) -> dict[str, Any]:
    """Read a recording; the last that there is to say about it."""
    try:
        if request["folder"] is not None:
            os.chdir(request["folder"])
        path, options = Path(request["path"]), _parse(request["options"])
        for event in listen(path, options, lambda warning: _send(answers, {"warning": warning}, [])):
            _send(answers, *pack(event))
        return {"done": True}
    except BrokenPipeError:
        raise
    except SeehearError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        message = f"{request['path']}: it takes more than {memory / 2**30:.1f} GiB of memory to read"
        return {"error": "MediaError", "message": message}
    except OSError as error:
        return {"error": "MediaError", "message": f"{request['path']}: {error}"}


def _limit_memory(memory: int) -> None:
    """Where the system can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
