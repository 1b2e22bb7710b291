"""Priors on the codes of a `pyro_vae.posteriors.Codebook`: uniform, and autoregressive."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pyro_vae.contracts import ProgramOfParts
from pyro_vae.distributions import AutoregressiveCodes, CodeGrid
from pyro_vae.networks import (
    Head,
    Size,
    as_context,
    as_shape,
    check_context_features,
    features_of,
    out_shape_of,
)
from pyro_vae.priors.owner import Owner, codebook_of
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["PixelCNN", "UniformCodes"]


class UniformCodes(nn.Module):
    r"""Uniform codes: every entry of the program's codebook is equally likely at every place.

    .. math:: P(z) = V^{-S}, \quad z_s \in \{e_1, \dots, e_V\}

    for V entries and S places: the prior with which a VQ-VAE is trained. The codebook is that of
    the program's posterior, and in a hierarchy that of the level's, whatever the levels above say.

    Args:
        latent: event shape of z, (D, \*grid).

    Raises:
        InvalidInput: if it is used with a posterior that has no codebook.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), Neural Discrete Representation Learning.

    Example:
        >>> net = pv.networks.MLP
        >>> program = pv.VAE(
        ...     prior=UniformCodes((4, 2, 2)),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net((4, 2, 2), [16])),
        ...     posterior=pv.posteriors.Codebook((4, 2, 2), net((1, 8, 8), [16]), codes=8),
        ... )
        >>> program.prior().log_prob(pv.encode(program, torch.zeros(1, 1, 8, 8))["z"])
        tensor([-8.3178])
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        self._owner = Owner("UniformCodes")

    def bind(self, program: ProgramOfParts) -> None:
        """Share the codebook of the program that this prior is a part of."""
        self._owner.program = program

    def forward(
        self, given: Tensor | None = None, *, context: Tensor | None = None
    ) -> dist.TorchDistribution:
        codebook = self._owner.codebook
        grid = self.latent[1:]
        codes = dist.Categorical(logits=codebook.new_zeros(*grid, len(codebook)))
        return CodeGrid(codes.to_event(len(grid)), codebook)


