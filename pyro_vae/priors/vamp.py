"""The variational mixture of posteriors."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import Mixture, as_pyro, is_point_mass
from pyro_vae.networks import Size, as_shape
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    r"""The mixture of the program's own posteriors at learned pseudo-inputs.

    .. math:: p(z) = \frac1C \sum_c q(z \mid u_c), \quad \text{with a context} \quad \frac1C \sum_c
              q(z \mid u_c, v_c)

    The pseudo-inputs u (and a context v for each) are parameters; they start at training data,
    drawn when training starts, plus noise of a hundredth so that no two stay the same. The
    posterior is the program's, handed over by `bind` and held without being registered, so that
    nothing is saved twice.

    Args:
        latent: event shape of z.
        components: number of pseudo-inputs C.
        context: number of context features, 0 for none.

    Raises:
        InvalidInput: if it is used outside a program, with a posterior that has no density, or in a
            program whose context it was not built for.

    Source: Tomczak and Welling (2018), VAE with a VampPrior.

    Example:
        >>> program = pv.VAE(
        ...     prior=VampPrior(2, components=5),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [16])),
        ...     posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16])),
        ... )
        >>> program.prior().log_prob(torch.zeros(2)).shape, program.prior.pseudo_inputs.shape
        (torch.Size([]), torch.Size([5, 1, 8, 8]))
    """

    initialized: Tensor
    logits: Tensor

    def __init__(self, latent: Size, components: int = 500, context: int = 0):
        super().__init__()
        check_count("components", components)
        self.latent, self.components, self.context = as_shape(latent), components, context
        self.register_buffer("initialized", torch.tensor(False))
        self.register_buffer("logits", torch.zeros(components), persistent=False)
        self.pseudo_contexts = nn.Parameter(torch.zeros(components, context)) if context else None
        # In a list, or the posterior would be registered a second time, as a part of the prior.
        self._posterior: list[Any] = []

    def bind(self, program: Any) -> None:
        """Takes the posterior and the shape of x from the program that this prior is a part of."""
        if (getattr(program, "context", None) is not None) != bool(self.context):
            raise InvalidInput(
                "context",
                got=f"{self.context} features in VampPrior",
                expected="a context in the prior if and only if the program has one",
                fix="pass VampPrior(..., context=10) for ten labels",
            )
        self._posterior[:] = [program.posterior]
        reference = next(program.posterior.parameters(), torch.empty(()))
        shape = (self.components, *program.event_shape)
        self.pseudo_inputs = nn.Parameter(
            torch.randn(shape, dtype=reference.dtype, device=reference.device)
        )

    @torch.no_grad()
    def initialize(self, x: Tensor, features: Tensor | None) -> None:
        r"""Puts the pseudo-inputs at random data (N, \*event), and their contexts at those data's features (N, C).

        It does so once in the prior's life: what has been trained, saved or loaded stays.
        """
        if self.initialized:
            return
        rows = torch.randint(len(x), (self.components,), device=x.device)
        if self.components <= len(x):
            rows = torch.randperm(len(x), device=x.device)[: self.components]
        pairs: list[tuple[Any, Any]] = [(self.pseudo_inputs, x), (self.pseudo_contexts, features)]
        for parameter, values in pairs:
            if parameter is not None:
                chosen = torch.nan_to_num(
                    values[rows].to(parameter)
                )  # a missing value starts at zero
                parameter.copy_(chosen + 0.01 * torch.randn_like(chosen))
        self.initialized.fill_(True)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        if not self._posterior:
            raise InvalidInput(
                "VampPrior",
                got="a use outside a program",
                expected="a posterior to share",
                fix="make it the prior of a pyro_vae.VAE, or call bind(program)",
            )
        components: Any = as_pyro(
            self._posterior[0](self.pseudo_inputs, context=self.pseudo_contexts)
        )
        if is_point_mass(components):
            raise InvalidInput(
                "prior",
                got="VampPrior with a Delta posterior",
                expected="a posterior with a density",
                fix="choose a posterior with spread such as DiagonalNormal, or another prior",
            )
        return Mixture(dist.Categorical(logits=self.logits), components)
