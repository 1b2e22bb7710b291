"""Whether q of the global latents is their posterior given the data that it was fitted to."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from pyro_vae.checks.base import Check, Finding, Number, is_clear
from pyro_vae.checks.drawing import bars
from pyro_vae.checks.global_posterior import ROUNDS, Target, Weighted, adapted, target_of
from pyro_vae.checks.subject import CannotTell, DoesNotApply, Subject
from pyro_vae.evaluation.pareto import pareto_k, pareto_k_threshold
from pyro_vae.evaluation.widening import error_of_share
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.validation import counted

__all__ = ["GlobalPosterior"]

DRAWS, EACH = 600, 200  # of q, and of each round that follows
DATA, ROWS = 2000, 4_000_000  # the most data, and draws for each of them altogether
LOCAL = 20  # local draws at most
LEVELS = (0.5, 0.9)
TOLERATED = 0.05  # of a coverage
SHIFTED = 0.5  # posterior standard deviations, from which on q is called shifted
FEWEST = 100  # effective draws
NOISE = 0.5  # nats that local draws may add
MOST_BOUNDS = 0.25  # of the data may have local weights of too heavy a tail
FAR = 10.0  # nats further from the best point than the posterior's draws are


class GlobalPosterior(Check):
    r"""Intervals of q of each global latent hold as much of its posterior as they say.

    .. math:: \theta \sim p(\theta \mid x) \propto p(\theta) \prod_n \hat p(x_n \mid \theta)

    The posterior is that given the training data, on which q was fitted, by importance sampling
    that starts from q at several scales and adapts to its draws. Local latents are integrated out
    by their own importance weights. Where these have too heavy a tail, few draws count, or the
    global latents have more than 20 dimensions, it could not tell, but for a q that lies many nats
    below a point that was found.

    Source: Yao, Vehtari, Simpson and Gelman (2018), Yes, but Did It Work?: Evaluating Variational
    Inference; Cornuet et al. (2012), Adaptive Multiple Importance Sampling.
    """

    name = "q of the global latents"
    question = "Does q match the posterior?"
    calls, rows, least = DRAWS + (ROUNDS + 1) * EACH, ROWS, 0.25

    def suits(self, subject: Subject) -> bool:
        return subject.local is not subject.program

    def look(self, subject: Subject) -> Finding:
        if not self.suits(subject):
            raise DoesNotApply("the program is without global latents")
        train = subject.need_train()
        if len(train) > DATA:
            raise CannotTell(
                f"the posterior given {len(train):,} training data takes too long: of at most "
                f"{DATA:,}, it is looked at",
                f"Check a program that is trained on {DATA:,} data or fewer.",
            )
        each = max(20, round(self.size * EACH))
        local = ROWS // ((ROUNDS + 1) * EACH * len(train))
        local = 2 * max(1, min(local, LOCAL) // 2)
        with conditioned(subject.program, train, subject.seed, has_globals=True) as given:
            target = target_of(given, local, subject.seed)
            count = max(100, round(self.size * DRAWS))
            drawn = given.globals(count, subject.seed + 1)
            vectors = torch.stack([target.vector(draw.values) for draw in drawn])
            of_q = vectors.double().cpu().numpy()
            found = adapted(target, of_q, each, subject.seed)
            depth = np.median([np.mean(target.log_density(u)) for u in of_q[:50]])
            bounds = target.share_of_bounds(found.moments[0])
            if bounds > MOST_BOUNDS:
                raise CannotTell(
                    f"local weights have too heavy a tail for {bounds:.0%} of the data to say what "
                    "they tell of the global latents: q of the local ones is too far from its "
                    "posterior",
                    "Train q of the local latents longer, or make it richer.",
                )
        return _finding(target, of_q, found, float(found.log_density.max() - depth))


def _finding(target: Target, of_q: np.ndarray, found: Weighted, depth: float) -> Finding:
    """What weighted draws of the posterior say of draws of q (S, D)."""
    size, ess = of_q.shape[1], found.ess
    k = pareto_k(torch.from_numpy(found.log_weights)[:, None]).item()
    threshold = pareto_k_threshold(len(found.draws))
    numbers: dict[str, Number] = {
        "training data": len(target.given),
        "dimensions": size,
        "draws of q": len(of_q),
        "draws of the posterior": len(found.draws),
        "of them effective": ess,
        "Pareto k": k,
        "local draws": target.local_draws,
        "nats that local draws add": found.noise_spread,
        "nats from the best point to draws of q": depth,
    }
    if ess < FEWEST or k > threshold or found.noise_spread > NOISE:
        return _unsure(numbers, size, depth, found)
    mean, deviation = found.moments
    shift, ratio = (of_q.mean(0) - mean) / deviation, of_q.std(0) / deviation
    gaps, errors = _gaps(of_q, found)
    p = 2 * stats.norm.sf(np.abs(gaps) / errors)
    wrong = (p * p.size < 0.01) & (np.abs(gaps) > TOLERATED)
    level, d = np.unravel_index(int(p.argmin()), p.shape)
    share = LEVELS[level] + gaps[level, d]
    numbers |= {
        "the latent that fits least": target.names[d],
        "its shift in posterior standard deviations": float(shift[d]),
        "its standard deviation over the posterior's": float(ratio[d]),
        "standard error of the shift": float(np.hypot(ess**-0.5, ratio[d] / len(of_q) ** 0.5)),
        "standard error of the ratio": float(
            ratio[d] * np.sqrt(0.5 / ess + 0.5 / len(of_q))
        ),
        **{
            f"covered by its interval of {one:.0%}": float(one + gap)
            for one, gap in zip(LEVELS, gaps[:, d])
        },
        "latents that differ": int(wrong.any(0).sum()),
    }  # fmt: skip
    how = (
        "is shifted" if abs(shift[d]) > SHIFTED else "is too narrow" if ratio[d] < 1
        else "is too wide"
    )  # fmt: skip
    data = counted(len(target.given), "datum", "data")
    return Finding(
        means=f"the {LEVELS[level]:.0%} interval of q of {target.names[d]} holds {share:.1%} +- "
        f"{errors[level, d]:.1%} of its posterior given {data}: its "
        f"mean is off by {shift[d]:.2f} posterior standard deviations, and its own is "
        f"{ratio[d]:.2f} of the posterior's",
        numbers=numbers,
        p_value=min(1.0, float(p.min()) * p.size),
        matters=bool(wrong.any()),
        clear=is_clear(float(errors.max())),
        more="Raise --minutes: more draws would show a departure of ten points.",
        faults=[f"q of the global latents {how}"],
        change="Do not use intervals of these latents as they are: a posterior of full rank over "
        "them (AutoMultivariateNormal), longer training, or NUTS.",
        figure=bars(
            target.names,
            [float(each) for each in gaps[0]],
            f"what intervals of {LEVELS[0]:.0%} hold of the posterior, less {LEVELS[0]:.0%}",
            "difference of coverage",
        ),
    )


def _unsure(numbers: dict[str, Number], size: int, depth: float, found: Weighted) -> Finding:
    """Where weights say little: q fails only where it lies far below a point that was found."""
    expected = size / 2
    noisy = found.noise_spread > NOISE
    if not noisy and depth > expected + 3 * np.sqrt(size) + FAR:
        return Finding(
            f"draws of q lie {depth:.3g} nats below a point that was found, where those of the "
            f"posterior would lie about {expected:.3g} below it",
            numbers,
            passed=False,
            faults=["q of the global latents is far from their posterior"],
            change="Train longer; or a posterior of full rank over the global latents, or NUTS.",
        )
    why = (
        f"local draws add {found.noise_spread:.2g} nats of noise"
        if noisy
        else f"{found.ess:.0f} of {len(found.draws):,} draws count"
    )
    return Finding(
        f"importance weights of the global latents are of no use: {why}",
        numbers,
        change="Compare q with NUTS (pv.diagnostics.to_inference_data with sampler=NUTS()) on "
        "few data.",
    )


def _gaps(of_q: np.ndarray, found: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """How much more of the posterior intervals of q hold than they say (L, D), with errors."""
    gaps, errors = (np.empty((len(LEVELS), of_q.shape[1])) for _ in range(2))
    for i, level in enumerate(LEVELS):
        low, high = np.quantile(of_q, [(1 - level) / 2, (1 + level) / 2], axis=0)
        inside = (found.draws >= low) & (found.draws <= high)
        share = found.weights @ inside
        spread = np.sqrt((found.weights**2) @ (inside - share) ** 2)
        least = [error_of_share(float(each), round(found.ess)) for each in share]
        gaps[i] = share - level
        errors[i] = np.hypot(
            np.maximum(spread, least), np.sqrt(level * (1 - level) / len(of_q))
        )  # fmt: skip
    return gaps, errors
