"""Many levels of latents that share one deterministic path from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.contracts import Bindable, Likelihood, Posterior, Prior, Site, Tensors
from pyro_vae.distributions import as_pyro
from pyro_vae.networks import Ladder, side_by_side, tell_event_dim
from pyro_vae.priors.owner import codebook_of
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.hierarchical import HierarchicalVAE
from pyro_vae.programs.parts import density_of, draw_latent, prior_given
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput

__all__ = ["LadderVAE"]


class LadderVAE(HierarchicalVAE):
    r"""A deep hierarchy of grids of latents, whose levels share one deterministic top-down path.

    .. math:: z_L \sim p(z_L), \quad z_l \sim p(z_l \mid h_l), \quad x \sim p(x \mid h_0), \qquad
              q(z_l \mid d_l(x), h_l)

    A level is a prior and a posterior. The state :math:`h_l` depends on all the latents above level
    l, and is the same in model and guide; the features :math:`d_l` of x are merged with it. Both
    come from ``path``, see `pyro_vae.networks.Ladder`. A prior below the top is any component that
    turns the state into a distribution, such as ``posteriors.Mixture``, or a
    `pyro_vae.priors.PixelCNN` with a network; the top one is any prior. A prior that takes no input
    serves below the top too: z_l is then drawn without a look at the levels above.
    A posterior is built for features and state side by side, ``path.merged``. One with
    ``takes_prior``, such as `pyro_vae.posteriors.RelativeNormal`, gets the prior's distribution
    too.

    Where the model is replayed at the guide's draws it takes over the states that the guide has
    computed, so that the path is run once.

    Args:
        priors: p(z_1 | h_1), ..., p(z_L), the lowest level first.
        likelihood: p(x | h_0), built for a grid of the shape ``path.states[0]``.
        posteriors: of z_1, ..., z_L, in the same order.
        path: the networks between the levels.
        context: a module from labels or covariates to features, as for `VAE`; the path, the top
            prior and the likelihood take them.

    Raises:
        InvalidInput: unless there are two or more levels, with a prior, a posterior and a place in
            the path for each.

    Source: Sonderby et al. (2016), Ladder variational autoencoders; Maaloe et al. (2019), BIVA;
    Vahdat and Kautz (2020), NVAE; Child (2021), Very deep VAEs.

    Example:
        >>> net, normal = pv.networks.Cells, pv.posteriors.RelativeNormal
        >>> latents = [(2, 4, 4), (3, 2, 2)]
        >>> path = pv.networks.Ladder(
        ...     encoder=net((1, 8, 8), (4, 4), width=6),
        ...     ups=[net((6, 4, 4)), net((6, 4, 4), (2, 2))],
        ...     downs=[net((6, 2, 2), (4, 4))],
        ...     latents=latents,
        ...     top=(6, 2, 2),
        ... )
        >>> program = pv.LadderVAE(
        ...     priors=[
        ...         pv.posteriors.DiagonalNormal((2, 4, 4), net((6, 4, 4))),
        ...         pv.priors.StandardNormal((3, 2, 2)),
        ...     ],
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net((6, 4, 4), (8, 8))),
        ...     posteriors=[normal(z, net(both)) for z, both in zip(latents, path.merged)],
        ...     path=path,
        ... )
        >>> pv.encode(program, torch.zeros(3, 1, 8, 8))["z2"].shape
        torch.Size([3, 3, 2, 2])
    """

    path: Ladder

    def __init__(
        self,
        priors: Sequence[Prior],
        likelihood: Likelihood,
        posteriors: Sequence[Posterior],
        path: Ladder,
        context: nn.Module | None = None,
    ):
        if len(priors) != len(path.latents):
            raise InvalidInput(
                "path",
                got=f"{len(path.latents)} levels with {len(priors)} priors",
                expected="as many",
                fix="build the path with latents= of all levels",
            )
        super().__init__(priors, likelihood, posteriors, context, inference="top_down", skip=True)
        self.path = path

    def posterior_of(self, level: int) -> Posterior:
        """A level's posterior, and at the top q(z_L | x), which VampPrior and the like use."""
        return cast(Posterior, LevelPosterior(self, level))

    def bind_components(self) -> None:
        for level, (prior, posterior) in enumerate(zip(self.priors, self.posteriors)):
            if isinstance(prior, Bindable) and isinstance(posterior, TakesPrior):
                raise InvalidInput(
                    f"posteriors[{level}]",
                    got=f"{type(posterior).__name__}, which is given by the prior, with "
                    f"{type(prior).__name__}, which is given by the posterior",
                    expected="one of the two that stands by itself",
                    fix="choose Codebook for a prior of codes, DiagonalNormal for VampPrior",
                )
        super().bind_components()

    def model(self, x: Tensor, context: Tensors | None = None) -> Tensor:
        warn_of_unmoved(self)
        self.bind_components()
        features, known = self.context_features(context), self.known_values(context)
        h, guided = self.path.first(features), Guided()
        with global_latents(self, prior=True), pyro.plate("data", len(x), dim=-1):
            for level in reversed(range(len(self.priors))):
                density = as_pyro(self._prior(level, h, features))
                with guided:
                    z = pyro.sample(f"z{level + 1}", density)
                found = guided.state_after(z)
                h = self.path.below(level, h, z, features) if found is None else found
            return pyro.sample(
                "x", as_pyro(density_of(self.likelihood, h, 3, features, known)), obs=x
            )

    def guide(self, x: Tensor, context: Tensors | None = None) -> None:
        self.bind_components()
        features = self.context_features(context)
        h = self.path.first(features)
        with global_latents(self, prior=False), pyro.plate("data", len(x), dim=-1):
            d = self.path.up(x, features)
            for level in reversed(range(len(self.posteriors))):
                density, after = self._posterior(level, d[level], h, features), After()
                infer = {AFTER: after}
                z = draw_latent(f"z{level + 1}", self.posteriors[level], density, infer)
                if level:
                    h = self.path.below(level, h, z, features)
                    after.draw, after.state = z, h

    def _prior(self, level: int, h: Tensor, features: Tensor | None) -> Distribution:
        if level == len(self.priors) - 1:
            return self.priors[level](context=features)
        return prior_given(self.priors[level], h, 3, None, features)

    def _posterior(self, level: int, d: Tensor, h: Tensor, features: Tensor | None) -> Distribution:
        component, given = self.posteriors[level], side_by_side(d, h)
        if not isinstance(component, TakesPrior):
            return density_of(component, given, 3, None)
        tell_event_dim(component, 3)
        return component(given, prior=self._prior(level, h, features))


