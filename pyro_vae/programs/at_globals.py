"""A program with its global latents at given values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyro import poutine
from torch import Tensor, nn

from pyro_vae.contracts import (
    EventShape,
    ProgramLike,
    Quantity,
    StochasticFunction,
    SumsLatents,
    Tensors,
    as_module,
    context_of,
    joint_of,
    known_by,
)
from pyro_vae.programs.handlers import Hidden

__all__ = ["AtGlobals"]


class AtGlobals(nn.Module):
    r"""A program with its global latents at given values: a program of local latents alone.

    .. math:: p(x, z \mid \theta), \quad q(z \mid x, \theta)

    Whatever takes a program takes this one, so that everything known of local latents holds at each
    draw of the global ones: scores, annealing, NUTS, figures. `pyro_vae.at_globals` makes one.

    Args:
        program: a program with latents outside its data plate.
        values: the value of each of them, those of the guide's auxiliary sites among them.
        hidden: further sites outside the data plate, such as factors, that no score is to count.

    Example:
        >>> pv.elbo(AtGlobals(vae, {}), torch.zeros(3, 1, 8, 8), num_samples=5).values.shape
        torch.Size([3])
    """

    def __init__(
        self, program: ProgramLike, values: Mapping[str, Tensor], hidden: Iterable[str] = ()
    ):
        super().__init__()
        self.program = program
        self.names, self.hidden = list(values), sorted({*values, *hidden})
        for i, value in enumerate(values.values()):  # buffers, which move with the program
            self.register_buffer(f"value_{i}", value.detach())

    @property
    def values(self) -> dict[str, Tensor]:
        """The values of the global latents by name."""
        return dict(zip(self.names, self.buffers(recurse=False)))

    @property
    def event_shape(self) -> EventShape | None:
        return self.program.event_shape

    @property
    def context(self) -> nn.Module | None:
        return context_of(as_module(self.program))

    @property
    def known(self) -> Mapping[str, Quantity]:
        """The known quantities that the program takes from a context."""
        return known_by(self.program)

    def model(self, x: Tensors, context: Tensors | None = None) -> object:
        return self._fixed(self.program.model)(x, context)

    @property
    def summed(self) -> tuple[str, ...]:
        """The latents that the model sums over."""
        return self.program.summed if isinstance(self.program, SumsLatents) else ()

    def joint(self, x: Tensors, context: Tensors | None = None) -> object:
        return self._fixed(joint_of(self.program))(x, context)

    def guide(self, x: Tensors, context: Tensors | None = None) -> object:
        return self._fixed(self.program.guide)(x, context)

    def _fixed(self, fn: StochasticFunction) -> StochasticFunction:
        fixed = poutine.condition(fn, data=self.values)
        return Hidden(lambda site: site["name"] in self.hidden)(fixed)
