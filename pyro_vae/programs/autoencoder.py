"""The base of all programs made of a prior, a likelihood and a posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from pyro_vae.contracts import (
    Bindable,
    Initializable,
    Likelihood,
    Posterior,
    Prior,
    ProgramOfParts,
    Quantity,
    Tensors,
    known_by,
)
from pyro_vae.networks import as_shape
from pyro_vae.programs.contexts import known_values
from pyro_vae.programs.parts import features_of_context
from pyro_vae.validation import InvalidInput

__all__ = ["Autoencoder", "check_components"]

BOUND_TO = "_bound_to"  # a component's attribute: the program that it was bound to last


class Autoencoder(nn.Module, ABC):
    """A program made of components, which are bound to one another.

    A component with ``bind(program)``, such as VampPrior, which shares the posterior, is bound when
    the program is built, and again whenever a component is replaced.
    """

    prior: Prior
    likelihood: Likelihood
    posterior: Posterior
    context: nn.Module | None
    _bound: Mapping[str, object] | None = None  # the components that are bound to one another

    def components(self) -> dict[str, object]:
        """The components by name."""
        return {"prior": self.prior, "likelihood": self.likelihood, "posterior": self.posterior}

    def bindings(self) -> Sequence[tuple[object, ProgramOfParts]]:
        """The components, each with what it is bound to."""
        return [(part, self) for part in self.components().values()]

    @abstractmethod
    def model(self, x: Tensor, context: Tensors | None = None) -> object: ...

    @abstractmethod
    def guide(self, x: Tensor, context: Tensors | None = None) -> object: ...

    @property
    def event_shape(self) -> tuple[int, ...]:
        return as_shape(self.likelihood.event_shape)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)  # type: ignore[arg-type]  # torch means any value
        if self._bound is not None:
            self.bind_components()

    def bind_components(self) -> None:
        """Check the components and bind those that use one another, if any was replaced.

        Model and guide do so too, for a component may have been bound to another program since, or
        replaced in a list.
        """
        components = self.components()
        if components == self._bound and all(
            vars(part).get(BOUND_TO, self) is self for part in components.values()
        ):
            return
        check_components(components)
        for part, program in self.bindings():
            if isinstance(part, Bindable):
                part.bind(program)
                vars(part)[BOUND_TO] = self  # where it is not registered as a part of the part
        object.__setattr__(self, "_bound", components)

    def initialize(self, x: Tensors, context: Tensors | None = None) -> None:
        """Initialise components from data; training calls this before its first step."""
        features = self.context_features(context)
        for part in self.components().values():
            if isinstance(part, Initializable):
                part.initialize(x, features)

    @property
    def known(self) -> Mapping[str, Quantity]:
        """The known quantities that the likelihood takes from the context, by name."""
        return known_by(self.likelihood)

    def context_features(self, context: Tensors | None) -> Tensor | None:
        """Features of a context; none where the program takes no context."""
        return features_of_context(self.context, context, self.known)

    def known_values(self, context: Tensors | None) -> dict[str, Tensor]:
        """The known quantities in a context, which go to the likelihood."""
        return known_values(self.known, context)


def check_components(components: Mapping[str, object]) -> None:
    """Raise `InvalidInput` unless all are modules and the likelihood states the shape of x."""
    for name, part in components.items():
        states_shape = name != "likelihood" or getattr(part, "event_shape", None) is not None
        if not isinstance(part, nn.Module) or not states_shape:
            raise InvalidInput(
                name,
                got=type(part).__name__,
                expected="a module whose forward returns a distribution"
                + (", with event_shape" if name == "likelihood" else ""),
                fix="pass the parts by name: prior=, likelihood=, posterior=",
            )
