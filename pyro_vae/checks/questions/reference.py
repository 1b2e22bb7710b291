"""q beside draws of NUTS on a few data."""

from __future__ import annotations

from scipy import stats

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject, seeded_rows
from pyro_vae.diagnostics.inference_data import LARGEST_R_HAT, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import compare_posteriors
from pyro_vae.plotting import plot_comparison

__all__ = ["Reference"]

DATA, DRAWS, CHAINS, WARMUP = 3, 400, 2, 150
TOLERATED = 0.1  # of the accuracy above a half


class Reference(Check):
    """A classifier cannot tell draws of q from draws of NUTS, the reference, datum by datum.

    Chains start at draws of the prior, so that they can meet a mode that q misses.

    Source: Hoffman and Gelman (2014) for NUTS; Lopez-Paz and Oquab (2017) for the test.
    """

    name = "q against NUTS"
    question = "Does q match the posterior?"
    calls, rows = DATA * (CHAINS * WARMUP + DRAWS) * 8, 0

    def look(self, subject: Subject) -> Finding:
        few, seed = seeded_rows(subject.few, DATA, subject.seed), subject.seed
        chains = to_inference_data(
            subject.local, few, DRAWS, sampler=NUTS(CHAINS, WARMUP), seed=seed
        )
        r_hat = float(chains["diagnostics"]["r_hat"].max())
        guide = to_inference_data(subject.local, few, DRAWS, seed=seed)
        found = compare_posteriors(guide, chains, seed=seed)
        worst = max(test.z_score for test in found.tests)
        p_value = min(1.0, len(found.tests) * float(stats.norm.sf(worst)))
        largest = float(found.accuracy.max())
        met = not r_hat > LARGEST_R_HAT
        numbers = {
            "data": len(few),
            "largest accuracy of a classifier": largest,
            "its standard error": found.tests[int(found.accuracy.argmax())].se,
            "mean accuracy": float(found.accuracy.mean()),
            "mean distance in standard deviations": float(found.wasserstein.mean()),
            "that of two halves of NUTS": float(found.noise.mean()),
            "largest R-hat": r_hat,
        }
        figure = on_axes(lambda ax: plot_comparison(found, ax))
        means = (
            f"a classifier tells draws of q from those of NUTS with accuracy {largest:.2f} at "
            "most, where 0.5 is no difference"
        )
        differs = largest - 0.5 > TOLERATED and p_value < 0.01
        if not met and not differs:
            means = f"the chains of NUTS did not meet (R-hat {r_hat:.2f}), so they are no reference"
            return Finding(means, numbers, figure=figure)
        apart = "" if met else f"; chains did not meet (R-hat {r_hat:.2f}): there are several modes"
        return Finding(
            means=means + apart,
            numbers=numbers,
            p_value=p_value,
            matters=largest - 0.5 > TOLERATED,
            faults=["q is not the posterior" if met else "q misses part of the posterior"],
            change="Use a more flexible posterior; where chains do not meet, one with several "
            "modes.",
            figure=figure,
        )
