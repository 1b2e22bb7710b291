"""The decoder of a program as a function of z, with its Jacobian."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine, validation_enabled
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.distributions import has_mean, representative_of
from pyro_vae.inspection.embedding import latent_site
from pyro_vae.runtime.environment import evaluating, isolated_random, like_parameters
from pyro_vae.runtime.latents import Values, draw, in_rows, observation
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.validation import InvalidInput

__all__ = ["Decoder"]


class Decoder:
    r"""A program's map from one latent site to the mean of p(x | z), the other sites held where the prior's draw puts them.

    Where x has no mean, as a sentence has none, it is the mode of p(x | z), which no derivative can
    be taken of.

    Args:
        program: any program whose event shape is known.
        context: the context of all latents, one label or vector of covariates, for a conditional
            program.
        site: the latent site; by default the one that the model draws last, the nearest to x.
        seed: seed of the other sites' draw.

    Raises:
        InvalidInput: without an event shape, without a context where one is needed, or for a
            likelihood with neither mean nor mode.

    Example:
        >>> Decoder(vae)(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        program: ProgramLike,
        *,
        context: int | float | Tensor | None = None,
        site: str | None = None,
        seed: int = 0,
    ):
        if program.event_shape is None:
            raise InvalidInput(
                "event_shape",
                got="none",
                expected="the shape of one datum",
                fix="pass event_shape= to Program, or run it on data first",
            )
        self.seed, self.program = seed, program
        given = None if context is None else torch.as_tensor(context)[None]
        x = torch.empty(1, *program.event_shape).zero_()
        with evaluating(program, seed), validation_enabled(False):
            self.x, self.context = like_parameters(program, x), like_parameters(program, given)
            if getattr(program, "context", None) is not None and given is None:
                raise InvalidInput(
                    "context",
                    got="none",
                    expected="the label or covariates of a conditional program",
                    fix="pass context=",
                )
            self.where = find_plates(program, self.x, self.context, scored=False)
            self.site = latent_site(program, (self.x, self.context), site)
            here = draw(program.guide, self.x, self.context, 1, self.where)[self.site]
            self.others: Values = draw(
                poutine.condition(program.model, {self.site: here}),
                self.x,
                self.context,
                1,
                self.where,
            )
            sites: Any = importance_traces(program, self.x, self.context)[1].nodes
            self.support, self.is_smooth = (
                sites[self.site]["fn"].support,
                has_mean(sites["x"]["fn"]),
            )
        self.event = in_rows(here, self.where).shape[2:]

    @property
    def dim(self) -> int:
        """The number of entries D of the latent."""
        return self.event.numel()

    def __call__(self, z: Tensor) -> Tensor:
        r"""Means (N, \*event) at latents (N, D), differentiable; or modes; or draws, from the seed, where neither is known."""
        self.program.eval()
        rows = like_parameters(self.program, z).reshape(1, len(z), *self.event)
        axis = self.where.data_dim - self.where.particle_dim
        others = {
            name: value.repeat_interleave(len(z), dim=axis) for name, value in self.others.items()
        }
        values = others | {self.site: rows.movedim(1, axis)}
        x = self.x.expand(len(z), *self.x.shape[1:])
        context = (
            None if self.context is None else self.context.expand(len(z), *self.context.shape[1:])
        )
        with validation_enabled(False), isolated_random(x.device, self.seed):
            density = observation(self.program, values, x, context, self.where)
            shown = representative_of(density)
        return in_rows(shown.expand(*density.batch_shape, *density.event_shape), self.where)[0]
