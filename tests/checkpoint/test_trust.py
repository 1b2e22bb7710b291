"""A file never decides what runs: what program.json and a recipe may name, and what not."""

import json
import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
from commands import FAST, fails
from common import small_vae
from mutations import with_checksum

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.checkpoint.trust import LAYERS, class_at
from pyro_vae.cli import main
from pyro_vae.recipes.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("quick_figures")

MARK = "touched"  # by whatever runs

MODULE = f"""
from pathlib import Path
from torch import nn
Path({MARK!r}).write_text("imported")

class Prior(nn.Module):
    def __init__(self, latent=(2,)):
        super().__init__()
        self.latent = latent
    def shell(self, x, context=None): ...
"""


LIBRARY = f"""
#include <fcntl.h>
__attribute__((constructor)) void run(void) {{ creat("{MARK}", 0600); }}
"""


def linear(**args):
    return {"class": "torch.nn.Linear", "args": {"in_features": 1, "out_features": 1, **args}}


def method(name, of):
    return {"method": name, "of": of}


def program_of(part):
    return {"class": "pyro_vae.programs.Program", "args": {"model": part, "guide": part}}


MLP = {"class": "pyro_vae.networks.MLP", "args": {"in_shape": [2]}}
SHELL = f"touch {MARK}"

REFUSED = {
    # What a bound method leads to, and what hangs on it.
    "globals": method("__globals__", method("forward", MLP)),
    # A likelihood inside of another, by a text alone.
    **{
        f"of by {name}": {
            "class": f"pyro_vae.likelihoods.{name}",
            "args": {"event_shape": [2], "network": MLP, "of": "tabnanny.Prior"},
        }
        for name in ("LatentSize", "ZeroInflated", "Truncated")
    },
    "self": method("__self__", method("share_memory", linear())),
    "builtin": method("__class__", linear()),
    "torch's method": method("share_memory", linear()),
    "private": method("_apply", MLP),
    "inherited": method("apply", MLP),
    "method of a class": method("forward", {"import": "torch.nn.ReLU"}),
    "method of a list": method("append", [1]),
    "method in a program": program_of(method("__init_subclass__", MLP)),
    # Functions and classes that act on what they are given.
    "function": {"class": "os.system", "args": {"command": SHELL}},
    "imported function": {"import": "os.system"},
    "class": {"class": "subprocess.Popen", "args": {"args": SHELL, "shell": True}},
    "partial": {"class": "functools.partial", "args": {"*": [{"import": "os.system"}, SHELL]}},
    "module of torch": {"class": "torch.nn.DataParallel", "args": {"module": MLP}},
    "calls its argument": {
        "class": "torch.nn.TripletMarginWithDistanceLoss",
        "args": {"distance_function": {"import": "os.system"}},
    },
    "pyro": {"class": "pyro.nn.module.PyroModule", "args": {}},
    "script": {"class": "torch.jit.ScriptModule", "args": {}},
    "through ours": {"class": "pyro_vae.programs.program.nn.DataParallel", "args": {"module": MLP}},
    "not public": {"class": "pyro_vae.likelihoods.mixed.Features", "args": {"out_shape": [2]}},
    "what ours imported": {"class": "pyro_vae.networks.dense.nn", "args": {}},
    "our command": {"class": "pyro_vae.__main__.main", "args": {}},
    # Arguments that no description has.
    "device": linear(device="meta"),
    "private argument": {
        "class": "torch.nn.Embedding",
        "args": {"num_embeddings": 1, "embedding_dim": 1, "_weight": [1]},
    },
    "a likelihood's parts": {
        "class": "pyro_vae.likelihoods.Mixed",
        "args": {
            "event_shape": [1],
            "network": MLP,
            "groups": [
                {
                    "dict": {
                        "columns": [0],
                        "class_path": "subprocess.Popen",
                        "init_args": {"dict": {"shell": True}},
                    }
                }
            ],
        },
    },
    # Malformed.
    "number as class": {"class": 3, "args": {}},
    "no args": {"class": "torch.nn.ReLU"},
    "extra key": {"method": "forward", "of": MLP, "class": "torch.nn.ReLU"},
    "unknown place": {"same_as": "program.nowhere"},
    "undotted": {"class": "ReLU", "args": {}},
    "nul": {"class": "torch.nn\0.ReLU", "args": {}},
    "relative": {"class": "..os.system", "args": {}},
    "shape": {"class": "torch.nn.ReLU", "args": {}, "out_shape": "abc"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, in which a stranger's modules lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "stranger.py").write_text(MODULE)
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    yield tmp_path
    for name in ("stranger", "leaves"):
        sys.modules.pop(name, None)


def test_the_listed_layers_are_torchs_own_modules():
    for name in LAYERS:
        assert issubclass(vars(torch.nn)[name], torch.nn.Module)
        assert class_at(f"torch.nn.{name}") is vars(torch.nn)[name]


@pytest.mark.parametrize(
    "family", [pv.priors, pv.likelihoods, pv.posteriors, pv.networks, pv.networks.corruptions]
)
def test_every_public_component_may_be_named(family):
    for name in family.__all__:
        assert class_at(f"{family.__name__}.{name}") is getattr(family, name)


@pytest.mark.parametrize("description", REFUSED.values(), ids=REFUSED)
def test_a_description_runs_nothing(folder, description):
    checkpoint.build(checkpoint.describe(small_vae()))  # imports what building needs itself
    before = {*sys.modules}
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.build(description)
    assert "\n" not in str(error.value)
    assert not (folder / MARK).exists() and {*sys.modules} <= before


STRANGERS = {
    "a module of the folder": "stranger.Prior",
    "a module of the standard library": "antigravity.Prior",
    "a module of a library": "torchvision.ops.MLP",
    "a module of torch": "torch.utils.data.Prior",
}


@pytest.mark.parametrize("path", STRANGERS.values(), ids=STRANGERS)
def test_the_refusal_says_what_to_add(folder, capsys, path):
    pv.save(small_vae(), "run")
    saved = json.loads((folder / "run" / "program.json").read_text())
    saved["program"]["args"]["prior"] = {"class": path, "args": {}}
    (folder / "run" / "program.json").write_text(json.dumps(with_checksum(saved)))
    for command in ("evaluate", "sample", "inspect", "report"):
        assert f"--trust {path.split('.')[0]}" in fails(capsys, command, "run")
    assert not (folder / MARK).exists() and not {"stranger", "antigravity"} & {*sys.modules}


def test_a_module_that_the_user_named_is_imported(folder):
    description = {"class": "stranger.Prior", "args": {"latent": [3]}}
    with pytest.raises(checkpoint.Untrusted, match=r"--trust stranger .*trust=\['stranger'\]"):
        checkpoint.build(description)
    for other in (["strange"], ["stranger.inner"], ["torch"]):
        with pytest.raises(checkpoint.Untrusted):
            checkpoint.build(description, trust=other)
    assert not (folder / MARK).exists()
    assert checkpoint.build(description, trust=["stranger"]).latent == [3]
    assert (folder / MARK).read_text() == "imported"
    # Now it is a module that this program has imported from a file of the user's own.
    assert checkpoint.build(description).latent == [3]


def test_what_a_trusted_module_imported_is_not_trusted(folder):
    (folder / "stranger.py").write_text(MODULE + "from torch.nn import DataParallel\nimport os\n")
    for name in ("DataParallel", "os", "os.system", "Path"):
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.build({"class": f"stranger.{name}", "args": {}}, trust=["stranger"])


def test_a_library_that_somebody_imported_is_not_the_users(monkeypatch):
    library = types.ModuleType("somelibrary")
    library.__file__ = "/usr/lib/python3/dist-packages/somelibrary.py"
    library.Act = type("Act", (torch.nn.Module,), {"__module__": "somelibrary"})
    monkeypatch.setitem(sys.modules, "somelibrary", library)
    with pytest.raises(checkpoint.Untrusted, match="--trust somelibrary"):
        checkpoint.build({"class": "somelibrary.Act", "args": {}})
    library.__file__ = "/home/me/somelibrary.py"
    assert type(checkpoint.build({"class": "somelibrary.Act", "args": {}})) is library.Act


@pytest.mark.parametrize(
    "recipe",
    [
        "prior: stranger.Prior",
        "schedule: os.system",
        "schedule: {class_path: os.system}",
        "optimizer: subprocess.Popen",
        "optimizer: {class_path: subprocess.Popen, init_args: {shell: true}}",
        "encoder: {class_path: MLP, init_args: {activation: stranger.Prior}}",
        "encoder: {class_path: MLP, init_args: {activation: {class_path: stranger.Prior}}}",
        "corruption: {class_path: DataParallel, init_args: {module: {class_path: ReLU}}}",
        "program: {class_path: pyro_vae.Program, init_args: {model: os.system, guide: os.system}}",
        "program: {class_path: pyro_vae.Program, init_args: {model: exec, guide: exec}}",
        "likelihood: {class_path: Mixed, init_args: {groups: [{columns: [0], "
        "class_path: stranger.Prior}]}}",
        "objective: {class_path: pyro_vae.cli.main}",
        # Our own functions, such as one that trusts what it is told to.
        "program: {class_path: pyro_vae.load, init_args: {folder: run, trust: [stranger]}}",
        "encoder: pyro_vae.fit",
        # Sites in other forms than by name and part.
        "sites: {image: {class_path: stranger.Prior}}",
        "sites: {image: {init_args: {encoder: {class_path: stranger.Prior}}}}",
        # What the parser of options reads inside of a text.
        "sites: '{image: {encoder: {class_path: stranger.Prior}}}'",
        r"""encoder: {class_path: MLP, init_args: {activation: '"stranger\u002ePrior"'}}""",
        r"""encoder: {class_path: MLP, init_args: {hidden: '{"class_path": "stranger\u002eP"}'}}""",
        "encoder: {class_path: MLP, init_args: {hidden: '{a: &a [x], b: &b [*a], c: [*b]}'}}",
    ],
)
def test_a_recipe_runs_nothing(folder, capsys, recipe):
    (folder / "recipe.yaml").write_text(recipe + "\n")
    assert "--trust" in fails(capsys, "train", "recipe.yaml", "--out", "run", *FAST)
    assert not (folder / MARK).exists() and "stranger" not in sys.modules


@pytest.mark.parametrize("key", ["latent", "epochs", "data_root"])
def test_words_of_a_recipe_in_an_error_are_not_imported(folder, capsys, key):
    words = "Option 'a' is not accepted class_path='stranger.Prior'"
    (folder / "recipe.yaml").write_text(f'{key}: {{a: "{words}"}}\n')
    fails(capsys, "train", "recipe.yaml", "--out", "run", *FAST)
    assert not (folder / MARK).exists() and "stranger" not in sys.modules


def test_a_recipe_names_of_a_trusted_module_only_what_it_defines(folder, capsys):
    (folder / "stranger.py").write_text(
        "from os import system\nfrom functools import partial\nimport pyro_vae as pv\n"
        "def make(latent): return pv.priors.StandardNormal(latent)\n"
        "some, others = partial(make), partial(system)\n"
    )
    for name, is_theirs in (("make", 1), ("some", 1), ("system", 0), ("others", 0)):
        (folder / "recipe.yaml").write_text(f"prior: stranger.{name}\n")
        try:
            read_recipe("recipe.yaml", ["stranger"])
        except checkpoint.Untrusted:
            assert not is_theirs, name
        else:
            assert is_theirs, name


def test_a_run_on_ones_own_components_is_trusted_by_name(folder, capsys):
    (folder / "stranger.py").write_text(
        "import torch\nfrom torch import nn\nimport pyro_vae as pv\n"
        "class Mine(pv.priors.StandardNormal): ...\n"
        "class Act(nn.Tanh): ...\n"
    )
    (folder / "recipe.yaml").write_text("prior: stranger.Mine\nlatent: 2\n")
    train = ["train", "recipe.yaml", "--out", "run", *FAST]
    fails(capsys, *train)
    act = ["--encoder.activation", "stranger.Act"]
    assert main([*train, *act]) == 0  # the user has typed the module's name
    sys.modules.pop("stranger")
    more = ["--resume", "--out", "run", *FAST, "--epochs", "3"]
    assert "--trust stranger" in fails(capsys, "train", *more)
    fails(capsys, "report", "run")
    assert main(["train", "--trust", "stranger", *more]) == 0
    sys.modules.pop("stranger")
    assert main(["report", "run", "--trust", "other,stranger"]) == 0


def test_a_module_that_ends_the_process_is_one_line(folder, capsys):
    assert "SystemExit" in fails(capsys, "train", "--prior", "leaves.Prior")
    pv.save(small_vae(), "run")
    with pytest.raises(checkpoint.CheckpointError, match="SystemExit"):
        checkpoint.build({"class": "leaves.Prior", "args": {}}, trust=["leaves"])


def test_the_working_folder_hides_no_library_and_is_searched_by_no_name_in_a_run(folder):
    """`evaluate` in a stranger's folder imports nothing from there, neither by -m nor as script."""
    for name in ("arviz", "h5netcdf", "tensorboard", "sklearn", "payload"):
        (folder / f"{name}.py").write_text(MODULE)
    (folder / "matplotlibrc").write_text("no setting: of any kind\n")
    if compiler := shutil.which("cc"):  # the CUDA builds of torch look for it in this folder
        (folder / "lib.c").write_text(LIBRARY)
        name = ["-o", "libcuda.so.1", "-Wl,-soname,libcuda.so.1"]
        subprocess.run([compiler, "-shared", "-fPIC", *name, "lib.c"], check=True)
    pv.save(small_vae(), "run")
    (folder / "run" / "recipe.yaml").write_text("data: digits\nprior: payload.Prior\n")
    done = subprocess.run(
        [sys.executable, "-m", "pyro_vae", "evaluate", "run", "--num-samples", "30"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0 and "matplotlibrc" not in done.stderr, done.stderr
    assert not (folder / MARK).exists()
