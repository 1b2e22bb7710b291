r"""Objectives: bounds as Pyro ELBOs that never make the host wait for the device.

There are two kinds. A bound of the first kind is a sum over sites: each observed site adds its
log-probability, each latent what the class says of it, and sites that cannot be reparametrised get
the score function's gradient. A bound of the second kind is a function of the log-weights of
`pyro_vae.runtime.traces`, of K draws for each datum. Losses are summed over the data of the batch,
in nats, as Pyro's are. KL annealing (`pyro_vae.objectives.kl_weight`) serves all.

Only what is maximised in training lives here. Gradient steps are in `pyro_vae.training`, scores in
`pyro_vae.evaluation`.
"""

from pyro_vae.objectives.elbo import ELBO, AnalyticELBO, FreeBits
from pyro_vae.objectives.enumeration import EnumeratedELBO
from pyro_vae.objectives.importance import IWAE
from pyro_vae.objectives.path_derivative import DReG, StickingTheLanding
from pyro_vae.objectives.tcvae import BetaTCVAE

__all__ = [
    "ELBO",
    "AnalyticELBO",
    "FreeBits",
    "BetaTCVAE",
    "IWAE",
    "StickingTheLanding",
    "DReG",
    "EnumeratedELBO",
]
