"""What the tests and the examples in docstrings share: one thread each, and the examples' names."""

import atexit
import gc
import os

# Tests run two at a time on two cores; more threads would only wait for one another. Subprocesses
# inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from common import small_vae

import pyro_vae as pv


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Modules and tests live to the end: the collector of garbage need not look at them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # then some libraries say what they find still alive


@pytest.fixture(scope="session", autouse=True)
def doctest_names(doctest_namespace, tmp_path_factory):
    """Names that the docstrings' examples use."""
    doctest_namespace |= {
        "pv": pv,
        "torch": torch,
        "folder": tmp_path_factory.mktemp("doctests") / "saved",
    }


@pytest.fixture(autouse=True)
def own_vae(request, doctest_namespace):
    """A program of each example's own, which may train it."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace["vae"] = small_vae()
