"""How the programs of Burda, Grosse and Salakhutdinov's code start, and its Adam.

Read in https://github.com/yburda/iwae. Recipes name these by import path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import pyro_vae as pv

__all__ = ["VAE", "Adam", "HierarchicalVAE"]

UNIT = 0.5413  # whose softplus is 1


class VAE(pv.VAE):
    """A VAE that starts as theirs: weights by Glorot's rule, pixels at the data's mean."""

    started: Tensor

    def __init__(
        self, prior: Any, likelihood: Any, posterior: Any, context: nn.Module | None = None
    ):
        super().__init__(prior, likelihood, posterior, context)
        start_weights(self, [self.posterior])
        self.register_buffer("started", torch.tensor(False))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the pixels' biases once, from data (N, 1, 28, 28)."""
        super().initialize(x, context)
        start_pixels(self, x)


class HierarchicalVAE(pv.HierarchicalVAE):
    """A hierarchy that starts as theirs, see `VAE`."""

    started: Tensor

    def __init__(
        self, priors: Any, likelihood: Any, posteriors: Any, context: nn.Module | None = None
    ):
        super().__init__(priors, likelihood, posteriors, context, inference="bottom_up")
        start_weights(self, [*self.priors[:-1], *self.posteriors])
        self.register_buffer("started", torch.tensor(False))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the pixels' biases once, from data (N, 1, 28, 28)."""
        super().initialize(x, context)
        start_pixels(self, x)


class Adam(torch.optim.Adam):
    r"""Their Adam: a first decay of 0.99, an eps of 10^-4, second moments that start at 1.

    They sum gradients over a batch, where pyro_vae takes their mean: eps and the second moments are
    divided by its size and by the square of it.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        batch_size: int = 20,
        fused: bool | None = None,
    ):
        super().__init__(params, lr, betas=(0.99, 0.999), eps=1e-4 / batch_size, fused=fused)
        for group in self.param_groups:
            for parameter in group["params"]:
                step = torch.zeros((), device=parameter.device if fused else None)
                self.state[parameter] = {
                    "step": step,
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.full_like(parameter, batch_size**-2),
                }


@torch.no_grad()
def start_weights(program: nn.Module, normals: Iterable[nn.Module]) -> None:
    """Draw weights by Glorot and Bengio's rule, with biases at 0 and the normals' scales at 1."""
    for module in program.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
    for normal in normals:
        _, raw_scale = normal.head.layer.bias.chunk(2)
        raw_scale.fill_(UNIT)


@torch.no_grad()
def start_pixels(program: nn.Module, x: Tensor) -> None:
    """Set the biases of the pixels' log-odds to those of their means, once."""
    if not program.started:
        mean = x.double().mean(0).clamp(0.001, 0.999)
        program.likelihood.head.layer.bias.copy_(mean.logit().flatten())
        program.started.fill_(True)
