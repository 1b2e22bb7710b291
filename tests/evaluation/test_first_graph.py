"""A score's captured graph has the bits of the program; compiled, it is equal within rounding."""

import pytest
import torch
from cases import PROGRAMS, case

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.evaluation.decomposition import aggregate_posterior, decompose
from pyro_vae.validation import InvalidInput

DRAWS = 6


def numbers(program, data, compile):
    """All that the scores say of a program, by name."""
    parts = decompose(program, data, DRAWS, compile=compile)
    found = {name: score.values for name, score in parts.items()}
    found |= {f"{name}, error": score.mc_se for name, score in parts.items()}
    found["log p"] = pv.log_likelihood(program, data, DRAWS, compile=compile).values
    whole = aggregate_posterior(program, data, DRAWS, compile=compile)
    for name in ("kl", "mutual_information", "total_correlation", "dimension_kl"):
        if (value := getattr(whole, name)) is not None:
            found[name] = torch.as_tensor(value, dtype=torch.float64)
    return found


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_captured_graph_has_the_bits_of_the_program(name, monkeypatch):
    program, data = case("program", name)
    data = data[0] if len(data) == 1 else data
    graphs = []
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: graphs.append(self))
    eager = numbers(program, data, "off")
    assert not graphs
    graph = numbers(program, data, "on")
    assert graphs
    assert graph.keys() == eager.keys()
    for key, values in eager.items():
        torch.testing.assert_close(graph[key], values, rtol=0, atol=0, equal_nan=True, msg=key)


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_a_compiled_graph_is_equal_within_rounding():
    program, (x,) = case("program", "vae")
    eager, compiled = (numbers(program, x, compile) for compile in ("off", "on"))
    for key, values in eager.items():
        torch.testing.assert_close(compiled[key], values, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_latent_that_depends_on_another_has_its_density_at_each_point():
    """A hierarchy's densities cannot be found once for all points."""
    torch.manual_seed(1)
    program, (x,) = case("program", "hierarchy")
    whole = aggregate_posterior(program, x, DRAWS)
    draws = whole_by_loop(program, x)
    assert whole.mutual_information == pytest.approx(draws, abs=1e-5)


def whole_by_loop(program, x):
    """The mutual information, with one density at a time."""
    from pyro_vae.runtime.conditioned import conditioned

    with conditioned(program, x, 0) as given:
        given.check_no_auxiliary()  # which draws, as the function itself does
        values = given.draw(given.guide, DRAWS)
        total = 0.0
        for k in range(DRAWS):
            for n in range(len(x)):
                one = {name: value[k : k + 1, n : n + 1] for name, value in values.items()}
                each = torch.stack(
                    [given[m : m + 1].log_density(given.guide, one)[0][0, 0] for m in range(len(x))]
                )
                total += (each[n] - each.logsumexp(0)).item()
    return total / (DRAWS * len(x)) + torch.tensor(float(len(x))).log().item()


@pytest.mark.parametrize("score", [decompose, aggregate_posterior])
def test_another_word_for_compile_is_refused(score):
    program, (x,) = case("program", "vae")
    with pytest.raises(InvalidInput, match="compile"):
        score(program, x, 3, compile="yes")
