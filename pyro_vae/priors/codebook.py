"""Priors on the codes of a `pyro_vae.posteriors.Codebook`: uniform, and autoregressive."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pyro_vae.contracts import ProgramOfParts
from pyro_vae.distributions import AutoregressiveCodes, CodeGrid
from pyro_vae.networks import Size, as_shape, check_context_features
from pyro_vae.priors.owner import Owner, codebook_of
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["PixelCNN", "UniformCodes"]


class UniformCodes(nn.Module):
    r"""Uniform codes: every entry of the program's codebook is equally likely at every place.

    .. math:: P(z) = V^{-S}, \quad z_s \in \{e_1, \dots, e_V\}

    for V entries and S places: the prior with which a VQ-VAE is trained. The codebook is that of
    the program's posterior.

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

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        codebook = self._owner.codebook
        grid = self.latent[1:]
        codes = dist.Categorical(logits=codebook.new_zeros(*grid, len(codebook)))
        return CodeGrid(codes.to_event(len(grid)), codebook)


class PixelCNN(nn.Module):
    r"""A gated PixelCNN over the program's codes, row by row, each code given all before it.

    .. math:: P(z) = \prod_s P(k_s \mid k_1, \dots, k_{s-1}, c), \quad z_s = e_{k_s}

    Two stacks of convolutions whose kernels reach only to places before: one sees the rows above,
    the other the row to the left and the first stack. A layer is
    :math:`\tanh(a) \odot \mathrm{sigmoid}(b)` with a, b affine in what the kernel sees and in the
    context c. `log_prob` is exact and takes one pass; a draw keeps the activations of the places
    before and computes those of one place more at a time, so its cost is proportional to the number
    of places. A sequence of codes (D, T) is one row.

    It can be trained with the rest, for the codes get no gradient from it, or afterwards on a
    program whose other parts are frozen, in the place of `UniformCodes`.

    Args:
        latent: event shape of z, (D, \*grid), the grid of one or two dimensions, or (D,) for a
            single code.
        width: channels of the layers.
        layers: how many.
        reach: rows and columns that a kernel sees, itself included.
        context: number of context features, 0 for none: then the codes do not depend on the label,
            if there is one.

    Raises:
        InvalidInput: for a grid of more dimensions, or if it is used with a posterior that has no
            codebook.

    Source: van den Oord et al. (2016), Conditional Image Generation with PixelCNN Decoders.

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
        self, latent: Size, width: int = 64, layers: int = 5, reach: int = 3, context: int = 0
    ):
        super().__init__()
        for name, count in (("width", width), ("layers", layers), ("reach", reach)):
            check_count(name, count)
        self.latent, self.width, self.layers = as_shape(latent), width, layers
        self.reach, self.context = reach, context
        self.codes = 0  # of the codebook that the first and last layers are made for
        if len(self.latent) > 3:
            raise InvalidInput(
                "latent",
                got=str(self.latent),
                expected="a shape (D, rows, columns), (D, length) or (D,)",
                fix="pass latent=(16, 7, 7)",
            )
        self.stack = nn.ModuleList(GatedLayer(width, reach, context) for _ in range(layers))
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

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        codebook = self._owner.codebook
        if self.context:
            check_context_features(self.context, context)
        return CodeGrid(AutoregressiveCodes(self, context if self.context else None), codebook)

    @property
    def gated_layers(self) -> list[GatedLayer]:
        return [layer for layer in self.stack if isinstance(layer, GatedLayer)]

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        rows, columns = (1, 1, *self.latent[1:])[-2:]
        return rows, columns

    def logits(self, codes: Tensor, context: Tensor | None) -> Tensor:
        """Log-odds (M, V, rows, columns) of codes (M, rows, columns), each given those before."""
        seen, reach = self._embedded(codes), self.reach
        above, left = pad(seen, (0, 0, 1, 0))[:, :, :-1], pad(seen, (1, 0, 0, 0))[..., :-1]
        for layer in self.gated_layers:
            window = pad(above, (reach - 1, reach - 1, reach - 1, 0))
            above, passed = layer.see_above(window, context)
            left = layer.see_left(pad(left, (reach - 1, 0, 0, 0)), passed, context)
        return self.out(left)

    @torch.no_grad()
    def draw(self, num: int, context: Tensor | None) -> Tensor:
        """Draw codes (num, rows, columns) place by place, with each layer's results cached."""
        (rows, columns), reach, some = self.rows_and_columns, self.reach, self.embedding.weight
        layers, wide = self.gated_layers, columns + 2 * (reach - 1)
        codes = torch.zeros(num, rows, columns, dtype=torch.long, device=some.device)
        nothing = some.new_zeros(num, self.width, 1, 1)
        above = [some.new_zeros(num, self.width, rows + reach - 1, wide) for _ in layers]
        for i in range(rows):
            row = self._embedded(codes[:, i - 1 : i]) if i else nothing.expand(-1, -1, -1, columns)
            passed = []
            for layer, kept in zip(layers, above):
                kept[:, :, i + reach - 1, reach - 1 : reach - 1 + columns] = row[:, :, 0]
                row, onwards = layer.see_above(kept[:, :, i : i + reach], context)
                passed.append(onwards)
            left = [some.new_zeros(num, self.width, 1, columns + reach - 1) for _ in layers]
            for j in range(columns):
                place = self._embedded(codes[:, i : i + 1, j - 1 : j]) if j else nothing
                for layer, kept, onwards in zip(layers, left, passed):
                    kept[..., j + reach - 1] = place[..., 0]
                    window, seen = kept[..., j : j + reach], onwards[..., j : j + 1]
                    place = layer.see_left(window, seen, context)
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

    def __init__(self, width: int, reach: int, context: int):
        super().__init__()
        self.above = nn.Conv2d(width, 2 * width, (reach, 2 * reach - 1))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.left = nn.Conv2d(width, 2 * width, (1, reach))
        self.onwards = nn.Conv2d(width, width, 1)
        self.given = nn.Linear(context, 4 * width, bias=False) if context else None

    def see_above(self, window: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Next activations of the vertical stack, and what they pass to the horizontal one."""
        h = self.above(window)
        return self._gated(h, context, 0), self.across(h)

    def see_left(self, window: Tensor, passed: Tensor, context: Tensor | None) -> Tensor:
        """Next activations of the horizontal stack: the last ones and what is new."""
        new = self.onwards(self._gated(self.left(window) + passed, context, 1))
        return window[..., -new.shape[-1] :] + new

    def _gated(self, h: Tensor, context: Tensor | None, part: int) -> Tensor:
        if self.given is not None and context is not None:
            h = h + self.given(context).chunk(2, dim=-1)[part][..., None, None]
        a, b = h.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)
