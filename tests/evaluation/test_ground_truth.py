"""The exact values of experiments/results, each computed a second way, and their experiment."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation.scores import Score
from pyro_vae.runtime.conditioned import Conditioned

FOLDER = Path(__file__).parents[2] / "experiments" / "results"


def module(name):
    """A script of the experiment, which finds the others beside it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


exact = module("exact")
ground_truth = module("ground_truth")

# Continuous latents, and the values of the discrete one, of the models that are normal given it.
NORMAL = {
    "probabilistic PCA, 5 dimensions": ({"z": 5}, {}),
    "a hierarchy of two levels": ({"z2": 2, "z1": 3}, {}),
    "conditional on a label": ({"z": 2}, {}),
    "missing entries": ({"z": 2}, {}),
    "a local plate of five latents": ({"z": 5}, {}),
    "a `Refined` program": ({"z": 2}, {}),
    "a flow as the guide": ({"z": 2}, {}),
    "a category and two normal latents": ({"z": 2}, {"y": torch.arange(3)}),
    "semi-supervised": ({"z": 2}, {"y": torch.eye(3)}),
    "a mixture of 6": ({}, {"z": torch.arange(6)}),
}
# Intervals for each latent of the others.
BENT = {
    "a curved decoder, 1 dimension": (-6.5, 6.5, 1),
    "a curved decoder, 2 dimensions": (-6.5, 6.5, 2),
    "a positive latent": (1e-9, 30.0, 1),
}


def drawn(name, num=6):
    model = exact.model_of(name)
    torch.manual_seed(3)
    return model, model.data(*model.simulate(num))


def log_joint(model, data, values):
    """log p(x, z) (K, N) of the program's own traces at given latents."""
    given = Conditioned.of(model.program.eval(), data.x, data.context)
    with torch.no_grad():
        return sum(given.log_density(given.model, values))


def log_integral_of_a_normal(log_f, size):
    """log of the integral of exp(f), f quadratic, from 1 + 2 D + D (D - 1) / 2 of its values.

    ``log_f`` maps latents (K, D) to values (K, N).
    """
    if not size:
        return log_f(torch.zeros(1, 0))[0]
    unit = torch.eye(size)
    pairs = [(i, j) for i in range(size) for j in range(i)]
    corners = [unit[i] + unit[j] for i, j in pairs]
    values = log_f(torch.stack([torch.zeros(size), *unit, *-unit, *corners]))
    centre, up, down = values[0], values[1 : size + 1], values[size + 1 : 2 * size + 1]
    gradient = ((up - down) / 2).T
    precision = torch.diag_embed((2 * centre - up - down).T)
    for (i, j), corner in zip(pairs, values[2 * size + 1 :]):
        precision[:, i, j] = precision[:, j, i] = up[i] + up[j] - corner - centre
    shift = (gradient * torch.linalg.solve(precision, gradient)).sum(-1)
    integral = centre + 0.5 * (shift + size * math.log(2 * math.pi) - torch.logdet(precision))
    return torch.where(centre == -torch.inf, centre, integral)


@pytest.mark.parametrize("name", NORMAL)
def test_log_p_of_a_model_that_is_normal_given_its_category(name, float64):
    model, data = drawn(name)
    sizes, categories = NORMAL[name]
    num = len(data.x)

    def terms(category, value):
        def log_f(points):
            rows = points[:, None].expand(-1, num, -1).split(list(sizes.values()), -1)
            values = dict(zip(sizes, rows))
            if name == "a local plate of five latents":
                values = {"z": values["z"].mT}
            if category:
                values[category] = value.expand(len(points), num, *value.shape)
            return log_joint(model, data, values)

        return log_integral_of_a_normal(log_f, sum(sizes.values()))

    ((category, values),) = categories.items() or [("", [None])]
    each = torch.stack([terms(category, value) for value in values])
    torch.testing.assert_close(
        each.logsumexp(0), model.log_p(data.x, data.context), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("name", BENT)
def test_log_p_by_the_rule_of_gauss_and_legendre(name, float64):
    model, data = drawn(name)
    low, high, latent = BENT[name]
    nodes, weights = (torch.tensor(each) for each in np.polynomial.legendre.leggauss(240))
    line, cells = (high - low) / 2 * (nodes + 1) + low, (high - low) / 2 * weights
    points = torch.cartesian_prod(*[line] * latent).reshape(-1, latent)
    cell = torch.cartesian_prod(*[cells.log()] * latent).reshape(-1, latent).sum(-1)
    values = points[:, None].expand(-1, len(data.x), -1)
    again = (log_joint(model, data, {"z": values}) + cell[:, None]).logsumexp(0)
    torch.testing.assert_close(again, model.log_p(data.x, data.context), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", exact.MODELS)
def test_the_exact_bound_is_the_mean_log_weight(name, float64):
    model, data = drawn(name, 4)
    # A refined guide has noise of its own for each datum, so it is given many copies of each.
    copies, draws = (300, 4) if name == "a `Refined` program" else (1, 3000)
    context = None if data.context is None else data.context.repeat(copies)
    many = model.data(data.x.repeat(copies, 1), context)
    weights = pv.evaluation.importance_weights(model.program, many, draws)
    weights = weights.reshape(draws, copies, len(data.x))
    means = weights.mean(0) if copies > 1 else weights[:, 0]
    error = means.std(0) / len(means) ** 0.5
    assert ((means.mean(0) - model.elbo(data.x, data.context)).abs() < 4.5 * error).all()


def test_the_quick_form_runs_and_is_resumed(tmp_path, capsys, float64, monkeypatch):
    models = ["a curved decoder, 1 dimension", "a mixture of 6", "semi-supervised"]
    arguments = ["--quick", "--only", *models, "--parts", str(tmp_path)]
    ground_truth.main(arguments)
    parts = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    rows = [row for text in parts.values() for row in json.loads(text)["rows"]]
    assert {row["case"] for row in rows} == set(models) and len(parts) == 12 + 6 + 9
    assert {f"`bdmc`, {side}" for side in ("lower", "upper")} < {row["estimator"] for row in rows}
    first = capsys.readouterr().out.splitlines()[-len(rows) :]
    monkeypatch.setattr(ground_truth, "part", None)
    ground_truth.main(arguments)
    assert capsys.readouterr().out.splitlines()[-len(rows) :] == first


def test_a_row_counts_coverage_offsets_and_bounds():
    scores = [Score(torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.1]), 7) for _ in range(2)]
    truth = torch.tensor([0.1, 2.0])
    row = ground_truth.row_of("a", "b", [(scores[0], truth), (scores[1], truth - 0.2)])
    assert row["coverage"] == 0.5 and row["bound"] == 0
    assert row["error"] == pytest.approx(-0.45) and row["pareto_k"] is None
    assert row["in_errors"] == pytest.approx(-0.45 / scores[0].mean_mc_se)
    assert row["z"] == pytest.approx(-4.5)
