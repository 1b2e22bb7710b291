"""Whether K draws are enough for the log p(x) that is reported."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vae.checks.base import CLEAR, Check, Finding
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.subject import Subject, seeded_rows
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.importance import importance_weights
from pyro_vae.evaluation.importance_score import convergence, share_of_bounds, summarize
from pyro_vae.evaluation.proposals import Defensive, Guide, GuideProposal, Proposal, Widened
from pyro_vae.validation import InvalidInput

__all__ = ["Draws"]

DATA = 50
MORE = 10  # times as many draws
LEAST, MOST = 500, 20_000  # draws that K is held against
TOLERATED = 0.1  # nats
FACTORS = (1.3, 2.0, 3.0)  # by which the proposal is widened
MOST_BOUNDS = 0.1  # of the data may have weights of too heavy a tail


class Draws(Check):
    r"""log p(x) from K draws is that from many more, or from a wider proposal: its bias is small.

    .. math:: \mathrm{E} \log \frac1K \sum_k w_k \le \log p(x)

    Means of disjoint groups of K of the same draws estimate the left side, by the proposal that the
    score was made with. The right side is that from more draws, or from draws of the proposal
    widened, by whichever factor leaves the most effective draws, where it is clearly higher or has
    fewer heavy tails: each is a lower bound. What the logarithm still takes from it is added,

    .. math:: \frac{1}{2 K'} \Big( \frac{K'}{\mathrm{ESS}} - 1 \Big),

    and where its weights have too heavy a tail, log p(x) may be higher: then the check fails where
    the bias is too large already, and cannot tell otherwise.

    Source: Burda, Grosse and Salakhutdinov (2016); Nowozin (2018).
    """

    name = "draws K of the reported log p(x)"
    question = "Is the score honest?"
    calls, rows = 20 * (2 + len(FACTORS)), DATA * (2 * MORE * 1000 + len(FACTORS) * LEAST)

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
        proposal = subject.claims.proposal or Guide()
        weights = _weights(subject, few, total, proposal)
        whole, wider = summarize(weights), _widened(subject, few, proposal)
        groups = weights[: total // k * k].unflatten(0, (-1, k))
        parts = (groups.logsumexp(1) - math.log(k)).mean(0)  # (N,)
        name, best = f"that from {total}", whole
        if wider is not None:
            wide = summarize(_weights(subject, few, total, wider))
            more = wide.values + wide.bias - whole.values - whole.bias
            is_higher = more.mean() > 2 * more.std() / math.sqrt(len(more))
            if is_higher or share_of_bounds(wide) < share_of_bounds(whole):
                name, best = f"that from {total} of a proposal {wider.factor:g} times as wide", wide
        bias = best.values + best.bias - parts
        error = (bias.std() / math.sqrt(len(bias))).item()
        low, bounds = bias.mean().item(), share_of_bounds(best)
        passed = _passed(low, error, bounds)
        of = "" if isinstance(proposal, Guide) else f" of {proposal}"
        heavy = f", which is a lower bound itself for {bounds:.0%} of the data" if bounds else ""
        return Finding(
            means=f"log p(x) from K = {k} draws{of} lies {abs(low):.3g} +- {error:.2g} nats "
            f"{'above' if low < 0 else 'below'} {name}{heavy}",
            numbers={
                "draws K": k,
                "held against": total,
                "data": len(few),
                "bias in nats": low,
                "its standard error over data": error,
                "of more draws alone": (whole.values - parts).mean().item(),
                "widened by": wider.factor if wider is not None and best is not whole else None,
                "share of data with too heavy a tail": bounds,
                "tolerated": TOLERATED,
            },
            passed=passed,
            faults=["K is too small"],
            change=_change(k, error, passed),
            figure=on_axes(lambda ax: _draw(ax, weights)),
        )


def _passed(low: float, error: float, bounds: float) -> bool | None:
    """Whether a bias is small; ``None`` where nothing says how large it is."""
    if math.isnan(error):
        return None
    if low > TOLERATED and low > CLEAR * error:
        return False
    return True if bounds <= MOST_BOUNDS else None


def _change(k: int, error: float, passed: bool | None) -> str:
    if math.isnan(error):
        return "Check on more data: one has no error over data."
    if passed is None:
        return (
            "Give log p(x) as a lower bound, or evaluate with --proposal Widened "
            "--proposal.of Refitted, or by pyro-vae anneal."
        )
    return f"Evaluate with --num-samples {10 * k} or more, or with --proposal Widened."


def _weights(subject: Subject, few: Dataset, count: int, proposal: Proposal) -> Tensor:
    """So many log-weights (K, N) of a few data."""
    drawn = importance_weights(subject.local, few, count, proposal=proposal, seed=subject.seed)
    return drawn.double()


def _widened(subject: Subject, few: Dataset, proposal: Proposal) -> Widened | None:
    """The proposal widened, so that most draws count; ``None`` where it cannot be widened."""
    of = None if isinstance(proposal, Guide) else proposal
    if isinstance(of, Defensive):
        of = of.of
    if of is not None and not isinstance(of, GuideProposal):
        return None
    best, most = None, -math.inf
    for factor in FACTORS:
        wider = Widened(factor, of=of)
        try:
            ess = summarize(_weights(subject, few, LEAST, wider)).ess.mean().item()
        except InvalidInput:  # a latent on a sphere, or none that is continuous
            return None
        if ess > most:
            best, most = wider, ess
    return best


def _draw(ax, weights) -> None:
    scores = convergence(weights)
    ax.plot([s.num_samples for s in scores], [s.mean for s in scores], ".-")
    ax.set(xscale="log", xlabel="draws K", ylabel="mean log p(x), nats", title="convergence in K")
