"""Writing files so that a reader never meets half of one, and nothing that is somebody else's is lost."""

import json
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from seehear.errors import ConfigError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) under a temporary name and rename it to `path`; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def whole_records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines that is written line by line; a line that a kill or a full disk cut short is
    left out. None if there is no file.
    """
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def require_writable(folder: Path) -> None:
    """Make `folder` if it is missing. Raises `ConfigError` if nothing can be written there, before the work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error


def refuse_foreign(folder: Path, folders: Collection[str]) -> None:
    """Raise `ConfigError` if `folder` holds other folders than these, or is a model: it is used for something else."""
    others = {path.name for path in folder.iterdir() if path.is_dir()} - {*folders} if folder.is_dir() else set()
    if others or (folder / "config.json").exists():
        raise ConfigError(f"{folder} holds something else ({min(others, default='a model')}): choose another --out")
