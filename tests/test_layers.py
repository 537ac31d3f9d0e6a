"""The direction of imports: a part of seehear imports only parts of lower layers (the diagram of ARCHITECTURE.md)."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seehear"
LAYERS = (
    "errors memory_errors modality",
    "files",
    "config text transcript card pieces",
    "recipe tokenizer metrics",
    "data devices model",
    "decoding checkpoint convert listening",
    "objectives evaluate transcribing preparation",
    "recognizer training",
    "demo",
    "cli",
    "__init__ __main__",
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts.split()}
NO_TORCH = [part for part in LEVEL if LEVEL[part] < LEVEL["data"]]
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    """`data` for data/batch.py, `metrics` for metrics.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(code: str) -> set[str]:
    """Full names of what `code` imports, also inside functions and under TYPE_CHECKING; relative imports as `.name`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names |= {f"{prefix}.{alias.name}" for alias in node.names}
    return names


def forbidden(part: str, code: str) -> set[str]:
    """Imports of `code`, a file of `part`, that go up or sideways, and relative ones."""

    def wrong(name: str) -> bool:
        package, other, *_ = f"{name}.".split(".")
        return not package or (package == "seehear" and other != part and LEVEL.get(other, -1) >= LEVEL[part])

    return {name for name in imported_modules(code) if wrong(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    assert part_of(path) in LEVEL, f"give {part_of(path)} a layer here and in ARCHITECTURE.md"
    assert not forbidden(part_of(path), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) in NO_TORCH], ids=lambda path: path.name)
def test_the_words_of_the_domain_need_no_torch(path: Path) -> None:
    assert not {name for name in imported_modules(path.read_text(encoding="utf-8")) if name.split(".")[0] == "torch"}


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("data", "from seehear.model.usr import USR"),
        ("decoding", "def search():\n    from seehear.training.trainer import Trainer"),
        ("metrics", "if TYPE_CHECKING:\n    import seehear.evaluate"),
        ("data", "from seehear import cli"),
        ("data", "from .corpus import Corpus"),
    ],
)
def test_a_wrong_import_is_seen(part: str, code: str) -> None:
    assert forbidden(part, code)