@runtime_checkable
class TakesPrior(Protocol):
    """A posterior that is given by how it differs from the prior."""

    takes_prior: bool


AFTER = "after"  # where a site of the guide keeps what came after it


@dataclass
class After:
    """What the guide found after a latent: its draw, and the state of the level below."""

    draw: Tensor | None = None
    state: Tensor | None = None


class Guided(Messenger):
    """Reads the states that a guide has computed, in a model that is replayed at its draws."""

    found: object = None

    def _pyro_post_sample(self, msg: Site) -> None:
        self.found = msg["infer"].get(AFTER)

    def state_after(self, z: Tensor) -> Tensor | None:
        """The state after the last latent, if z is the draw that it was computed from.

        One without a gradient serves only where none is wanted.
        """
        after = self.found
        if not isinstance(after, After) or after.draw is not z or after.state is None:
            return None
        return after.state if after.state.requires_grad or not torch.is_grad_enabled() else None


class LevelPosterior(nn.Module):
    """A ladder's posterior of one level: its codebook, and at the top q(z_L | x) by itself.

    It holds the program in a list, where it is registered as no part.
    """

    def __init__(self, program: LadderVAE, level: int):
        super().__init__()
        self._program, self._level = [program], level

    @property
    def codebook(self) -> Tensor | None:
        return codebook_of(self._program[0].posteriors[self._level])

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> Distribution:
        (program,), top = self._program, len(self._program[0].priors) - 1
        if self._level < top:
            raise InvalidInput(
                f"priors[{self._level}]",
                got="a prior that shares q(z | x) of a level below the top",
                expected="one that is given the state, for so is the posterior there",
                fix=f"put it at the top, as priors[{top}]",
            )
        d, h = program.path.up(x, context)[-1], program.path.first(context)
        return program._posterior(top, d, h, context)
