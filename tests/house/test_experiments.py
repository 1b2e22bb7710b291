"""The experiments' scripts use names of ours that exist; they are not run here."""

import ast
import importlib
from pathlib import Path

import pytest

import pyro_vae as pv

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "experiments").glob("**/*.py"))


def exists(name: str) -> bool:
    """Whether a dotted name is a module or leads from one to what it defines."""
    module, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), last)
    except ImportError:
        return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_script_imports_names_that_exist(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyro_vae"):
            for alias in node.names:
                assert exists(f"{node.module}.{alias.name}"), alias.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_script_uses_public_names_that_exist(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Attribute):
            *path, first = reversed(ast.unparse(node).split("."))
            if first == "pv" and all(part.isidentifier() for part in path):
                found = pv
                for part in reversed(path):
                    assert found is not pv or part in pv.__all__, f"pv.{part} is a former name"
                    if isinstance(found, type):
                        break
                    found = getattr(found, part)
