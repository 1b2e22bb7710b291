"""KL annealing, for any objective."""

from __future__ import annotations

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.contracts import Site, StochasticFunction, Trace, sites_of
from pyro_vae.objectives.base import Objective, ObjectiveLike, is_same
from pyro_vae.runtime.latent_pairs import is_local
from pyro_vae.validation import InvalidInput

__all__ = ["balance_levels", "check_warmup", "weigh_latents"]

KL_WEIGHT = "_kl_weight"  # left with every latent that is weighed
LEAST = 1e-30  # so that levels whose KL is zero weigh alike


class WeighLatents(Messenger):
    """Scale the log-probability of every latent, but not of observations and factors."""

    def __init__(self, weight: float | Tensor):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"]:
            msg["infer"] = msg["infer"] | {KL_WEIGHT: self.weight}
            # One object for all latents where nothing else scales them, known to be equal so.
            msg["scale"] = self.weight if is_same(msg["scale"], 1) else msg["scale"] * self.weight


def weigh_latents(fn: StochasticFunction, weight: float | Tensor) -> StochasticFunction:
    """Weigh the latents of a model or guide: KL annealing, for any objective.

    Apply it to both: Pyro's mean-field ELBO reads the guide's scale alone, and an unscaled prior
    under a scaled guide is no weight on the KL.
    """
    return WeighLatents(weight)(fn)


def balance_levels(terms: dict[str, Tensor], model: Trace) -> dict[str, Tensor]:
    r"""Weigh the levels of a hierarchy by how large their KLs are, while the KL is warmed up.

    .. math:: \gamma_l = \frac{\mathrm{KL}_l / D_l}{\frac1L \sum_m \mathrm{KL}_m / D_m}

    with D the number of entries of a level. A level that is hardly used pays little for its first
    nats, so that it is not switched off early. The weights have mean one, are those of the batch
    and take no gradient. At a weight of one on the KL they are all one.

    Args:
        terms: of each latent, such as minus its KL, in the shape of its plates.
        model: the trace of the model, weighed by `weigh_latents`; without it nothing changes.

    Raises:
        InvalidInput: unless two latents or more belong to each datum.

    Source: Vahdat and Kautz (2020), NVAE: A deep hierarchical variational autoencoder.
    """
    sites = sites_of(model)
    levels = [name for name in terms if is_local(sites[name])]
    if len(levels) < 2:
        raise InvalidInput(
            "balance",
            got="one level" if levels else "no latents that belong to a datum",
            expected="a hierarchy of two levels or more",
            fix="leave balance out, or train a LadderVAE (--program LadderVAE)",
        )
    weight = sites[levels[0]]["infer"].get(KL_WEIGHT)
    if not isinstance(weight, (float, Tensor)):
        return terms
    kls = [terms[name].detach().sum().abs() / sites[name]["value"].numel() for name in levels]
    relative = torch.stack(kls) + LEAST
    is_warm = torch.as_tensor(weight, device=relative.device) >= 1
    weights = torch.where(is_warm, 1.0, relative / relative.mean()).unbind()
    return terms | {name: terms[name] * each for name, each in zip(levels, weights)}


def check_warmup(objective: ObjectiveLike, warmup: int) -> None:
    """Raise `InvalidInput` if an objective balances levels during a warm-up that there is not."""
    if isinstance(objective, Objective) and objective.balance and not warmup:
        raise InvalidInput(
            "warmup",
            got="0 with an objective that balances the levels during the warm-up",
            expected="one epoch or more",
            fix="pass warmup=10 (--warmup 10), or leave balance out",
        )
