"""Results as JSON and as ArviZ data: every number, in valid JSON, with its origin."""

import json

import numpy as np
import pytest
import torch
from conftest import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import results

X = torch.rand(12, 1, 8, 8).round()
RESULTS = {
    "elbo": lambda vae: pv.elbo(vae, X, 5),
    "log_likelihood": lambda vae: pv.evaluation.evaluate(vae, X, 50)["log_likelihood"],
    "ais": lambda vae: pv.evaluation.ais(vae, X, 2, 5, num_leapfrog=1),
    "bdmc": lambda vae: pv.evaluation.bdmc(vae, 12, 2, 5, num_leapfrog=1),
    "rate_distortion": lambda vae: pv.evaluation.rate_distortion(
        vae, X, 2, 5, points=3, num_leapfrog=1
    ),
    "decompose": lambda vae: pv.evaluation.decompose(vae, X, 5),
    "aggregate_posterior": lambda vae: pv.evaluation.aggregate_posterior(vae, X, 5),
    "active_units": lambda vae: pv.evaluation.active_units(vae, X, 5),
    "calibrate": lambda vae: pv.diagnostics.calibrate(vae, 12, 9),
    "compare": lambda vae: pv.evaluation.compare(pv.elbo(vae, X, 5), pv.elbo(vae, X, 5, seed=1)),
}


@pytest.mark.usefixtures("any_arviz")
@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_json_and_arviz_data(name):
    result = RESULTS[name](small_vae())
    words = json.dumps(results.to_dict(result), allow_nan=False)
    assert "torch" in json.loads(words)["versions"]
    if name != "compare":  # a difference's origin is that of its two scores
        assert '"seed"' in words
        assert len(results.to_inference_data(result).scores.data_vars) > 0
    scores = results.to_inference_data({"result": result, "draws": X}).scores
    assert {"torch", "pyro-ppl"} <= set(scores.attrs)
    assert all(
        scores[variable].dims == ("obs",)
        for variable in scores.data_vars
        if variable.split(".")[-1] == "values"
    )


def test_numbers_are_those_of_the_result():
    score = pv.elbo(small_vae(), X, 5)
    assert results.to_dict(score)["values"] == pytest.approx(score.values.tolist())
    assert results.to_dict({"a": torch.tensor([float("nan"), 1.0])})["a"] == [None, 1.0]
    np.testing.assert_array_equal(results.to_inference_data(score).scores["values"], score.values)