class PixelCNN(nn.Module):
    r"""A gated PixelCNN over the program's codes, row by row, each code given all before it.

    .. math:: P(z \mid c) = \prod_s P(k_s \mid k_1, \dots, k_{s-1}, c), \quad z_s = e_{k_s}

    Two stacks of convolutions whose kernels reach only to places before: one sees the rows above,
    the other the row to the left and the first stack. A layer is
    :math:`\tanh(a) \odot \mathrm{sigmoid}(b)` with a, b affine in what the kernel sees and in c,
    which is the context, or with a ``network`` its features: of the levels above in a hierarchy,
    where c has a vector for each place. `log_prob` is exact and takes one pass; a draw keeps the
    activations of the places before and computes those of one place more at a time, so its cost is
    proportional to the number of places. A sequence of codes (D, T) is one row.

    It can be trained with the rest, for the codes get no gradient from it, or afterwards on a
    program whose other parts are frozen, in the place of `UniformCodes`.

    Args:
        latent: event shape of z, (D, \*grid), the grid of one or two dimensions, or (D,) for a
            single code.
        network: from what the prior is given below the top of a hierarchy, such as a ladder's
            state, to features; none for a prior that is given nothing.
        width: channels of the layers.
        layers: how many.
        reach: rows and columns that a kernel sees, itself included.
        context: number of context features, 0 for none: then the codes do not depend on the label,
            if there is one. A network takes the context itself.

    Raises:
        InvalidInput: for a grid of more dimensions, for a network and a context, if it is used
            with a posterior that has no codebook, or without what its network is to be given.

    Source: van den Oord et al. (2016), Conditional Image Generation with PixelCNN Decoders; Razavi,
    van den Oord and Vinyals (2019), VQ-VAE-2, for codes given the codes above.

    Example:
        >>> net = pv.networks.MLP
        >>> program = pv.VAE(
        ...     prior=PixelCNN((4, 2, 2), width=8, layers=2),
        ...     likelihood=pv.likelihoods.Bernoulli((1, 8, 8), net((4, 2, 2), [16])),
        ...     posterior=pv.posteriors.Codebook((4, 2, 2), net((1, 8, 8), [16]), codes=8),
        ... )
        >>> program.prior().sample((5,)).shape
        torch.Size([5, 4, 2, 2])
    """

    def __init__(
        self,
        latent: Size,
        network: nn.Module | None = None,
        width: int = 64,
        layers: int = 5,
        reach: int = 3,
        context: int = 0,
    ):
        super().__init__()
        for name, count in (("width", width), ("layers", layers), ("reach", reach)):
            check_count(name, count)
        self.latent, self.network, self.width = as_shape(latent), network, width
        self.layers, self.reach, self.context = layers, reach, as_context(context)
        self.codes = 0  # of the codebook that the first and last layers are made for
        if len(self.latent) > 3:
            raise InvalidInput(
                "latent",
                got=str(self.latent),
                expected="a shape (D, rows, columns), (D, length) or (D,)",
                fix="pass latent=(16, 7, 7)",
            )
        if network is not None and context:
            raise InvalidInput(
                "context",
                got=f"{context} features beside a network",
                expected="0, for the network takes the context",
                fix="give it to the network",
            )
        at_places = (width, *self.latent[1:])
        self.head = None if network is None else Head(out_shape_of(network), at_places)
        features = self.context if network is None else width
        self.stack = nn.ModuleList(GatedLayer(width, reach, features) for _ in range(layers))
        self._owner = Owner("PixelCNN")

    def bind(self, program: ProgramOfParts) -> None:
        """Share the codebook of the program that this prior is a part of.

        The first and last layers are made anew for a codebook of another size.
        """
        self._owner.program = program
        codebook = codebook_of(program.posterior)
        if codebook is not None and self.codes != len(codebook):
            self.codes, width = len(codebook), self.width
            self.embedding = nn.Embedding(
                self.codes, width, dtype=codebook.dtype, device=codebook.device
            )
            self.out = nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(width, width, 1),
                nn.ReLU(),
                nn.Conv2d(width, self.codes, 1),
            ).to(codebook)

    def forward(
        self, given: Tensor | None = None, *, context: Tensor | None = None
    ) -> dist.TorchDistribution:
        codebook = self._owner.codebook
        return CodeGrid(AutoregressiveCodes(self, self._features(given, context)), codebook)

    def _features(self, given: Tensor | None, context: Tensor | None) -> Tensor | None:
        """The map c, which a context without a network makes one of a single place."""
        if (given is None) != (self.network is None):
            raise InvalidInput(
                "network",
                got=f"PixelCNN with{'out' if self.network is None else ''} a network, "
                f"{'given nothing' if given is None else 'given the levels above'}",
                expected="a network if and only if it stands below the top of a hierarchy",
                fix="pass PixelCNN(latent, network) below the top, PixelCNN(latent) at the top",
            )
        if given is not None and self.network is not None and self.head is not None:
            (features,) = self.head(features_of(self.network, given, context))
            batch = features.shape[: features.dim() - len(self.latent)]
            return features.reshape(*batch, self.width, *self.rows_and_columns)
        if not self.context or context is None:
            check_context_features(self.context, None)
            return None
        check_context_features(self.context, context)
        return context[..., None, None]

    @property
    def gated_layers(self) -> list[GatedLayer]:
        return [layer for layer in self.stack if isinstance(layer, GatedLayer)]

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        rows, columns = (1, 1, *self.latent[1:])[-2:]
        return rows, columns

    def logits(self, codes: Tensor, given: Tensor | None) -> Tensor:
        """Log-odds (M, V, rows, columns) of codes (M, rows, columns), each given those before.

        Args:
            codes: their numbers.
            given: features of a context (M, C), a map (M, C, rows, columns), or ``None``.
        """
        seen, reach = self._embedded(codes), self.reach
        above, left = pad(seen, (0, 0, 1, 0))[:, :, :-1], pad(seen, (1, 0, 0, 0))[..., :-1]
        for layer in self.gated_layers:
            window, added = pad(above, (reach - 1, reach - 1, reach - 1, 0)), layer.added(given)
            above, passed = layer.see_above(window, added)
            left = layer.see_left(pad(left, (reach - 1, 0, 0, 0)), passed, added)
        return self.out(left)

    @torch.no_grad()
    def draw(self, num: int, given: Tensor | None) -> Tensor:
        """Draw codes (num, rows, columns) place by place, with each layer's results cached.

        Args:
            num: how many grids.
            given: as for `logits`, one for each grid.
        """
        (rows, columns), reach, some = self.rows_and_columns, self.reach, self.embedding.weight
        layers, wide = self.gated_layers, columns + 2 * (reach - 1)
        codes = torch.zeros(num, rows, columns, dtype=torch.long, device=some.device)
        nothing = some.new_zeros(num, self.width, 1, 1)
        above = [some.new_zeros(num, self.width, rows + reach - 1, wide) for _ in layers]
        zero = some.new_zeros(1, 4 * self.width, 1, 1)
        found = [layer.added(given) for layer in layers]
        maps = [(zero if a is None else a).expand(-1, -1, rows, columns) for a in found]
        for i in range(rows):
            row = self._embedded(codes[:, i - 1 : i]) if i else nothing.expand(-1, -1, -1, columns)
            passed, added = [], [of_layer[:, :, i : i + 1] for of_layer in maps]
            for layer, kept, more in zip(layers, above, added):
                kept[:, :, i + reach - 1, reach - 1 : reach - 1 + columns] = row[:, :, 0]
                row, onwards = layer.see_above(kept[:, :, i : i + reach], more)
                passed.append(onwards)
            left = [some.new_zeros(num, self.width, 1, columns + reach - 1) for _ in layers]
            for j in range(columns):
                place = self._embedded(codes[:, i : i + 1, j - 1 : j]) if j else nothing
                for layer, kept, onwards, more in zip(layers, left, passed, added):
                    kept[..., j + reach - 1] = place[..., 0]
                    window, seen = kept[..., j : j + reach], onwards[..., j : j + 1]
                    place = layer.see_left(window, seen, more[..., j : j + 1])
                logits = self.out(place)[:, :, 0, 0]
                codes[:, i, j] = torch.distributions.Categorical(logits=logits).sample()
        return codes

    def _embedded(self, codes: Tensor) -> Tensor:
        """The codes (num, rows, columns) as a map (num, width, rows, columns)."""
        return self.embedding(codes).movedim(-1, 1)


