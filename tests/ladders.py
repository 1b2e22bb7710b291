"""Ladders of small grids: any number of levels, and linear ones whose log p(x) is known."""

import functools
import math
from itertools import pairwise

import torch

import pyro_vae as pv

NET, EVENT = pv.networks.Cells, (1, 8, 8)
LATENTS = [(2, 4, 4), (3, 2, 2)]


def path_of(latents=LATENTS, width=6, event=EVENT, context=0, **options):
    """A path of cells between levels on the grids of their latents."""
    grids = [z[1:] for z in latents]
    return pv.networks.Ladder(
        NET(event, grids[0], width=width, context=context, **options),
        [NET((width, *b), a, **options) for b, a in zip([grids[0], *grids], grids)],
        [NET((width, *b), a, context=context, **options) for a, b in pairwise(grids)],
        latents,
        (width, *grids[-1]),
        context,
    )


def ladder(
    latents=LATENTS,
    top=None,
    prior=pv.posteriors.DiagonalNormal,
    posterior=pv.posteriors.RelativeNormal,
    classes=0,
    **options,
):
    """A ladder of any depth, all of whose levels are of one kind."""
    torch.manual_seed(0)
    path = path_of(latents, context=classes, **options)
    return pv.LadderVAE(
        priors=[
            *(prior(z, NET(h, cells=0)) for z, h in zip(latents[:-1], path.states)),
            top or pv.priors.StandardNormal(latents[-1]),
        ],
        likelihood=pv.likelihoods.Bernoulli(
            EVENT, NET(path.states[0], EVENT, width=3, context=classes)
        ),
        posteriors=[posterior(z, NET(both, cells=0)) for z, both in zip(latents, path.merged)],
        path=path,
        context=pv.networks.OneHot(classes) if classes else None,
    )


def ladder_of_codes(latents=LATENTS, codes=(5, 4), learned=True, **options):
    """A ladder with a codebook at each level, under PixelCNNs or uniform codes."""
    numbers = dict(zip(map(tuple, latents), codes))
    small = {"width": 6, "layers": 2, "reach": 2}
    learn = functools.partial(pv.priors.PixelCNN, **small)
    torch.manual_seed(0)
    return ladder(
        latents,
        top=(learn if learned else pv.priors.UniformCodes)(latents[-1]),
        prior=learn if learned else lambda latent, network: pv.priors.UniformCodes(latent),
        posterior=lambda latent, network: pv.posteriors.Codebook(
            latent, network, codes=numbers[tuple(latent)], **options
        ),
    )


