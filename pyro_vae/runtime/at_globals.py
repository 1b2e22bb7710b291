"""A program at one draw of its global latents."""

from __future__ import annotations

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data
from pyro_vae.programs import as_program
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.traces import find_plates

__all__ = ["at_globals"]


def at_globals(program: ProgramLike, data: Data, seed: int = 0) -> ProgramLike:
    r"""Draw a program's global latents from its guide, and put the program there.

    .. math:: \theta \sim q(\theta): \quad p(x, z \mid \theta), \quad q(z \mid x, \theta)

    The result is a program of local latents: `pyro_vae.ais`, NUTS, figures and all else take it.

    Args:
        program: any program; one without global latents is returned as it is.
        data: a data set, a tensor x (N, \*event), or a pair (x, context); what is drawn does not
            depend on them.
        seed: seed of the draw.

    Raises:
        InvalidInput: on unusable data.

    Example:
        >>> pv.at_globals(vae, torch.zeros(3, 1, 8, 8)) is vae
        True
    """
    program = as_program(program)
    with evaluating(program, seed):
        args = checked_data(program, data)
        plates = find_plates(program, *args, scored=False)
        if not plates.globals:
            return program
        return Conditioned(program, *args, plates).at_one_draw(seed).program
