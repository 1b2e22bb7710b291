"""The house: floors, the one place of Pyro's primitives, and no side effects of an import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent

# A module imports from its own floor's earlier entries or from lower floors only.
FLOORS = [
    ["validation", "networks", "corruptions", "distributions", "schedules", "neighbours", "spectrograms", "text", "datasets", "progress", "memory", "events",
     "arviz_compat", "kernels", "inductor", "updates"],
    ["priors", "likelihoods", "posteriors"],
    ["programs", "traces", "latents", "proposals"],
    ["execution", "objectives", "compilation", "checkpoint", "evaluation", "results", "annealing", "decomposition", "calibration",
     "comparison", "draws", "inference_data", "reference", "stepping", "training"],
    ["sampling", "testing", "inspection", "geometry", "plotting", "gallery"],
    ["config", "report", "cli"],
]
ORDER = [module for floor in FLOORS for module in floor]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pyro_vae"):
            names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
            found |= set(names)
    return found


def room(path: Path) -> str:
    """The module or the package, right below pyro_vae, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if room(path) not in ("__init__", "__main__")]


def test_every_module_has_a_floor():
    assert {room(path) for path in modules()} == set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path):
    above = {name for name in imports(path) if ORDER.index(name) > ORDER.index(room(path))}
    assert not above, f"{path.stem} imports {above}, which lies above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_programs_sample(path):
    calls = {f"{node.func.value.id}.{node.func.attr}" for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
             and isinstance(node.func.value, ast.Name)}
    if room(path) not in ("programs", "testing"):
        assert not calls & {"pyro.sample", "pyro.plate", "pyro.param", "pyro.module"}


def test_an_import_changes_no_setting_of_the_process():
    code = """
import pyro, torch, warnings
warnings.simplefilter("error")
from torch.distributions import Distribution
before = (Distribution._validate_args, torch.get_default_dtype(), torch.random.initial_seed(), torch.get_num_threads())
state = torch.random.get_rng_state()
import pyro_vae, pyro_vae.cli, pyro_vae.testing, pyro_vae.plotting
assert before == (Distribution._validate_args, torch.get_default_dtype(), torch.random.initial_seed(),
                  torch.get_num_threads())
assert torch.equal(state, torch.random.get_rng_state())
assert not list(pyro.get_param_store().keys())
import sys
assert not set(sys.modules).intersection(["arviz", "torchvision", "zuko"])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
