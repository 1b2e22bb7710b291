"""What each level of latents holds."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data
from pyro_vae.distributions import representative_of
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.observed import observed_of
from pyro_vae.validation import check_count

__all__ = ["resample_levels"]


def resample_levels(
    program: ProgramLike, data: Data, num_samples: int = 4, *, seed: int = 0
) -> dict[str, Tensor]:
    r"""Draw one level of latents anew from its prior, the others as the guide found them.

    .. math:: \mathrm{E}[x \mid z_1, \dots, z_l', \dots, z_L], \quad z \sim q(z \mid x), \quad z_l'
              \sim p(z_l \mid z_{l+1}, \dots)

    What changes between these is what level l holds given those above it. The levels below keep
    their values, so that they show no change of their own.

    Args:
        program: any program of one observed site; a single latent has one level.
        data: a few data, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws K of each level, for one draw of the others for each datum.
        seed: seed of the draws; the caller's random state is left as it was.

    Returns:
        For each latent site the mean of p(x | z), or its mode where it has none, (K, N, \*event).

    Raises:
        InvalidInput: on unusable data or K < 1.

    Source: Vahdat and Kautz (2020), NVAE, for the fixed and the resampled scales.

    Example:
        >>> resample_levels(vae, torch.zeros(3, 1, 8, 8), 2)["z"].shape
        torch.Size([2, 3, 1, 8, 8])
    """
    check_count("num_samples", num_samples)
    with conditioned(program, data, seed, scored=False) as given:
        drawn = given.draw(given.guide, 1)
        kept = {name: value.expand(num_samples, *value.shape[1:]) for name, value in drawn.items()}
        found = {}
        for name in drawn:
            others = {site: value for site, value in kept.items() if site != name}
            trace = given.trace(given.joint, num_samples, others)
            found[name] = representative_of(observed_of(trace)["fn"])
    return found
