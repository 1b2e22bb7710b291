"""Whether a program takes no notice of a context."""

from __future__ import annotations

from pyro_vae.contracts import ProgramLike, context_of, known_by
from pyro_vae.programs.at_globals import AtGlobals
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.multimodal import MultimodalVAE
from pyro_vae.programs.program import Program
from pyro_vae.programs.refined import Refined

__all__ = ["is_unconditional"]


def is_unconditional(program: ProgramLike) -> bool:
    """Whether a program is known to do the same whatever its context is.

    A module with a model and a guide of its own may do anything with a context, so it is not.

    Example:
        >>> is_unconditional(vae)
        True
    """
    while isinstance(program, Refined | AtGlobals):
        program = program.program
    if isinstance(program, Program):
        return program.arguments is None and not any(program.takes_context)
    takes_none = context_of(program) is None and not known_by(program)
    return isinstance(program, Autoencoder | MultimodalVAE) and takes_none
