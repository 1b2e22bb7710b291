"""Every public result shows in one line, and in a notebook as a table, however large it is."""

import dataclasses

import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation.arviz_compat import LeaveOneOut
from pyro_vae.evaluation.over_seeds import SeedDifference
from pyro_vae.runtime.imputation import Imputation

N, D = 1000, 8
SCORE = pv.evaluation.Score(torch.randn(N), torch.rand(N), 100)
RANKS = torch.arange(N)[:, None].expand(N, D) % 100
TEST = pv.diagnostics.TwoSampleTest(0.6, 0.03, 200)
many = torch.randn

RESULTS = [
    pv.diagnostics.Calibration(RANKS, RANKS[:, 0], [f"z[{i}]" for i in range(D)], 99, 0),
    pv.diagnostics.Uniformity(many(D), torch.rand(D)),
    TEST,
    pv.evaluation.ActiveUnits({"z": many(500)}, 0.01, 100, 0, 64 * "a"),
    pv.evaluation.AggregatePosterior(
        1.0, 0.5, 0.5, None, many(500), {"kl": 0.1, "dimension_kl": many(500)}, 10, 0, 64 * "a"
    ),
    pv.evaluation.Fidelity(0.9, 0.8, 1.0, 0.7),
    pv.evaluation.InferenceGap(SCORE, SCORE, SCORE),
    pv.evaluation.RateDistortion(*(many(500) for _ in range(5)), 16, 0, 64 * "a"),
    SeedDifference(1.0, 0.1, float("nan"), float("nan"), 1.0, 1),
    LeaveOneOut(-100.0, 2.0, 3.0, many(N).numpy(), many(N).numpy()),
    pv.inspection.Accuracy(0.9, N),
    pv.inspection.Anomaly(many(N), many(N), 0.8, 0.01),
    pv.inspection.Coherence(many(N) > 0),
    pv.inspection.LatentPath(many(100, D), 2.0, 1.0),
    pv.inspection.Neighbours(RANKS, many(N, D)),
    pv.inspection.Plane(many(50), many(2, 50), (0.4, 0.2)),
    pv.inspection.TangentPlane(many(N, 4, 2), many(N, 4, 2), many(N, 2)),
    Imputation(many(N, D), RANKS[:, :2], many(20, N), many(N), many(N)),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_is_one_line_and_a_table(result):
    words, page = repr(result), result._repr_html_()
    assert words.startswith(f"{type(result).__name__}(") and str(result)
    for shown in (words, str(result)):
        assert "\n" not in shown and "tensor(" not in shown and len(shown) < 500
    assert page.startswith("<table>") and page.count("<tr>") == page.count("</tr>") >= 1
    assert "tensor(" not in page and len(page) < 3000


def test_no_result_with_an_array_in_it_is_left_out():
    packages = (pv.diagnostics, pv.evaluation, pv.inspection, pv.training, pv.checks)
    kinds = {"Tensor", "np.ndarray", "Score"}
    for name, found in ((n, vars(p)[n]) for p in packages for n in p.__all__ if n in vars(p)):
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            has_arrays = kinds & {str(each.type) for each in dataclasses.fields(found)}
            assert not has_arrays or "_repr_html_" in dir(found), name


def test_a_calibration_says_whether_its_ranks_are_uniform():
    even = pv.diagnostics.Calibration(RANKS, RANKS[:, 0], ["z"] * D, 99, 0)
    assert str(even) == (
        "ranks of 1,000 simulated data among 99 draws; a p-value of 1 that all 8 columns are "
        "uniform"
    )
    low = pv.diagnostics.Calibration(0 * RANKS, RANKS[:, 0], ["z"] * D, 99, 0)
    assert "a p-value of 0 " in str(low)


def test_numbers_of_a_result_are_those_of_its_arrays():
    assert repr(pv.diagnostics.Uniformity(torch.tensor([1.0, 3.0]), torch.tensor([0.5]))) == (
        "Uniformity(statistic: (2,) from 1 to 3, p_value: (1,) from 0.5 to 0.5)"
    )
