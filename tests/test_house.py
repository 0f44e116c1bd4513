"""The house stands: who may import whom, what importing costs, and the public names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "brolly"

# Leftwards only: a room may import itself and the rooms before it. RUN alone may use torch at module level.
READ = ["errors", "verbs", "configs", "place", "card", "progress", "checkpoint", "media", "families", "hub", "ranges"]
READ += ["identity", "remote"]
RUN = ["kernels", "layers", "models", "engine", "tasks", "fill", "model", "loader", "rows", "measure", "train", "adapt"]
FACE = ["serve", "conformance", "doctor", "commands", "cli", "__main__"]
ROOMS = READ + RUN + FACE
FORBIDDEN = {"models": {"engine", "tasks", "checkpoint"}, "tasks": {"models"}}
HEAVY = {
    "torch",
    "numpy",
    "transformers",
    "tokenizers",
    "jinja2",
    "huggingface_hub",
    "tqdm",
    "PIL",
    "pyarrow",
    "httpx",
    "keyring",
}

FILES = sorted(p for p in ROOT.rglob("*.py") if "minis" not in p.parts)


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so at module level and outside TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    deferred = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        now = id(node) not in typing_only and id(node) not in deferred
        if isinstance(node, ast.Import):
            found += [(alias.name, now) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found += [(f"{module}.{a.name}" if module == "brolly" else module, now) for a in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_leftwards_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} has no place in the house; give it one here and in docs/architecture.md"
    for module, _ in imports(path):
        if not module.startswith("brolly."):
            continue
        other = module.split(".")[1]
        if other not in ROOMS:
            continue
        assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {module}, which lies to its right"
        assert other not in FORBIDDEN.get(room, ()), f"{path} imports {module}; {room} may not know {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_late(path: Path) -> None:
    heavy = HEAVY - {"torch", "numpy"} if room_of(path) in RUN else HEAVY  # importing torch imports numpy
    early = {module for module, now in imports(path) if now and module.split(".")[0] in heavy}
    assert not early, f"{path} imports {early} at module level"
    if room_of(path) in READ and path != ROOT / "media" / "audio" / "mel.py":  # its transform is torch's, to 1e-6
        assert "torch" not in {module.split(".")[0] for module, _ in imports(path)}, f"{path} is a room without torch"


def test_only_kernels_import_triton_and_ctypes() -> None:
    for path in FILES:
        if room_of(path) != "kernels":
            assert not {"triton", "ctypes"} & {module.split(".")[0] for module, _ in imports(path)}, path


def test_importing_brolly_leaves_heavy_packages_out() -> None:
    code = f"import sys, brolly; print(sorted(set(sys.modules) & {HEAVY!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom brolly.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"


LISTING = [p for p in FILES if "\n__all__ = " in p.read_text()]


@pytest.mark.parametrize("path", LISTING, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_are_sorted_and_exist(path: Path) -> None:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert module.__all__ == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_types_are_told_to_those_who_import_brolly() -> None:
    assert (ROOT / "py.typed").is_file()  # PEP 561: without it a type checker sees Any


def test_every_room_exists_or_is_planned() -> None:
    """A room that was renamed or removed loses its place here."""
    there = {room_of(path) for path in FILES} - {"__init__"}
    assert set(ROOMS) == there
    assert len(ROOMS) == len(set(ROOMS)) and set(FORBIDDEN) <= set(ROOMS)


def test_the_rule_finds_what_it_forbids(tmp_path: Path) -> None:
    """Imports at module level, within functions and for types are all seen."""
    path = tmp_path / "room.py"
    path.write_text(
        "import torch\nfrom brolly import cli\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from brolly.serve import app\ndef f():\n    import brolly.loader\n"
    )
    assert dict(imports(path)) == {
        "torch": True, "brolly.cli": True, "typing": True, "brolly.serve": False, "brolly.loader": False,
    }  # fmt: skip


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 600}
    assert not long
