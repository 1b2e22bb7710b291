"""The score of validation data between the epochs of a training run."""

from __future__ import annotations

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.importance import log_joint, validation_elbo
from pyro_vae.evaluation.log_weights import Passes
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.runtime.settings import Compile, Settings

__all__ = ["Validation"]


class Validation:
    """The mean ELBO of validation data in nats, from one draw for each of them.

    The random numbers are the same each time: two epochs differ by their weights alone.

    Args:
        program: the program that is trained.
        data: the validation data.
        seed: of the draws.
        epochs: how often they are scored.
    """

    def __init__(self, program: ProgramLike, data: Dataset, seed: int, epochs: int):
        self.program, self.data, self.seed = program, data, seed
        self.compile: Compile = "off"
        self.passes = Passes(epochs)

    @property
    def is_compiled(self) -> bool | None:
        """Whether a graph computes the score; ``None`` before the first one."""
        return self.passes.is_compiled

    def score(self, *, looked_at: bool) -> float:
        """The score by the weights as they are; whether the program was scored before."""
        settings = Settings(self.seed, self.compile)
        try:
            return validation_elbo(
                self.program, self.data, settings, looked_at=looked_at, passes=self.passes
            )
        except NoBound:
            fixed = at_globals(self.program, self.data, self.seed)
            return log_joint(fixed, self.data, seed=self.seed).mean
