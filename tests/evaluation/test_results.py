"""Results as JSON and as ArviZ data: every number, in valid JSON, with its origin."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
from cases import RESULTS, X
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import arviz_compat, results


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


def test_the_shortest_tails_are_no_error_in_any_release_of_arviz(any_arviz):
    draws = np.random.default_rng(0).normal(size=(2, 40))
    # Its 1.3 fits no tail of five draws; 0.x does, and so do the packages before 1.0.
    fits_five = arviz_compat.is_0x(any_arviz) or version("arviz_stats").startswith("0.")
    for count in range(10, 40):
        shapes = arviz_compat.psis_tail_shape(draws[:, :count])
        assert count > 20 or np.isnan(shapes).all(), count
        assert count < (25 if fits_five else 30) or np.isfinite(shapes).all(), count
