"""The deterministic path of a deep hierarchy: up from x, and down from level to level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.networks.head import Head
from pyro_vae.networks.shapes import (
    Shape,
    Size,
    as_context,
    as_shape,
    features_of,
    out_shape_of,
    tell_event_dim,
)
from pyro_vae.validation import InvalidInput

__all__ = ["Ladder"]


class Ladder(nn.Module):
    r"""The networks between the levels of a `pyro_vae.LadderVAE`: up from x, and down from the top.

    .. math:: d_1 = u_1(e(x)), \quad d_l = u_l(d_{l-1}), \qquad
              h_L = b + V c, \quad h_l = t_l(h_{l+1} + W_{l+1} z_{l+1}), \quad
              h_0 = h_1 + W_1 z_1

    The state :math:`h_l` is what level l knows of all the latents above it, the features
    :math:`d_l` what it knows of x. Both are grids of one size, put side by side for the posterior.
    Levels are numbered from the lowest, which is the nearest to x.

    Args:
        encoder: e, from x to the first features.
        ups: u, one network for each level, the lowest first.
        downs: t, one network for each level below the top; their outputs are the states' shapes.
        latents: event shapes of the latents, the lowest first.
        top: shape of the state of the top level, a grid of the size of its features.
        context: number of context features c, 0 for none; the encoder and all t take them too.

    Raises:
        InvalidInput: unless there is a network for each level, of grids that fit.

    Source: Sonderby et al. (2016), Ladder variational autoencoders; Vahdat and Kautz (2020).

    Example:
        >>> net = pv.networks.Cells
        >>> ladder = pv.networks.Ladder(
        ...     encoder=net((1, 8, 8), (4, 4), width=6),
        ...     ups=[net((6, 4, 4)), net((6, 4, 4), (2, 2))],
        ...     downs=[net((6, 2, 2), (4, 4))],
        ...     latents=[(2, 4, 4), (3, 2, 2)],
        ...     top=(6, 2, 2),
        ... )
        >>> ladder.states, ladder.merged
        ([(6, 4, 4), (6, 2, 2)], [(12, 4, 4), (12, 2, 2)])
    """

    def __init__(
        self,
        encoder: nn.Module,
        ups: Sequence[nn.Module],
        downs: Sequence[nn.Module],
        latents: Sequence[Size],
        top: Size,
        context: int = 0,
    ):
        super().__init__()
        if not len(latents) == len(ups) == len(downs) + 1 >= 2:
            raise InvalidInput(
                "latents",
                got=f"{len(latents)} with {len(ups)} networks up and {len(downs)} down",
                expected="two levels or more, with a network up for each, and down to all but one",
                fix="add the missing ones, or use VAE for a single level",
            )
        self.encoder, self.ups, self.downs = encoder, nn.ModuleList(ups), nn.ModuleList(downs)
        self.latents, self.top = [as_shape(z) for z in latents], as_shape(top)
        self.context = as_context(context)
        features = [out_shape_of(network) for network in self.ups]
        self.states: list[Shape] = [*(out_shape_of(network) for network in self.downs), self.top]
        for level, (d, h) in enumerate(zip(features, self.states), start=1):
            if len(h) != 3 or d[1:] != h[1:]:
                raise InvalidInput(
                    "downs",
                    got=f"a state {h} and features {d} at level {level}",
                    expected="grids (channels, height, width) of one height and width",
                    fix="give both networks of the level the same size=",
                )
        #: The shapes of features and state side by side, which posteriors are built for.
        self.merged: list[Shape] = [(d[0] + h[0], *h[1:]) for d, h in zip(features, self.states)]
        self.start = nn.Parameter(0.1 * torch.randn(self.top))
        self.of_context = nn.Linear(context, self.top[0], bias=False) if context else None
        self.joins = nn.ModuleList(map(Head, self.latents, self.states))
        with torch.no_grad():  # the state adds up all latents: of any number, it starts as large
            for parameter in self.joins.parameters():
                parameter.mul_(len(latents) ** -0.5)

    def up(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        r"""The features of data (\*batch, \*event) at each level, the lowest first."""
        tell_event_dim(self.encoder, x.dim() - 1)
        d = features_of(self.encoder, x, context)
        out: list[Tensor] = []
        for network in self.ups:
            tell_event_dim(network, 3)
            d = features_of(network, d, None)
            out.append(d)
        return out

    def first(self, context: Tensor | None) -> Tensor:
        r"""The state of the top level, (\*batch, \*top) with a context and (\*top) without."""
        if self.of_context is None:
            return self.start
        return self.start + self.of_context(context)[..., None, None]

    def below(self, level: int, h: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """The state that follows a level's own and its latent: that of the level below.

        Args:
            level: its number, counted from 0 at the lowest; the state after that is the decoder's.
            h: the level's state.
            z: its latent.
            context: the context's features.
        """
        (joined,) = self.joins[level](z)
        h = h + joined
        if level == 0:
            return h
        network = self.downs[level - 1]
        tell_event_dim(network, 3)
        return features_of(network, h, context)


def side_by_side(d: Tensor, h: Tensor) -> Tensor:
    """Features and state as one grid, each broadcast against the other's batch."""
    batch = torch.broadcast_shapes(d.shape[:-3], h.shape[:-3])
    return torch.cat([d.expand(*batch, *d.shape[-3:]), h.expand(*batch, *h.shape[-3:])], dim=-3)
