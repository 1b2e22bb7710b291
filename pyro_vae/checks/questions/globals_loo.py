"""Leave-one-out cross-validation of a program with global latents."""

from __future__ import annotations

import warnings

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import khat
from pyro_vae.checks.subject import DoesNotApply, Subject, seeded_rows
from pyro_vae.diagnostics.inference_data import to_inference_data
from pyro_vae.evaluation.arviz_compat import leave_one_out

__all__ = ["GlobalLoo"]

DATA, DRAWS = 60, 200
TOLERATED = 0.1


class GlobalLoo(Check):
    r"""Pareto k of leave-one-out cross-validation is small: no datum alone moves the globals much.

    .. math:: \log p(x_n \mid x_{-n}) \approx -\log \frac1S \sum_s \frac{1}{p(x_n \mid \theta_s)}

    Local latents are integrated out, so that ``arviz.loo`` means what it does for any model.

    Source: Vehtari, Gelman and Gabry (2017), Practical Bayesian Model Evaluation Using
    Leave-One-Out Cross-Validation and WAIC.
    """

    name = "leave-one-out with global latents"
    question = "Does the model fit?"
    calls, rows = 4 * DRAWS, DATA * DRAWS * 100

    def suits(self, subject: Subject) -> bool:
        return subject.local is not subject.program

    def look(self, subject: Subject) -> Finding:
        if not self.suits(subject):
            raise DoesNotApply(
                "the program is without global latents: log p(x) of a test datum is what "
                "leave-one-out would estimate"
            )
        few = seeded_rows(subject.train or subject.few, DATA, subject.seed)
        draws = to_inference_data(subject.program, few, DRAWS, seed=subject.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loo = leave_one_out(draws)
        k = loo.pareto_k
        above = int((k > 0.7).sum())
        return Finding(
            means=f"Pareto k of leave-one-out is above 0.7 for {above} of {len(k)} data",
            numbers={
                "data": len(k),
                "above 0.7": above,
                "largest k": float(k.max()),
                "elpd_loo": loo.elpd,
                "its standard error": loo.se,
                "effective parameters": loo.parameters,
            },
            passed=above <= TOLERATED * len(k),
            faults=["a few data move the global latents"],
            change="Look at those data; a likelihood with heavier tails resists them.",
            figure=khat(k, 0.7),
        )
