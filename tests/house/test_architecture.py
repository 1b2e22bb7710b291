"""The house: floors, one place for Pyro's primitives, imports without effects, short files."""

import ast
import importlib
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"


def floors() -> list[list[str]]:
    """The rooms of each floor, from the ground up, as CONTRIBUTING.md's table states them."""
    rows = [
        line.split("|")[1:-1]
        for line in CONTRIBUTING.read_text().splitlines()
        if line.startswith("| ")
    ]
    table = [[cell.strip() for cell in row] for row in rows]
    rooms = [
        (int(row[0]), [name.strip("` ") for name in row[2].split(",")])
        for row in table
        if row[0].isdigit()
    ]
    assert rooms, "CONTRIBUTING.md has no table of floors"
    return [names for _, names in sorted(rooms)]


ORDER = [name for floor in floors() for name in floor]


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if room(path) not in ("__init__", "__main__")]


def room(path: Path) -> str:
    """The package or module, right below pyro_vae, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The full names of our modules and packages that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "pyro_vae"}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names if (node.module or "").split(".")[0] == "pyro_vae" else []:
                full = f"{node.module}.{alias.name}"
                found.add(full if is_module(full) else node.module)
    return found


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def test_the_table_of_floors_names_every_room():
    assert sorted(ORDER) == sorted({room(path) for path in modules()})


def test_only_three_modules_stand_outside_a_package():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__",
        "__main__",
        "contracts",
        "validation",
    }


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path):
    rooms = {name.split(".")[1] for name in imports(path) if "." in name}
    above = {name for name in rooms if ORDER.index(name) > ORDER.index(room(path))}
    assert not above, f"{path.stem} imports {above}, which lies above it"


def test_no_import_runs_in_a_circle_within_a_package():
    for package in {room(path) for path in modules()}:
        inside = {
            path.stem: {
                name.split(".")[-1]
                for name in imports(path)
                if name.startswith(f"pyro_vae.{package}.")
            }
            for path in modules()
            if room(path) == package and path.stem != "__init__"
        }
        while free := [
            name for name, needs in inside.items() if not needs & inside.keys() - {name}
        ]:
            for name in free:
                del inside[name]
        assert not inside, f"{package}: {sorted(inside)} import one another"


def test_the_compiler_knows_nothing_of_models():
    for path in (PACKAGE / "compilation").glob("*.py"):
        rooms = {name.split(".")[1] for name in imports(path) if "." in name}
        assert rooms <= {"compilation", "validation"}, f"{path.stem} imports {rooms}"


@pytest.mark.parametrize(
    "package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
)
def test_a_package_says_what_lives_in_it(package):
    doc = importlib.import_module(f"pyro_vae.{package}").__doc__
    assert doc and len(doc.strip().splitlines()) > 1


def test_files_are_short():
    lengths = [len(path.read_text().splitlines()) for path in modules()]
    assert max(lengths) <= 400
    assert statistics.median(lengths) < 150


def test_tests_mirror_the_packages():
    tests = {path.name for path in (PACKAGE.parent / "tests").iterdir() if path.is_dir()}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= tests


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_programs_sample(path):
    calls = {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    }
    if room(path) not in ("programs", "testing"):
        assert not calls & {"pyro.sample", "pyro.plate", "pyro.param", "pyro.module"}


def test_a_tab_shows_only_what_is_public():
    assert set(dir(pyro_vae)) == {*pyro_vae.__all__, "__version__"}
    for name in pyro_vae.__all__:
        assert getattr(pyro_vae, name) is not None


def test_an_import_changes_no_setting_of_the_process():
    code = """
import pyro, torch, warnings
warnings.simplefilter("error")
from torch.distributions import Distribution

def settings():
    return (Distribution._validate_args, torch.get_default_dtype(), torch.random.initial_seed(),
            torch.get_num_threads())

before = settings()
state = torch.random.get_rng_state()
import pyro_vae, pyro_vae.cli, pyro_vae.testing, pyro_vae.plotting
assert before == settings()
assert torch.equal(state, torch.random.get_rng_state())
assert not list(pyro.get_param_store().keys())
import sys
assert not set(sys.modules).intersection(["arviz", "torchvision", "zuko"])
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def functions(path: Path) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_function_has_more_than_five_parameters(path):
    for function in functions(path):
        named = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        parameters = [each.arg for each in named if each.arg not in ("self", "cls")]
        is_private = function.name.startswith("_") and not function.name.startswith("__")
        assert not is_private or len(parameters) <= 5, f"{path.stem}.{function.name}: {parameters}"


def test_no_signature_carries_a_program_its_data_and_its_plates():
    """`Conditioned` is that object; the few that make it take a program, x and context."""
    for path in modules():
        for function in functions(path):
            names = {each.arg for each in function.args.args + function.args.kwonlyargs}
            assert not {"program", "x", "context"} < names & {"program", "x", "context", "plates"}


def lines_with(pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        line for path in modules() for line in path.read_text().splitlines() if found.search(line)
    ]


def test_types_are_stated():
    assert len(lines_with(r"\bAny\b")) < 80
    assert len(lines_with(r"\b(hasattr|getattr)\(")) < 25


def test_a_context_is_sliced_in_one_place():
    assert len(lines_with(r"None if .*context is None else .*context\[")) <= 1
