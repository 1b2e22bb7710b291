"""The cases' models as one writes them without a library, and what no program can do without.

Each module's ``forward`` takes a batch and returns the mean of the negative bound, in nats. Sizes
and networks are those of the case of the same name in ``steps.py``, which checks that the numbers
of parameters agree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[Tensor], object]


def layers(*widths: int, last: bool = False) -> nn.Sequential:
    """Dense layers with ReLUs between them, and after the last one if asked."""
    found: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        found += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*(found if last else found[:-1]))


def normal(raw: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = raw.chunk(2, -1)
    return loc, F.softplus(scale) + 1e-4


def draw(loc: Tensor, scale: Tensor) -> Tensor:
    return loc + scale * torch.randn_like(scale)


def log_normal(z: Tensor, loc: Tensor | float, scale: Tensor) -> Tensor:
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_standard(z: Tensor) -> Tensor:
    return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    return -each.flatten(-x[0].dim()).sum(-1)


class Plain(nn.Module):
    """One latent, dense layers, and the closed form of the KL."""

    def __init__(self, features: int, hidden: Sequence[int], latent: int):
        super().__init__()
        self.encoder = layers(features, *hidden, 2 * latent)
        self.decoder = layers(latent, *hidden[::-1], features)

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = normal(self.encoder(x))
        logits = self.decoder(draw(loc, scale))
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        return (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)


class Convolutional(Plain):
    """The same with convolutions on images of 28 x 28."""

    def __init__(self):
        nn.Module.__init__(self)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), layers(1568, 128, 40),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            layers(20, 128, 1568, last=True), nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.Conv2d(16, 1, 1),
        )  # fmt: skip


class Vamp(Plain):
    """A VampPrior: a mixture of q(z | u) over pseudo-inputs u."""

    def __init__(self, features: int, hidden: Sequence[int], latent: int, components: int):
        super().__init__(features, hidden, latent)
        self.pseudo_inputs = nn.Parameter(torch.randn(components, features))

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = normal(self.encoder(x))
        z = draw(loc, scale)
        each = log_normal(z[:, None], *normal(self.encoder(self.pseudo_inputs)))
        log_prior = each.logsumexp(-1) - math.log(len(self.pseudo_inputs))
        log_q = log_normal(z, loc, scale)
        return (log_q - log_prior - log_bernoulli(self.decoder(z), x)).mean()


class Spline(nn.Module):
    """A posterior of two autoregressive spline transforms, which are Zuko's."""

    def __init__(self, features: int, hidden: int, latent: int):
        super().__init__()
        from pyro_vae.distributions.flows import zuko_transform

        self.encoder, self.head = (
            layers(features, hidden, last=True),
            nn.Linear(hidden, 2 * latent),
        )
        self.transform = zuko_transform("spline", latent, hidden, 2, (64, 64))
        self.decoder = layers(latent, hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        loc, scale = normal(self.head(features))
        noise = draw(loc, scale)
        z, log_det = self.transform(features).call_and_ladj(noise)
        log_q = log_normal(noise, loc, scale) - log_det
        return (log_q - log_standard(z) - log_bernoulli(self.decoder(z), x)).mean()


class Weighted(Plain):
    """The importance-weighted bound of K draws."""

    def __init__(self, features: int, hidden: Sequence[int], latent: int, draws: int):
        super().__init__(features, hidden, latent)
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = normal(self.encoder(x))
        z = draw(loc.expand(self.draws, *loc.shape), scale.expand(self.draws, *scale.shape))
        log_weights = (
            log_standard(z) + log_bernoulli(self.decoder(z), x) - log_normal(z, loc, scale)
        )
        return -(log_weights.logsumexp(0) - math.log(self.draws)).mean()


class TwoLevels(nn.Module):
    """Two stochastic levels, inferred bottom up."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers(784, 200, 200, 200), layers(100, 100, 100, 100)
        self.prior, self.decoder = layers(50, 100, 100, 200), layers(100, 200, 200, 784)

    def forward(self, x: Tensor) -> Tensor:
        q_1 = normal(self.first(x))
        z_1 = draw(*q_1)
        q_2 = normal(self.second(z_1))
        z_2 = draw(*q_2)
        log_p = log_standard(z_2) + log_normal(z_1, *normal(self.prior(z_2)))
        log_q = log_normal(z_1, *q_1) + log_normal(z_2, *q_2)
        return (log_q - log_p - log_bernoulli(self.decoder(z_1), x)).mean()


def trained(net: nn.Module, compiled: bool) -> Step:
    """A step of the loop that one writes, with the fused optimiser."""
    loss_of = torch.compile(net) if compiled else net
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def run(x: Tensor) -> Tensor:
        loss = loss_of(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return run


class _Products(TorchDispatchMode):
    """Keep each product and convolution that is computed, to compute it again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, fn, types, args=(), kwargs=None):
        result = fn(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if fn is aten.addmm.default:  # without the bias, whose sum is no product
            self.calls.append(lambda: torch.mm(*args[1:], out=result))
        elif fn in (aten.mm.default, aten.bmm.default):
            self.calls.append(lambda: fn.overloadpacket.out(*args, out=result))
        elif fn in (aten.convolution.default, aten.convolution_backward.default):
            self.calls.append(lambda: fn(*args, **(kwargs or {})))
        return result


def floor(net: nn.Module, x: Tensor) -> Step:
    """Only the matrix products and convolutions of a step, by torch, and the fused optimiser."""
    with _Products() as products:
        net(x).backward()
    parameters = [p.detach() for p in net.parameters()]
    gradients, first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(3))
    steps = [torch.ones((), device=x.device) for _ in parameters]
    options = dict(lr=0.0, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8)

    @torch.no_grad()
    def run(x: Tensor) -> None:
        for call in products.calls:
            call()
        torch._fused_adam_(
            parameters, gradients, first, second, [], steps,
            **options, amsgrad=False, maximize=False,
        )  # fmt: skip

    return run
