"""Pyro's own `SVI` on a program of ours says that it moves nothing."""

import copy
import warnings

import pyro
import pytest
import torch
from cases import PROGRAMS
from common import small_vae
from pyro.infer import SVI, Trace_ELBO

import pyro_vae as pv

X = torch.zeros(6, 1, 8, 8)


@pytest.fixture(autouse=True)
def empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def svi(model, guide, loss=None):
    return SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss or Trace_ELBO())


@pytest.mark.parametrize("name", PROGRAMS)
def test_svi_on_a_program_of_ours_warns_and_names_what_trains_it(name):
    program, context = PROGRAMS[name]
    before = copy.deepcopy(program.state_dict())
    with pytest.warns(UserWarning, match=r"moves no parameter of this.*pv\.CompiledSVI"):
        svi(program.model, program.guide, pv.objectives.EnumeratedELBO()).step(X, *context)
    assert all(torch.equal(p, before[name]) for name, p in program.named_parameters())


def test_it_warns_of_the_part_that_is_forgotten_and_of_none_if_there_is_none():
    program = small_vae()

    def guide_with(*names):
        def guide(x):
            for name in names:
                pyro.module(name or "vae", program.get_submodule(name))
            return program.guide(x)

        return guide

    with pytest.warns(UserWarning, match=r"only some parameters: 'likelihood\..*pv\.fit"):
        svi(program.model, guide_with("posterior")).step(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi(program.model, guide_with("posterior", "likelihood")).step(X)
        pyro.clear_param_store()
        svi(program.model, guide_with("")).step(X)
        svi(program.model, program.guide).evaluate_loss(X)


def test_it_warns_of_a_second_program_under_the_name_of_the_first():
    """Pyro's store gives the second one the tensors of the first."""
    for seed in (0, 1):
        program = small_vae(seed=seed)

        def guide(x, program=program):
            pyro.module("vae", program)
            return program.guide(x)

        if seed == 0:
            svi(program.model, guide).step(X)
    with pytest.warns(UserWarning, match="moves no parameter of this program"):
        svi(program.model, guide).step(X)
