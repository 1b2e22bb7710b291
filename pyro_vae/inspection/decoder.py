"""The decoder of a program as a function of z, with its Jacobian."""

from __future__ import annotations

import torch
from pyro import poutine, validation_enabled
from torch import Tensor

from pyro_vae.contracts import ProgramLike, sites_of
from pyro_vae.distributions import has_mean, representative_of, stated_support
from pyro_vae.inspection.embedding import site_among
from pyro_vae.inspection.spaces import space_of
from pyro_vae.programs.contexts import check_context
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.contexts import Context, context_for_each
from pyro_vae.runtime.environment import evaluating, isolated_random, like_parameters
from pyro_vae.runtime.latents import Values, in_rows, out_of_rows
from pyro_vae.runtime.observed import observed_of
from pyro_vae.validation import InvalidInput

__all__ = ["Decoder"]


class Decoder:
    r"""The map of a program from one latent site to the mean of p(x | z).

    The other sites are held at one draw from the prior.

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
        context: Context = None,
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
        labels = context_for_each(program, context, 1)
        x = like_parameters(program, torch.zeros(1, *program.event_shape))
        with evaluating(program, seed), validation_enabled(False):
            check_context(program, 1, labels)
            self.given = Conditioned.of(program, x, like_parameters(program, labels), scored=False)
            self.site = site_among(self.given, site)
            here = self.given.draw(self.given.guide, 1)[self.site]
            rest = poutine.condition(self.given.model, {self.site: here})
            self.others: Values = self.given.draw(rest, 1)
            model = self.given.traces()[1]
            self.support = stated_support(sites_of(model)[self.site]["fn"])
            self.is_smooth = has_mean(observed_of(model)["fn"])
        self.event = in_rows(here, self.given.plates).shape[2:]
        self.space = space_of(self.support, self.event)

    @property
    def dim(self) -> int:
        """The number of entries D of the latent."""
        return self.event.numel()

    def __call__(self, z: Tensor) -> Tensor:
        r"""Decode latents (N, D) to means (N, \*event), differentiably.

        Where x has no mean they are modes, or else draws from the seed.
        """
        self.program.eval()
        plates = self.given.plates
        given = self.given[[0] * len(z)]
        rows = like_parameters(self.program, z).reshape(1, len(z), *self.event)
        others = {
            name: value.repeat_interleave(len(z), dim=plates.data_axis)
            for name, value in self.others.items()
        }
        values = others | {self.site: out_of_rows(rows, plates)}
        with validation_enabled(False), isolated_random(given.device, self.seed):
            density = given.observation(values)
            shown = density.mean if self.is_smooth else representative_of(density)
        return shown.expand(*density.batch_shape, *density.event_shape)[0]
