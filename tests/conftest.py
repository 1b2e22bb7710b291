import importlib
import math
import os
import types
from pathlib import Path

import pytest
import torch
import xarray
from vaes import small_vae as small_vae

import pyro_vae as pv
from pyro_vae.contracts import known_by
from pyro_vae.distributions import entries_of
from pyro_vae.evaluation import arviz_compat
from pyro_vae.networks import as_shape
from pyro_vae.validation import InvalidInput

HAS_GPU = torch.cuda.is_available()
DATA = Path(os.environ["PYRO_VAE_DATA"]) if os.environ.get("PYRO_VAE_DATA") else None


def likelihood_of(name: str, event, network):
    """The likelihood of that name, its arguments left at their defaults.

    One that refuses the event's shape, and says that it is the shape, is given a vector of as many
    entries, at least two.
    """
    cls = getattr(pv.likelihoods, name)
    try:
        return cls(event, network)
    except InvalidInput as error:
        assert error.argument == "event_shape"
        return cls(max(2, math.prod(as_shape(event))), network)


def known_of(likelihood, num: int) -> dict[str, torch.Tensor]:
    """A value for each of ``num`` data of every known quantity that a likelihood takes."""
    values = {
        "size_factor": torch.full((num,), 3.0),
        "scale": torch.linspace(0.5, 1.5, num),
        "inverse_variance": torch.linspace(0.5, 1.5, num),
        "censored": torch.zeros(num),
        "upper": torch.zeros(num),
        "trials": torch.arange(num) + 2.0,
    }
    return {name: values[name] for name in known_by(likelihood)}


def has_entries(name: str) -> bool:
    """Whether the likelihood of that name has entries that are independent given z."""
    try:
        likelihood = likelihood_of(name, 3, pv.networks.MLP(2, [8]))
        return bool(entries_of(likelihood(torch.zeros(1, 2), **known_of(likelihood, 1))))
    except InvalidInput:
        return False


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
