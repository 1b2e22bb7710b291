"""Draws and densities of every component keep its parameters' dtype, whatever the default is."""

import pytest
import torch
from families import data_of, program_with
from pyro import poutine

import pyro_vae as pv

FAMILIES = (pv.priors, pv.likelihoods, pv.posteriors)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    """A dtype, which is the default while a program and its data are made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "family, name", [(family, name) for family in FAMILIES for name in family.__all__]
)
def test_a_program_has_one_dtype(family, name, dtype):
    torch.manual_seed(0)
    program = program_with(family, name)
    data = data_of(program)
    data = data if isinstance(data, tuple) else (data,)
    torch.set_default_dtype({torch.float32: torch.float64, torch.float64: torch.float32}[dtype])
    guide = poutine.trace(program.guide).get_trace(*data)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*data)
    for trace in (guide, model):
        trace.compute_log_prob(lambda name, site: name != "data")  # not the plate
        for site in [node for node in trace.nodes.values() if "log_prob" in node]:
            found = [site["value"], site["log_prob"]]
            assert {t.dtype for t in found if t.is_floating_point()} == {dtype}
