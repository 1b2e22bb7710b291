"""Whether the latent is used."""

from __future__ import annotations

import math

import torch
from pyro import validation_enabled
from scipy import stats
from torch import Tensor

from pyro_vae.checks.base import Check, Finding
from pyro_vae.checks.drawing import bars
from pyro_vae.checks.questions.information import FEWEST, Information
from pyro_vae.checks.subject import MOST, CannotTell, Subject
from pyro_vae.evaluation.active import active_units
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.latent_pairs import is_local, latent_sites
from pyro_vae.runtime.latents import in_rows, out_of_rows
from pyro_vae.runtime.simulation import Template

__all__ = ["ActiveUnits"]

DRAWS, FEW_DATA = 50, 500
MOVES = 0.1  # a share of a latent's variance that is not nothing
LEAST = 0.01  # nats that x tells of a draw of z, and the share of an active unit
SHOWN = 30


class ActiveUnits(Check):
    r"""Some latent dimension moves with the data.

    It is measured by the share of its variance that is between data,
    :math:`\mathrm{Var}_x \mathrm{E}_q[z_d] / \mathrm{Var}\, z_d`, which has no unit, as
    `pyro_vae.evaluation.active.active_units` does.

    Where none does, the decoder says why. If it uses z on data of its own, q ignores x; if it does
    not, the latent has collapsed.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.
    """

    name = "active units"
    question = "Is the latent used?"
    calls, rows = 10, MOST * (DRAWS + 6)

    def look(self, subject: Subject) -> Finding:
        count = len(subject.few)
        if count < 2:
            raise CannotTell("of a single datum nothing moves", "Check on more data.")
        # So many that their noise alone makes no unit active, however few the data.
        draws = max(DRAWS, math.ceil(FEW_DATA * math.sqrt(2 / (count - 1))))
        units = active_units(subject.local, subject.few, draws, threshold=LEAST, seed=subject.seed)
        share = torch.cat([value.flatten() for value in units.share.values()])
        active = units.active
        names = [f"{name}[{i}]" for name, v in units.share.items() for i in range(v.numel())]
        nats, error = _nats_used(subject)
        used = nats > max(LEAST, 3 * error)
        order = share.argsort(descending=True)[:SHOWN].tolist()
        means = f"{active} of {units.total} latent dimensions move with the data"
        # With probability 0.001 the variance over all data is larger than that of a few by this.
        larger = (count - 1) / stats.chi2.ppf(0.001, count - 1)
        may_move = larger * max(share.max().item(), LEAST / 3) > MOVES
        informs = not active and count >= FEWEST and Information().look(subject).passed
        if informs:  # a posterior of two mirrored modes has one mean for all data
            means += ", but draws of q do: its spread or its modes change"
        elif not active:
            means += (
                f", though x tells {nats:.2f} nats of z in data of the model's own"
                if used
                else ", and the decoder does not use them either"
            )
        return Finding(
            means=means,
            numbers={
                "active dimensions": active,
                "of": units.total,
                "threshold of the share": LEAST,
                "largest share of a variance that is between data": share.max().item(),
                "nats that a simulated x tells of its z": nats,
                "its standard error": error,
            },
            passed=True if active or informs else None if may_move else False,
            faults=["q ignores x" if used else "the latent has collapsed"],
            change="Check on more data: that so few hardly differ may be by chance."
            if may_move
            else "Let the encoder see x and learn (check its inputs and its learning rate)."
            if used
            else "Warm up the KL (--warmup), use free bits, or a weaker decoder.",
            figure=bars(
                [names[i] for i in order],
                [share[i].item() for i in order],
                "share of each latent's variance that is between data",
                "share",
            ),
        )


def _nats_used(subject: Subject) -> tuple[float, float]:
    r"""Estimate E log p(x | z) less E log p(x | z') of simulated x, at its own z and at another's.

    Its standard error comes with it.
    """
    program = subject.local
    template = Template.of(program, len(subject.few), None, subject.few)
    with evaluating(program, subject.seed), validation_enabled(False):
        trace, x = template.draw(program)
        given = Conditioned.of(program, x, template.context, scored=False)
        drawn = given.draw(given.model, 1)
        own = {
            name: in_rows(site["value"][None], given.plates)
            for name, site in latent_sites(trace).items()
            if name in drawn and is_local(site)
        }

        def rest(rows: dict[str, Tensor]) -> Tensor:
            at = {name: out_of_rows(value, given.plates) for name, value in rows.items()}
            return given.log_density(given.model, at)[1][0].double()

        nats = rest(own) - rest({name: value.roll(1, dims=1) for name, value in own.items()})
    return nats.mean().item(), (nats.std() / math.sqrt(len(nats))).item()
