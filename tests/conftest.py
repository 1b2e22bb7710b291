import importlib
import os
import types
from functools import partial

import pictures
import pytest
import torch
import xarray

import pyro_vae as pv
from pyro_vae.evaluation import arviz_compat

# Several workers have a core each. With a thread for each core of the machine they would wait for
# one another, and the tests took twice as long. Their own processes and commands follow.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from one random state and leaves the process's defaults as they were."""
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """Hide a GPU from every test and command, except those of test_cuda.py."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def quick_figures():
    """Save figures as one pixel, but in tests that ask for `real_figures`."""
    with pictures.saved_as(pictures.pixel):
        yield


@pytest.fixture(scope="module", autouse=True)
def quick_figures_of_commands(request):
    """What commands draw is tested in tests/plotting and tests/report, and there by a few tests."""
    if request.path.parent.name == "cli":
        request.getfixturevalue("quick_figures")


@pytest.fixture
def real_figures():
    with pictures.saved_as(pictures.savefig):
        yield


@pytest.fixture
def quick_chains(monkeypatch):
    """Chains that adapt in a few steps, for tests that need draws and not good ones."""
    monkeypatch.setattr("pyro_vae.evaluation.hmc.PILOT_WARMUP", 2)
    few = partial(pv.diagnostics.NUTS, num_chains=2, warmup=30)
    monkeypatch.setattr("pyro_vae.report.reference.NUTS", few)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def arviz_1x(monkeypatch):
    """ArviZ 1.x, put together from its packages, which install where ArviZ 1.x does not."""
    found = []
    for name in ("arviz_base", "arviz_stats"):
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            pytest.skip(f"{name}, of which ArviZ 1.x is made, is not installed")
    together = types.ModuleType("arviz")
    for module in found:
        vars(together).update(
            {name: value for name, value in vars(module).items() if not name.startswith("_")}
        )
    together.from_netcdf = lambda path: xarray.open_datatree(path, engine="h5netcdf").load()
    monkeypatch.setattr(arviz_compat, "arviz", lambda: together)
    return together


@pytest.fixture(params=["installed", "1.x"])
def any_arviz(request):
    return request.getfixturevalue("arviz_1x") if request.param == "1.x" else arviz_compat.arviz()