class LinearLadder:
    """Four linear normal levels on two grids, with the exact posterior, widened, as the guide.

    Every latent is z_l = P_l h_l + p_l + S_l e_l, and h_l is an affine map of the latents above it;
    the matrices are read off the weights, and all the rest is linear algebra.
    """

    latents = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (2, 1, 1)]
    event, noise = (1, 2, 2), 0.7

    def __init__(self, widen=1.0):
        torch.manual_seed(4)
        self.widen = widen
        path = pv.networks.Ladder(
            NET(self.event, cells=0),
            [
                NET((1, 2, 2), cells=0),
                NET((1, 2, 2), cells=0),
                NET((1, 2, 2), (1, 1), width=4, cells=0),
                NET((4, 1, 1), cells=0),
            ],
            [
                NET((4, 2, 2), width=3, cells=0),
                NET((5, 1, 1), (2, 2), width=4, cells=0),
                NET((4, 1, 1), width=5, cells=0),
            ],
            self.latents,
            (4, 1, 1),
        )
        normal, full = pv.posteriors.DiagonalNormal, pv.posteriors.FullRankNormal
        self.program = pv.LadderVAE(
            priors=[
                *(normal(z, NET(h, cells=0)) for z, h in zip(self.latents[:-1], path.states)),
                pv.priors.StandardNormal(self.latents[-1]),
            ],
            likelihood=pv.likelihoods.Normal(
                self.event, NET(path.states[0], cells=0), scale=self.noise
            ),
            posteriors=[full(z, NET(m, cells=0)) for z, m in zip(self.latents, path.merged)],
            path=path,
        ).double()
        with torch.no_grad():
            patches = path.ups[2].resize  # features of the coarse grid are the four pixels
            patches.weight.copy_(torch.eye(4).reshape(4, 1, 2, 2))
            patches.bias.zero_()
            for prior in self.program.priors[:-1]:
                prior.head.layer.weight[len(prior.head.layer.weight) // 2 :] = 0  # of the scale
            self._find_joint(path)
            for level in range(4):
                self._make_exact(level)

    def _find_joint(self, path):
        """The joint normal of (z_4, z_3, z_2, z_1, x), and each state as a map of the latents."""
        sizes = [math.prod(z) for z in self.latents]
        self.total = sum(sizes)
        ends = [self.total - sum(sizes[:level]) for level in range(4)]  # z_4 comes first
        self.places = [slice(end - size, end) for end, size in zip(ends, sizes)]
        state = torch.zeros(4, self.total).double(), path.start.flatten()
        self.states = {}
        mean = torch.zeros(0).double()
        covariance = torch.zeros(0, 0).double()
        for level in (3, 2, 1, 0):
            self.states[level] = state
            place = self.places[level]
            if level == 3:
                of_z, offset = torch.zeros(sizes[3], 0).double(), torch.zeros(sizes[3]).double()
                noise = torch.ones(sizes[3]).double()
            else:
                size, channels = math.prod(self.latents[level][1:]), self.latents[level][0]
                layer = self.program.priors[level].head.layer
                matrix, bias = kron(layer.weight[:channels], layer.bias[:channels], size)
                of_z = matrix @ state[0][:, : place.start]
                offset = matrix @ state[1] + bias
                raw = layer.bias[channels:].repeat_interleave(size)
                noise = torch.nn.functional.softplus(raw) + 1e-4
            mean, covariance = follow(mean, covariance, of_z, offset, noise.square().diag())
            size = math.prod(self.latents[level][1:])
            matrix, bias = kron(path.joins[level].layer.weight, path.joins[level].layer.bias, size)
            of_all, constant = state[0].clone(), state[1] + bias
            of_all[:, place] += matrix
            if level:
                down = path.downs[level - 1].resize
                layer = down[0] if level == 2 else down
                matrix, bias = kron(layer.weight, layer.bias, size)
                if level == 2:  # then every place is repeated four times
                    repeat = torch.kron(torch.eye(4), torch.ones(4, 1)).double()
                    matrix, bias = repeat @ matrix, repeat @ bias
                state = matrix @ of_all, matrix @ constant + bias
        layer = self.program.likelihood.head.layer
        matrix, bias = kron(layer.weight, layer.bias, 4)
        self.mean, self.covariance = follow(
            mean, covariance, matrix @ of_all, matrix @ constant + bias,
            self.noise**2 * torch.eye(4).double(),
        )  # fmt: skip

    def _make_exact(self, level):
        """Set a posterior to p(z_l | x, z above), as a map of x and of the state."""
        place, x = self.places[level], slice(self.total, self.total + 4)
        given = [*range(place.start), *range(x.start, x.stop)]
        cross = self.covariance[place][:, given]
        gain = torch.linalg.solve(self.covariance[given][:, given], cross.T).T
        covariance = self.covariance[place][:, place] - gain @ cross.T
        of_above, of_x = gain[:, : place.start], gain[:, place.start :]
        of_state, constant = self.states[level]
        through = of_above @ torch.linalg.pinv(of_state[:, : place.start])
        torch.testing.assert_close(through @ of_state[:, : place.start], of_above)
        offset = self.mean[place] - gain @ self.mean[given] - through @ constant
        tril = self.widen * torch.linalg.cholesky(covariance)
        posterior, entries = self.program.posteriors[level], len(tril)
        posterior.head.layer.weight.zero_()
        posterior.head.layer.weight[:entries] = torch.cat([of_x, through], 1)
        raw = torch.log(torch.expm1(tril.diagonal() - 1e-4))
        posterior.head.layer.bias.copy_(torch.cat([offset, raw]))
        posterior.covariances.layer.weight.zero_()
        rows, columns = torch.tril_indices(entries, entries, offset=-1)
        posterior.covariances.layer.bias.copy_(tril[rows, columns])

    @property
    def marginal(self):
        """The distribution of x, flattened."""
        return torch.distributions.MultivariateNormal(
            self.mean[self.total :], self.covariance[self.total :, self.total :]
        )

    def kl(self):
        """KL of the widened guide to the posterior."""
        return self.total * (0.5 * (self.widen**2 - 1) - math.log(self.widen))

    def data(self, num):
        generator = torch.Generator().manual_seed(6)
        noise = torch.randn(num, 4, generator=generator, dtype=torch.float64)
        x = self.marginal.mean + noise @ self.marginal.scale_tril.T
        return x.reshape(num, *self.event)


def kron(weight, bias, size):
    """A convolution of kernel size 1 on ``size`` places as a matrix, with its offset."""
    return torch.kron(weight.flatten(1), torch.eye(size).double()), bias.repeat_interleave(size)


def follow(mean, covariance, matrix, offset, noise):
    """The joint normal of y and u = A y + b + noise."""
    cross = matrix @ covariance
    both = torch.cat([covariance, cross], 0), torch.cat([cross.T, cross @ matrix.T + noise], 0)
    return torch.cat([mean, matrix @ mean + offset]), torch.cat(both, 1)
