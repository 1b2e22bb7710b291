"""A variational autoencoder of several observed sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pyro
from torch import Tensor, nn

from pyro_vae.contracts import (
    Bindable,
    Initializable,
    Likelihood,
    Prior,
    Quantity,
    Tensors,
    as_module,
    known_by,
)
from pyro_vae.distributions import ObservedEvents, as_pyro
from pyro_vae.networks import as_shape
from pyro_vae.programs.autoencoder import check_components
from pyro_vae.programs.contexts import known_values
from pyro_vae.programs.global_latents import global_latents
from pyro_vae.programs.parts import density_of, draw_latent, features_of_context
from pyro_vae.programs.pyro_svi import warn_of_unmoved
from pyro_vae.validation import InvalidInput, count_of

__all__ = ["MultimodalVAE"]


class MultimodalVAE(nn.Module):
    r"""A variational autoencoder of several modalities that are independent given z.

    .. math:: z \sim p(z), \quad x_m \sim p(x_m \mid z) \text{ for each modality } m, \quad
              q(z \mid x)

    x is a dictionary of tensors, one for each modality, by name; the observed sites have these
    names. A datum may lack modalities: all entries of it are NaN there, or the key is absent for
    all data. It is then integrated out exactly, in training and in scores. With
    ``given=["text"]``, `pyro_vae.log_likelihood` is the conditional log p of the others given the
    text, and ``pyro_vae.generate(program, given={"text": text})`` draws them. A known quantity is
    one entry of the context for all likelihoods that take one of its name.

    Args:
        prior: p(z), or p(z | c) for a prior that uses its context.
        likelihoods: p(x_m | z) by the names of the modalities; each states ``event_shape``.
        posterior: q(z | x) of the dictionary, such as `pyro_vae.posteriors.ProductOfExperts`.
        context: a module from labels or covariates to features, as for `VAE`.

    Raises:
        InvalidInput: on a prior that shares the posterior, or names that modules cannot have.

    Source: Suzuki, Nakayama and Matsuo (2016), Joint multimodal learning with deep generative
    models; Wu and Goodman (2018).

    Example:
        >>> net, expert = pv.networks.MLP, pv.posteriors.DiagonalNormal
        >>> program = pv.MultimodalVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihoods={
        ...         "image": pv.likelihoods.Bernoulli((1, 8, 8), net(2, [16])),
        ...         "sound": pv.likelihoods.Normal(30, net(2, [16])),
        ...     },
        ...     posterior=pv.posteriors.ProductOfExperts(2, {
        ...         "image": expert(2, net((1, 8, 8), [16])),
        ...         "sound": expert(2, net(30, [16])),
        ...     }),
        ... )
        >>> pv.generate(program, given={"sound": torch.zeros(5, 30)})["image"].shape
        torch.Size([5, 1, 8, 8])
    """

    takes_missing_parts = True  # x may lack names of event_shape

    def __init__(
        self,
        prior: Prior,
        likelihoods: Mapping[str, nn.Module],
        posterior: nn.Module,
        context: nn.Module | None = None,
    ):
        super().__init__()
        _check_names(likelihoods)
        for name, part in likelihoods.items():
            check_components({f"likelihoods[{name!r}]": part})
        check_components({"prior": prior, "posterior": posterior})
        if isinstance(prior, Bindable):
            raise InvalidInput(
                "prior",
                got=f"{type(prior).__name__}, which shares parts of a program of one modality",
                expected="a prior of its own",
                fix="choose GaussianMixture or Flow",
            )
        self.prior, self.posterior, self.context = as_module(prior), posterior, context
        self.likelihoods = nn.ModuleDict(likelihoods)

    @property
    def event_shape(self) -> dict[str, tuple[int, ...]]:
        return {name: as_shape(part.event_shape) for name, part in self._likelihoods.items()}

    @property
    def known(self) -> dict[str, Quantity]:
        """The known quantities that any of the likelihoods takes from the context, by name."""
        parts = self._likelihoods.values()
        return {name: one for part in parts for name, one in known_by(part).items()}

    @property
    def _likelihoods(self) -> dict[str, Likelihood]:
        return cast(dict[str, Likelihood], dict(self.likelihoods.items()))

    def initialize(self, x: dict[str, Tensor], context: Tensors | None = None) -> None:
        """Initialise likelihoods from their own data; training calls this before its first step."""
        features = features_of_context(self.context, context, self.known)
        for name, part in self._likelihoods.items():
            if isinstance(part, Initializable) and name in x:
                part.initialize(x[name], features)

    def model(self, x: dict[str, Tensor], context: Tensors | None = None) -> None:
        warn_of_unmoved(self)
        features = features_of_context(self.context, context, self.known)
        with global_latents(self, prior=True), pyro.plate("data", count_of(x), dim=-1):
            prior = self.prior(context=features)
            z = pyro.sample("z", as_pyro(prior))
            for name, likelihood in self._likelihoods.items():
                if name in x:
                    known = known_values(known_by(likelihood), context)
                    density = density_of(likelihood, z, len(prior.event_shape), features, known)
                    pyro.sample(name, ObservedEvents(density), obs=x[name])

    def guide(self, x: dict[str, Tensor], context: Tensors | None = None) -> Tensor:
        features = features_of_context(self.context, context, self.known)
        with global_latents(self, prior=False), pyro.plate("data", count_of(x), dim=-1):
            return draw_latent("z", self.posterior, self.posterior(x, context=features))


def _check_names(likelihoods: Mapping[str, nn.Module]) -> None:
    """Raise `InvalidInput` unless there are modalities, by names that a module can have."""
    if not isinstance(likelihoods, Mapping | nn.ModuleDict) or not len(likelihoods):
        raise InvalidInput(
            "likelihoods",
            got=type(likelihoods).__name__,
            expected="a dictionary of likelihoods by the names of the modalities",
            fix="pass likelihoods={'image': ..., 'text': ...}",
        )
    for name in likelihoods:
        if name == "z" or not name.isidentifier() or name in dir(nn.ModuleDict):
            raise InvalidInput(
                "likelihoods",
                got=f"a modality named {name!r}",
                expected="names such as image or text, other than z and the names of a module",
                fix="rename it",
            )
