"""The global latents of a program's parts, drawn before its data plate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pyro
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import WithGlobals

__all__ = ["global_latents"]


@contextmanager
def global_latents(program: nn.Module, *, prior: bool) -> Iterator[None]:
    r"""Draw the global latents of all parts that have any, which use them inside.

    A program of your own whose networks are `pyro_vae.networks.Bayesian` puts this around the plate
    of its model, and of its guide.

    Args:
        program: the module whose parts they are; the sites are named by their paths in it.
        prior: from their prior, in the model; else from their guide.

    Example:
        >>> from pyro.distributions import Normal
        >>> class Own(torch.nn.Module):
        ...     event_shape = (3,)
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = pv.networks.Bayesian(torch.nn.Linear(2, 3))
        ...
        ...     def model(self, x, context=None):
        ...         with global_latents(self, prior=True), pyro.plate("data", len(x), dim=-1):
        ...             z = pyro.sample("z", Normal(torch.zeros(2), 1.0).to_event(1))
        ...             pyro.sample("x", Normal(self.net(z), 1.0).to_event(1), obs=x)
        ...
        ...     def guide(self, x, context=None):
        ...         with global_latents(self, prior=False), pyro.plate("data", len(x), dim=-1):
        ...             pyro.sample("z", Normal(x[:, :2], 1.0).to_event(1))
        >>> pv.elbo(Own(), torch.zeros(5, 3), num_samples=5).global_kl > 0
        True
    """
    parts = [
        (path, part) for path, part in program.named_modules() if isinstance(part, WithGlobals)
    ]
    try:
        for path, part in parts:
            part.drawn = part.draw(partial(_draw, path), prior=prior)
        yield
    finally:
        for _, part in parts:
            part.drawn = None


def _draw(path: str, name: str, distribution: Distribution) -> Tensor:
    """Draw a latent of all data, all of whose dimensions are its event's."""
    density = as_pyro(distribution)
    return pyro.sample(f"{path}.{name}", density.to_event(len(density.batch_shape)))
