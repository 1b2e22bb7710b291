"""Several levels of latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.contracts import (
    Bindable,
    Initializable,
    Likelihood,
    Posterior,
    Prior,
    ProgramOfParts,
    Tensors,
    as_module,
)
from pyro_vae.distributions import as_pyro
from pyro_vae.programs.autoencoder import Autoencoder, check_components
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.parts import density_of, draw_latent, flattened, join_context, prior_given
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput, check_choice, rows_of

__all__ = ["HierarchicalVAE"]

MOST_DATA_OF_STARTS = 1024  # that posteriors are initialised from


class HierarchicalVAE(Autoencoder):
    r"""A variational autoencoder with L levels of latents, drawn from the top one down.

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
    z_L), and so on. A prior that shares a posterior, such as `pyro_vae.priors.PixelCNN`, shares
    that of its level.

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
        ...     priors=[q(5, net(2, [16])), pv.priors.StandardNormal(2)],  # p(z1 | z2), p(z2)
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net(5, [16])),  # p(x | z1)
        ...     posteriors=[q(5, net((1, 8, 8), [16])), q(2, net(5, [16]))],  # q(z1|x), q(z2|z1)
        ... )
        >>> z = pv.encode(program, torch.zeros(3, 1, 8, 8))
        >>> z["z1"].shape, z["z2"].shape
        (torch.Size([3, 5]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        priors: Sequence[Prior],
        likelihood: Likelihood,
        posteriors: Sequence[Posterior],
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
        check_components(_by_name(priors, likelihood, posteriors))
        self.priors = nn.ModuleList(map(as_module, priors))
        self.posteriors = nn.ModuleList(map(as_module, posteriors))
        self.likelihood, self.context = likelihood, context
        self.inference, self.skip = inference, skip
        self.bind_components()

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("prior", "posterior"):
            raise InvalidInput(
                name,
                got="one for all levels",
                expected="one for a level",
                fix=f"write program.{name}s[-1] = ... for the top level",
            )
        super().__setattr__(name, value)

    @property
    def posterior(self) -> Posterior:  # type: ignore[override]  # it is replaced in `posteriors`
        """The posterior of the top level; with a top-down guide, VampPrior and the like use it."""
        return self.posterior_of(len(self.posteriors) - 1)

    def posterior_of(self, level: int) -> Posterior:
        """The posterior of a level, counted from 0 at the lowest, as its prior may share it."""
        return self.posteriors[level]

    def components(self) -> dict[str, object]:
        return _by_name(self.priors, self.likelihood, self.posteriors)

    def bindings(self) -> Sequence[tuple[object, ProgramOfParts]]:
        levels = [LevelOf(self, level) for level in range(len(self.priors))]
        return [*zip(self.priors, levels), (self.likelihood, self), *zip(self.posteriors, levels)]

    def bind_components(self) -> None:
        """Bind as any program does; a component that uses the posterior needs a top-down guide."""
        sharing = [part for part in self.priors if isinstance(part, Bindable)]
        if len(set(sharing)) < len(sharing):
            raise InvalidInput(
                "priors",
                got=f"one {type(sharing[0]).__name__} for several levels",
                expected="one for each, since it shares the posterior of its level",
                fix="build a prior for each level",
            )
        for part in self.components().values():
            if isinstance(part, Bindable) and self.inference == "bottom_up":
                raise InvalidInput(
                    "inference",
                    got=f"'bottom_up' with {type(part).__name__}, "
                    "which needs q(z | x) of its level",
                    expected="a guide that computes it",
                    fix="pass inference='top_down'",
                )
        super().bind_components()

    @torch.no_grad()
    def initialize(self, x: Tensors, context: Tensors | None = None) -> None:
        """Initialise components from data, posteriors at what the guide gives them, in its order.

        So a level starts from the draws of the levels that it is given. Training calls this before
        its first step.
        """
        features = self.context_features(context)
        for part in (*self.priors, self.likelihood):
            if isinstance(part, Initializable):
                part.initialize(x, features)
        posteriors = [part for part in self.posteriors if isinstance(part, Initializable)]
        if posteriors and isinstance(x, Tensor):
            rows = torch.randint(len(x), (min(len(x), MOST_DATA_OF_STARTS),), device=x.device)
            with _initialized_at_first_call(posteriors):
                self.guide(x[rows], rows_of(context, rows))

    def model(self, x: Tensor, context: Tensors | None = None) -> Tensor:
        warn_of_unmoved(self)
        self.bind_components()
        features, known = self.context_features(context), self.known_values(context)
        above: list[Tensor] = []
        with global_latents(self, prior=True), pyro.plate("data", len(x), dim=-1):
            density = self.priors[-1](context=features)
            for level in reversed(range(len(self.priors))):
                z = pyro.sample(f"z{level + 1}", as_pyro(density))
                above_z = [flattened(z, density), *above]
                event_dim, given = len(density.event_shape), join_context(features, above)
                if level:
                    density = prior_given(self.priors[level - 1], z, event_dim, given, features)
                else:
                    density = density_of(self.likelihood, z, event_dim, given, known)
                above = above_z if self.skip else []
            return pyro.sample("x", as_pyro(density), obs=x)

    def guide(self, x: Tensor, context: Tensors | None = None) -> None:
        self.bind_components()
        features = self.context_features(context)
        with global_latents(self, prior=False), pyro.plate("data", len(x), dim=-1):
            if self.inference == "bottom_up":
                self._infer_bottom_up(x, features)
            else:
                self._infer_top_down(x, features)

    def _infer_bottom_up(self, given: Tensor, features: Tensor | None) -> None:
        event_dim = given.dim() - 1
        for level, posterior in enumerate(self.posteriors, start=1):
            density = density_of(posterior, given, event_dim, features)
            given = draw_latent(f"z{level}", posterior, density)
            event_dim = len(density.event_shape)

    def _infer_top_down(self, x: Tensor, features: Tensor | None) -> None:
        above: list[Tensor] = []
        for level, posterior in reversed(list(enumerate(self.posteriors, start=1))):
            density = density_of(posterior, x, x.dim() - 1, join_context(features, above))
            z = draw_latent(f"z{level}", posterior, density)
            above = [flattened(z, density), *(above if self.skip else [])]


@dataclass(frozen=True)
class LevelOf:
    """A hierarchy as the components of one level see it: the posterior is that of their level.

    Args:
        program: the hierarchy, asked at each use.
        level: the level's number, counted from 0 at the lowest.
    """

    program: HierarchicalVAE
    level: int

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.program.event_shape

    @property
    def context(self) -> nn.Module | None:
        return self.program.context

    @property
    def posterior(self) -> Posterior:
        return self.program.posterior_of(self.level)


@contextmanager
def _initialized_at_first_call(posteriors: Iterable[Initializable]) -> Iterator[None]:
    """Have posteriors initialised at what they are called with, before they answer."""

    def before(part: nn.Module, given: tuple[Tensor, ...], options: Mapping[str, Tensor]) -> None:
        if isinstance(part, Initializable):
            part.initialize(given[0], options.get("context"))

    hooks = [
        part.register_forward_pre_hook(before, with_kwargs=True)
        for part in posteriors
        if isinstance(part, nn.Module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _by_name(
    priors: Iterable[object], likelihood: object, posteriors: Iterable[object]
) -> dict[str, object]:
    """Components of a hierarchy by name."""
    return {
        **{f"priors[{level}]": part for level, part in enumerate(priors)},
        "likelihood": likelihood,
        **{f"posteriors[{level}]": part for level, part in enumerate(posteriors)},
    }
