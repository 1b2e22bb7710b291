"""The program of a prior, for priors that use another of its components."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_vae.contracts import Posterior, ProgramOfParts
from pyro_vae.validation import InvalidInput

__all__ = ["Owner", "codebook_of"]


@dataclass
class Owner:
    """The program that a prior is bound to, asked for its parts at each use.

    A dataclass keeps the program from being registered as a part of the prior, which would save
    everything twice. A copy of the program holds a copy of its prior, bound to that copy.

    Args:
        prior: the prior's name, for errors.
        program: the program; none until the prior is bound.
    """

    prior: str
    program: ProgramOfParts | None = None

    @property
    def posterior(self) -> Posterior:
        """The program's posterior; `InvalidInput` outside a program."""
        if self.program is None:
            raise InvalidInput(
                self.prior,
                got="a prior outside a program",
                expected="a posterior to share",
                fix="make it the prior of a pyro_vae.VAE, or call bind(program)",
            )
        return self.program.posterior

    @property
    def codebook(self) -> Tensor:
        """The entries (V, D) of the program's codebook; `InvalidInput` if there is none."""
        codebook = codebook_of(self.posterior)
        if codebook is None:
            raise InvalidInput(
                "prior",
                got=f"{self.prior} with a posterior {type(self.posterior).__name__}",
                expected="a posterior that has a codebook",
                fix="choose a Codebook posterior, or another prior",
            )
        return codebook


def codebook_of(posterior: object) -> Tensor | None:
    """The codebook buffer of a posterior; ``None`` for a posterior without one."""
    return getattr(posterior, "codebook", None)
