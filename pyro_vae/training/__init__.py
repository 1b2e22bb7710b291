"""Training: gradient steps of an objective over a data set, with schedules and checkpoints.

How a program is fitted lives here. Bounds are in `pyro_vae.objectives`, scores in
`pyro_vae.evaluation`.
"""

from pyro_vae.training.fit import fit
from pyro_vae.training.history import History, TrainingDiverged
from pyro_vae.training.schedules import Constant, Cosine, Exponential, Stages, Steps
from pyro_vae.training.svi import CompiledSVI

__all__ = [
    "CompiledSVI",
    "Constant",
    "Cosine",
    "Exponential",
    "History",
    "Stages",
    "Steps",
    "TrainingDiverged",
    "fit",
]
