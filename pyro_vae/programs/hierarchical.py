"""Several levels of latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyro
from torch import Tensor, nn

from pyro_vae.distributions import as_pyro
from pyro_vae.networks import as_shape
from pyro_vae.programs.parts import (
    check_parts,
    draw_latent,
    embed,
    flattened,
    initialize,
    join_context,
)
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(nn.Module):
    r"""A variational autoencoder with L levels of latents, drawn from the top one down; each level's parts are its own.

    .. math:: z_L \sim p(z_L), \quad z_l \sim p(z_l \mid z_{l+1}), \quad x \sim p(x \mid z_1)

    and as the guide, by ``inference``,

    .. math:: \text{bottom up:} \quad q(z_1 \mid x) \prod_{l > 1} q(z_l \mid z_{l-1}), \qquad
              \text{top down:} \quad q(z_L \mid x) \prod_{l < L} q(z_l \mid x, z_{l+1})

    A conditional prior is any component that turns what it is given into a distribution, a
    posterior or a likelihood: p(z_1 | z_2) may be ``posteriors.DiagonalNormal(latent_1,
    MLP(latent_2))``. Bottom up, a posterior above the first is built for the latent below it. Top
    down all are built for x, and those below the top take the flattened latent above as context
    features (after the program's own), so that x is encoded once for all draws. With ``skip`` every
    component takes as context all the latents above that it is not given otherwise: p(x | z_1, ...,
    z_L), and so on.

    Args:
        priors: p(z_1 | z_2), ..., p(z_L), the lowest level first.
        likelihood: p(x | z_1); it states ``event_shape``.
        posteriors: of z_1, ..., z_L, in the same order.
        context: a module from labels or covariates to features, as for `VAE`; every component takes
            them.
        inference: ``"bottom_up"`` or ``"top_down"``.
        skip: every component sees all the latents above it.

    Raises:
        InvalidInput: unless there are two or more levels, a prior and a posterior for each.

    Source: Burda, Grosse and Salakhutdinov (2016) for the bottom-up guide; Sonderby et al. (2016),
    Ladder Variational Autoencoders, and Tomczak and Welling (2018), VAE with a VampPrior, for the
    top-down one.

    Example:
        >>> q, net = pv.posteriors.DiagonalNormal, pv.networks.MLP
        >>> program = pv.HierarchicalVAE(
        ...     priors=[q(5, net(2, [16])), pv.priors.StandardNormal(2)],                          # p(z1 | z2), p(z2)
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net(5, [16])),                      # p(x | z1)
        ...     posteriors=[q(5, net((1, 8, 8), [16])), q(2, net(5, [16]))],                       # q(z1 | x), q(z2 | z1)
        ... )
        >>> {name: tuple(z.shape) for name, z in pv.encode(program, torch.zeros(3, 1, 8, 8)).items()}
        {'z1': (3, 5), 'z2': (3, 2)}
    """

    def __init__(
        self,
        priors: Sequence[nn.Module],
        likelihood: nn.Module,
        posteriors: Sequence[nn.Module],
        context: nn.Module | None = None,
        inference: Literal["bottom_up", "top_down"] = "bottom_up",
        skip: bool = False,
    ):
        super().__init__()
        if not len(priors) == len(posteriors) >= 2:
            raise InvalidInput(
                "priors",
                got=f"{len(priors)} with {len(posteriors)} posteriors",
                expected="a prior and a posterior for each of two levels or more",
                fix="add the missing ones, or use VAE for a single level",
            )
        check_choice("inference", inference, ["bottom_up", "top_down"])
        check_parts(priors[-1], likelihood, posteriors[0])
        self.priors, self.posteriors = nn.ModuleList(priors), nn.ModuleList(posteriors)
        self.likelihood: Any = likelihood
        self.context, self.inference, self.skip = context, inference, skip
        part: Any
        for part in (*priors, likelihood, *posteriors):
            if hasattr(part, "bind"):
                if inference == "bottom_up":
                    raise InvalidInput(
                        "inference",
                        got=f"'bottom_up' with {type(part).__name__}, which needs q(z | x) of the top level",
                        expected="a guide that has it",
                        fix="pass inference='top_down'",
                    )
                part.bind(self)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    @property
    def posterior(self) -> nn.Module:
        """Top down, the posterior of the top level, which a prior such as VampPrior shares."""
        return self.posteriors[-1]

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        warn_of_unmoved(self)
        features = embed(self.context, context)
        above: list[Tensor] = []
        with pyro.plate("data", len(x), dim=-1):
            density = self.priors[-1](context=features)
            for level in reversed(range(len(self.priors))):
                z = pyro.sample(f"z{level + 1}", as_pyro(density))
                component = self.priors[level - 1] if level else self.likelihood
                above_z = [flattened(z, density), *above]
                density = component(z, context=join_context(features, above))
                above = above_z if self.skip else []
            return pyro.sample("x", as_pyro(density), obs=x)

    def guide(self, x: Tensor, context: Tensor | None = None) -> None:
        features = embed(self.context, context)
        with pyro.plate("data", len(x), dim=-1):
            if self.inference == "bottom_up":
                self._infer_bottom_up(x, features)
            else:
                self._infer_top_down(x, features)

    def _infer_bottom_up(self, given: Tensor, features: Tensor | None) -> None:
        for level, posterior in enumerate(self.posteriors, start=1):
            given = draw_latent(f"z{level}", posterior, posterior(given, context=features))

    def _infer_top_down(self, x: Tensor, features: Tensor | None) -> None:
        above: list[Tensor] = []
        for level, posterior in reversed(list(enumerate(self.posteriors, start=1))):
            density = posterior(x, context=join_context(features, above))
            z = draw_latent(f"z{level}", posterior, density)
            above = [flattened(z, density), *(above if self.skip else [])]

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Lets parts that start from data do so; training calls this once, before a new run's first step."""
        initialize(
            (*self.priors, self.likelihood, *self.posteriors), x, embed(self.context, context)
        )
