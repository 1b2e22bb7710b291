"""Programs: Pyro models and guides as modules.

`pyro.sample` and `pyro.plate` stand here and nowhere else in the library.

The contract of a program: an `nn.Module` with ``model(x, context=None)``, ``guide(x,
context=None)`` and ``event_shape``; one plate named ``"data"``, the local latents inside it and
global ones, if any, outside; the observed site named ``"x"``. Its parameters are ordinary
``nn.Parameter``s, never in Pyro's global store, so two programs in one process never touch each
other. Everything that trains, evaluates, draws or inspects takes a program and nothing more
special.
"""

# ruff: noqa: F401  (what programs are run with is found here, outside of __all__)
from pyro_vae.contracts import ProgramLike
from pyro_vae.programs.at_globals import AtGlobals
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.hierarchical import HierarchicalVAE
from pyro_vae.programs.ladder import LadderVAE
from pyro_vae.programs.multimodal import MultimodalVAE
from pyro_vae.programs.parts import particles
from pyro_vae.programs.program import Program, as_program
from pyro_vae.programs.refined import Refined, ShiftParameters, parameters_of
from pyro_vae.programs.semi_supervised import SemiSupervisedVAE
from pyro_vae.programs.store import Store
from pyro_vae.programs.unconditional import is_unconditional
from pyro_vae.programs.vae import VAE

__all__ = [
    "VAE",
    "HierarchicalVAE",
    "LadderVAE",
    "MultimodalVAE",
    "Program",
    "Refined",
    "SemiSupervisedVAE",
]
