"""What lies between the ELBO and log p(x): the family of q, and the encoder."""

from __future__ import annotations

import warnings

from pyro_vae.checks.base import CLEAR, Check, Finding, is_clear
from pyro_vae.checks.drawing import bars
from pyro_vae.checks.subject import Subject, seeded_rows
from pyro_vae.evaluation.decomposition import decompose, inference_gap
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.evaluation.proposals import Refitted

__all__ = ["Gap"]

DATA, DRAWS, STEPS = 50, 300, 150
TOLERATED, SHARE, MOST = 0.1, 0.1, 10.0  # nats; of the KL of q to the prior, up to so many nats
MOST_BOUNDS = 0.5  # of the data may have a gap of which only the least is known: docs/scores.md


class Gap(Check):
    r"""Little is lost between the ELBO and log p(x), by the family of q or by its encoder.

    .. math:: \log p(x) - \mathrm{ELBO} = (\log p(x) - \mathrm{ELBO}(q^*)) + (\mathrm{ELBO}(q^*) -
              \mathrm{ELBO}(q))

    The first is the approximation gap of the best q* of the family, the second the amortisation
    gap of the encoder.

    Source: Cremer, Li and Duvenaud (2018), Inference Suboptimality in Variational Autoencoders.
    """

    name = "inference gap"
    question = "Does q match the posterior?"
    calls, rows = 3 * STEPS * 2, DATA * (STEPS * 50 + 2 * DRAWS)
    least = 0.2

    def look(self, subject: Subject) -> Finding:
        subject.need_real_latents(or_discrete=True)
        subject.need_all_values()
        few = seeded_rows(subject.few, DATA, subject.seed)
        steps = round(self.size * STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableEstimate)  # it is said below
            gap = inference_gap(
                subject.local, few, DRAWS, refinement=Refitted(steps=steps), seed=subject.seed
            )
        kl = decompose(subject.local, few, 20, seed=subject.seed)["kl"].mean
        tolerated = TOLERATED + min(SHARE * kl, MOST)
        parts = {"approximation": gap.approximation, "amortisation": gap.amortization}
        errors = {name: part.se for name, part in parts.items()}
        # Fewer steps put a part of the encoder's loss down to the family: what the encoder loses is
        # then a lower bound, and only the two together say more.
        is_whole, total = self.size == 1, gap.inference.mean
        limits = {
            "approximation": tolerated if is_whole else 2 * tolerated - gap.amortization.mean,
            "amortisation": tolerated,
        }
        too_large = [
            name for name, part in parts.items() if part.mean - CLEAR * errors[name] > limits[name]
        ]
        if not is_whole and "amortisation" in too_large:
            too_large = ["amortisation"]  # the least that the encoder loses is enough to know
        faults = {
            "approximation": "the family of q is too small"
            if is_whole
            else "the family of q is too small, or its encoder is off",
            "amortisation": "the encoder is off",
        }
        known = (is_whole or total <= tolerated) and is_clear(max(errors.values()), tolerated)
        # Of data with heavy weights log p(x) is likely larger, and so is the gap.
        at_least = gap.inference.is_bound.double().mean().item()
        known = known and at_least <= MOST_BOUNDS
        passed = not too_large if too_large or known else None
        return Finding(
            means=f"q loses {total:.2g} nats: {gap.approximation.mean:.2g} +- "
            f"{errors['approximation']:.1g} by its family and {gap.amortization.mean:.2g} +- "
            f"{errors['amortisation']:.1g} by its encoder, of {len(few)} data with "
            f"{steps} steps each; up to {tolerated:.2g} each is little"
            + (f"; of {at_least:.0%} of them it is at least so much" if at_least else ""),
            numbers={
                "data": len(few),
                "steps": steps,
                "share whose gap may be larger": at_least,
                "inference gap": total,
                "approximation gap": gap.approximation.mean,
                "its standard error": errors["approximation"],
                "amortisation gap": gap.amortization.mean,
                "standard error of that": errors["amortisation"],
                "KL of q to the prior": kl,
                "tolerated": tolerated,
            },
            passed=passed,
            faults=[faults[name] for name in too_large],
            change="Raise --minutes: more steps and data tell the encoder's loss from the family's."
            if passed is None
            else "Where the family loses: a richer posterior, such as Flow. Where the encoder "
            "loses: a larger encoder, longer training, or the program Refined.",
            figure=bars(
                [f"{name} gap" for name in parts],
                [part.mean for part in parts.values()],
                "nats between the ELBO and log p(x)",
                "nats",
            ),
        )
