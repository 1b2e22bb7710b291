"""How much the latent tells of the data."""

from __future__ import annotations

import math

from pyro_vae.checks.base import Check, Finding, exceeds
from pyro_vae.checks.subject import CannotTell, Subject, seeded_rows
from pyro_vae.evaluation.aggregate import aggregate_posterior

__all__ = ["Information"]

DATA, DRAWS, FEWEST = 200, 4, 10
LEAST = 0.05  # nats


class Information(Check):
    r"""The latent tells of the data: their mutual information under q is not nothing.

    .. math:: \frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p) = I_q(x; z) + \mathrm{KL}(q(z)
              \,\|\, p)

    It is at most log N, of so many data as were looked at.

    Source: Hoffman and Johnson (2016), ELBO Surgery.
    """

    name = "mutual information"
    question = "Is the latent used?"
    calls, rows = 10, DATA * DATA * DRAWS

    def look(self, subject: Subject) -> Finding:
        few = seeded_rows(subject.few, DATA, subject.seed)
        if len(few) < FEWEST:
            raise CannotTell(
                f"{len(few)} data are too few: a latent tells log N nats at most",
                f"Check on {FEWEST} data or more.",
            )
        parts = aggregate_posterior(subject.local, few, DRAWS, seed=subject.seed)
        nats, error = parts.mutual_information, parts.errors["mutual_information"]
        assert isinstance(error, float)
        ceiling = " (as much as so few data can show)" if nats > 0.95 * math.log(len(few)) else ""
        return Finding(
            means=f"a draw of q tells {nats:.2f} +- {error:.1g} nats of its datum{ceiling}",
            numbers={
                "mutual information": nats,
                "its standard error": error,
                "at most": math.log(len(few)),
                "KL of the aggregate posterior to the prior": parts.marginal_kl,
                "KL of q to the prior": parts.kl,
                "data": len(few),
            },
            passed=exceeds(nats, error, LEAST),
            faults=["the latent carries no information"],
            change="Warm up the KL (--warmup), use free bits, or a weaker decoder."
            if nats < LEAST
            else "Check on more data: so few leave it open whether the latent tells anything.",
        )
