"""The variational mixture of posteriors."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.contracts import ProgramOfParts, context_of
from pyro_vae.distributions import Mixture, as_pyro, is_point_mass
from pyro_vae.networks import Size, as_context, as_shape
from pyro_vae.priors.owner import Owner
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    r"""The mixture of the program's own posteriors at learned pseudo-inputs.

    .. math:: p(z) = \frac1C \sum_c q(z \mid u_c), \quad \text{with a context} \quad \frac1C \sum_c
              q(z \mid u_c, v_c)

    The pseudo-inputs u (and a context v for each) are parameters; they start at training data,
    drawn when training starts, plus noise of a hundredth so that no two stay the same. The
    posterior is always that of the program.

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
    pseudo_inputs: nn.Parameter  # once it is bound, for their shape is that of x

    def __init__(self, latent: Size, components: int = 500, context: int = 0):
        super().__init__()
        check_count("components", components)
        self.latent, self.components = as_shape(latent), components
        self.context = as_context(context)
        self.register_buffer("initialized", torch.tensor(False))
        self.register_buffer("logits", torch.zeros(components), persistent=False)
        self.pseudo_contexts = (
            nn.Parameter(torch.zeros(components, self.context)) if context else None
        )
        self._owner = Owner("VampPrior")

    def bind(self, program: ProgramOfParts) -> None:
        """Share the posterior of the program that this prior is a part of.

        The pseudo-inputs are drawn anew where the program's data have another shape.
        """
        if (context_of(program) is not None) != bool(self.context):
            raise InvalidInput(
                "context",
                got=f"{self.context} features in VampPrior",
                expected="a context in the prior if and only if the program has one",
                fix="pass VampPrior(..., context=10) for ten labels",
            )
        self._owner.program = program
        shape = (self.components, *program.event_shape)
        before = self._parameters.get("pseudo_inputs")
        if before is None or before.shape != shape:
            like = next(program.posterior.parameters(), torch.empty(()))
            start = torch.randn(shape, dtype=like.dtype, device=like.device)
            self.pseudo_inputs = nn.Parameter(start)
            self.initialized.fill_(False)

    @torch.no_grad()
    def initialize(self, x: Tensor, features: Tensor | None) -> None:
        r"""Start the pseudo-inputs at random data (N, \*event), with those data's features (N, C).

        This happens once in the prior's life: what has been trained, saved or loaded stays.
        """
        if self.initialized:
            return
        rows = torch.randint(len(x), (self.components,), device=x.device)
        if self.components <= len(x):
            rows = torch.randperm(len(x), device=x.device)[: self.components]
        for parameter, values in ((self.pseudo_inputs, x), (self.pseudo_contexts, features)):
            if parameter is not None and values is not None:
                # A missing value starts at zero.
                chosen = torch.nan_to_num(values[rows].to(parameter))
                parameter.copy_(chosen + 0.01 * torch.randn_like(chosen))
        self.initialized.fill_(True)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        posterior = self._owner.posterior
        components = as_pyro(posterior(self.pseudo_inputs, context=self.pseudo_contexts))
        if is_point_mass(components):
            raise InvalidInput(
                "prior",
                got="VampPrior with a Delta posterior",
                expected="a posterior with a density",
                fix="choose a posterior with spread such as DiagonalNormal, or another prior",
            )
        return Mixture(dist.Categorical(logits=self.logits.log_softmax(-1)), components)
