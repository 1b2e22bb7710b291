"""Training: gradient steps of an objective over a data set, with schedules and checkpoints.

How a program is fitted lives here. Bounds are in `pyro_vae.objectives`, scores in
`pyro_vae.evaluation`.
"""

from pyro_vae.training.callbacks import Callback, EarlyStopping, LogLikelihood, Training
from pyro_vae.training.fit import fit
from pyro_vae.training.history import History, TrainingDiverged
from pyro_vae.training.schedules import Constant, Cosine, Exponential, Stages, Steps
from pyro_vae.training.svi import CompiledSVI
from pyro_vae.training.trackers import MLflow, TensorBoard, WeightsAndBiases

__all__ = [
    "Callback",
    "CompiledSVI",
    "Constant",
    "Cosine",
    "EarlyStopping",
    "Exponential",
    "History",
    "LogLikelihood",
    "MLflow",
    "Stages",
    "Steps",
    "TensorBoard",
    "Training",
    "TrainingDiverged",
    "WeightsAndBiases",
    "fit",
]
