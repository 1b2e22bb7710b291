"""Whether K draws are enough for the log p(x) that is reported."""

from __future__ import annotations

import math

from pyro_vae.checks.base import CLEAR, Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject, seeded_rows
from pyro_vae.evaluation.importance import importance_weights
from pyro_vae.evaluation.importance_score import convergence, summarize

__all__ = ["Draws"]

DATA = 50
MORE = 10  # times as many draws
LEAST, MOST = 500, 20_000  # draws that K is held against
TOLERATED = 0.1  # nats


class Draws(Check):
    r"""log p(x) from K draws is that from many more: its bias is small.

    .. math:: \mathrm{E} \log \frac1K \sum_k w_k \le \log p(x)

    Means of disjoint groups of K of the same draws estimate the left side.

    Source: Burda, Grosse and Salakhutdinov (2016); Nowozin (2018).
    """

    name = "draws K of the reported log p(x)"
    question = "Is the score honest?"
    calls, rows = 20, DATA * MORE * 1000

    def look(self, subject: Subject) -> Finding:
        subject.need_all_values()
        few, k = seeded_rows(subject.few, DATA, subject.seed), subject.num_samples
        total = min(max(MORE * k, LEAST), MOST)
        if total < 2 * k:
            return Finding(
                f"K = {k} is too large to be held against more draws",
                {"draws K": k},
                change=f"Score with --num-samples {MOST // 2} or fewer, and check again.",
            )
        weights = importance_weights(subject.local, few, total, seed=subject.seed).double()
        whole = summarize(weights).values
        groups = weights[: total // k * k].unflatten(0, (-1, k))
        parts = groups.logsumexp(1) - math.log(k)  # (groups, N)
        bias = whole - parts.mean(0)
        error = (bias.std() / math.sqrt(len(bias))).item()
        low = bias.mean().item()
        return Finding(
            means=f"log p(x) from K = {k} draws lies {abs(low):.3g} +- {error:.2g} nats "
            f"{'above' if low < 0 else 'below'} that from {total}",
            numbers={
                "draws K": k,
                "held against": total,
                "data": len(few),
                "bias in nats": low,
                "its standard error over data": error,
                "tolerated": TOLERATED,
            },
            passed=None if math.isnan(error) else not (low > TOLERATED and low > CLEAR * error),
            faults=["K is too small"],
            change="Check on more data: one has no error over data."
            if math.isnan(error)
            else f"Evaluate with --num-samples {10 * k} or more, or with --proposal Widened.",
            figure=on_axes(lambda ax: _draw(ax, weights)),
        )


def _draw(ax, weights) -> None:
    scores = convergence(weights)
    ax.plot([s.num_samples for s in scores], [s.mean for s in scores], ".-")
    ax.set(xscale="log", xlabel="draws K", ylabel="mean log p(x), nats", title="convergence in K")