class GatedLayer(nn.Module):
    """A layer of both stacks of a `PixelCNN`, whose kernels see a place and those before.

    The caller shifts and pads.
    """

    def __init__(self, width: int, reach: int, features: int):
        super().__init__()
        self.above = nn.Conv2d(width, 2 * width, (reach, 2 * reach - 1))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.left = nn.Conv2d(width, 2 * width, (1, reach))
        self.onwards = nn.Conv2d(width, width, 1)
        self.given = nn.Linear(features, 4 * width, bias=False) if features else None

    def added(self, given: Tensor | None) -> Tensor | None:
        """What the features at each place add to both stacks, (M, 4 width, rows, columns).

        It has one place where it is the same for all; there is none without features.
        """
        if self.given is None or given is None:
            return None
        at_places = given if given.dim() == 4 else given[..., None, None]
        return self.given(at_places.movedim(1, -1)).movedim(-1, 1)

    def see_above(self, window: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """Next activations of the vertical stack, and what they pass to the horizontal one."""
        h = self.above(window)
        return _gated(h, added, 0), self.across(h)

    def see_left(self, window: Tensor, passed: Tensor, added: Tensor | None) -> Tensor:
        """Next activations of the horizontal stack: the last ones and what is new."""
        new = self.onwards(_gated(self.left(window) + passed, added, 1))
        return window[..., -new.shape[-1] :] + new


def _gated(h: Tensor, added: Tensor | None, part: int) -> Tensor:
    if added is not None:
        h = h + added.chunk(2, dim=1)[part]
    a, b = h.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)
