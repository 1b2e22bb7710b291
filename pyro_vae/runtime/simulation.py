"""Data that a program draws, which have all but their values in common with real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from pyro_vae.contracts import ProgramLike, Tensors, Trace
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.programs import as_program
from pyro_vae.programs.contexts import check_context, context_of_draws, with_marks
from pyro_vae.runtime.blocks import Places
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.environment import like_parameters, reference_parameter
from pyro_vae.runtime.from_prior import at_posterior, check_decoding, prior_predictive
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.observed import like_parts, observed_data, observed_parts, parts_of
from pyro_vae.runtime.predictive import Sites, in_blocks, shown_value
from pyro_vae.validation import InvalidInput, count_of, rows_of, tensors_of

__all__ = ["Template", "simulate"]


@dataclass(frozen=True)
class Template:
    """What simulated data have in common with real ones.

    Args:
        num: how many data.
        context: theirs; all of their entries are values, none a bound.
        x: real data, of which each fixes what it has that is not modelled, such as a total, and
            which entries are missing; ``None`` where they are not known.
    """

    num: int
    context: Tensors | None = None
    x: Tensors | None = None

    @classmethod
    def of(
        cls, program: ProgramLike, num_data: int, context: Tensors | None, like: Data | None
    ) -> Template:
        """A template for so many data, for one of each context, or like real ones in turn.

        Raises:
            InvalidInput: on an unusable context or unusable data, or if both are given.
        """
        if like is None:
            num_data = num_data if context is None else count_of(context)
            context = like_parameters(program, with_marks(program, num_data, context))
            check_context(program, num_data, context)
            return cls(num_data, context_of_draws(program, context))
        if context is not None:
            raise InvalidInput(
                "context",
                got="a context beside like=",
                expected="one of the two",
                fix="pass like=(x, context)",
            )
        real = as_dataset(like)
        x, context = checked_data(program, real[torch.arange(num_data) % len(real)])
        if isinstance(program.event_shape, dict):  # a part that all data lack is missing in each
            lacking = reference_parameter(program).new_tensor(torch.nan)
            there = tensors_of(x)
            x = {
                name: there[name] if name in there else lacking.expand(num_data, *shape)
                for name, shape in program.event_shape.items()
            }
        return cls(num_data, context_of_draws(program, context), x)

    def rows(self, few: Places) -> Template:
        """A template for some of the data."""
        x = None if self.x is None else rows_of(self.x, few)
        return Template(len(few), rows_of(self.context, few), x)

    def draw(self, program: ProgramLike) -> tuple[Trace, Tensors]:
        """A trace of the model at latents from the prior, and the data that it made."""
        trace = prior_predictive(program, self.num, self.context, like=self.x)
        return trace, self.missing_alike(observed_data(trace, program.event_shape))

    def missing_alike(self, made: Tensors) -> Tensors:
        """Data without the entries that the real ones miss."""
        if self.x is None:
            return made
        lacks = {name: part.isnan() for name, part in tensors_of(self.x).items()}
        parts = {
            name: torch.where(lacks[name], torch.nan, part) if lacks[name].any() else part
            for name, part in tensors_of(made).items()
        }
        return parts if isinstance(made, dict) else parts[""]


@in_fixed_blocks
def simulate(program: ProgramLike, data: Data, seed: int = 0) -> Tensors:
    """Data drawn from the model, one for each real datum and like it in all but its values."""
    data, program = as_dataset(data), as_program(program)
    template = Template.of(program, len(data), None, data)
    program = at_posterior(program, rows_of(template.context, slice(0, 1)), seed)
    check_decoding(program, template.context)
    parts = parts_of(program.event_shape)

    def run(rows: Places, seed: int) -> Sites:
        return observed_parts(template.rows(rows).draw(program)[0], parts)

    value = partial(shown_value, draws=True)
    made = in_blocks(program, run, value, len(data), seed)
    return template.missing_alike(like_parts(made, parts))
