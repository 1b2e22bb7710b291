"""The codebook of a VQ-VAE."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import nearest_code
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.ranks.batch import whole_batch
from pyro_vae.validation import InvalidInput, as_number, check_count, check_weight

__all__ = ["Codebook"]


class Codebook(nn.Module):
    r"""The nearest entry of a learned codebook at every place of a grid: the encoder of a VQ-VAE.

    .. math:: q(z \mid x) = \delta(z - e_{k(x)}), \quad k_s(x) = \arg\min_v \|e_v - f_s(x)\|

    with a vector f_s of the encoder, of D numbers, at each place s. Codes are discrete, so there is
    a bound on log p(x), the log-joint: with `pyro_vae.priors.UniformCodes` a reconstruction and S
    log V nats for the S codes, with `pyro_vae.priors.PixelCNN` fewer. The gradient passes through
    the choice as if it were the identity (straight through),
    :math:`z = f + \mathrm{sg}(e_k - f)`. Two more things happen in training only:

    - the guide has a factor :math:`-\beta\, \|f(x) - \mathrm{sg}(e_k)\|^2`, which commits the
      encoder to its codes;
    - each entry follows the mean of the vectors that chose it, by exponentially decaying sums of
      their number n and of themselves m, :math:`e_v = m_v / n_v`; with :math:`n_v` below
      ``restart`` it starts anew at one of the batch's vectors. The entries move when the next batch
      comes in, so model and guide always see the same ones, and not at all once the encoder is
      frozen.

    Args:
        latent: event shape of z, (D, \*grid): D numbers at each place; (D,) for a single code.
        network: the encoder, from x to features.
        codes: number of entries V.
        commitment: :math:`\beta`, in nats for each squared unit.
        decay: of the sums, between 0 and 1.
        restart: how many vectors of a batch, on a decaying average, must choose an entry that is to
            stay.

    Raises:
        InvalidInput: on fewer than two codes, a decay outside (0, 1), or a commitment or restart
            that is negative.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), Neural Discrete Representation Learning;
    Dhariwal et al. (2020), Jukebox, for the restarts.

    Example:
        >>> q = Codebook((4, 7, 7), pv.networks.Conv((1, 28, 28), [8, 8], hidden=[]), codes=16)
        >>> q.indices(q(torch.zeros(5, 1, 28, 28)).mean).shape
        torch.Size([5, 7, 7])
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    initialized: Tensor

    def __init__(
        self,
        latent: Size,
        network: nn.Module,
        codes: int = 128,
        commitment: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.1,
    ):
        super().__init__()
        check_count("codes", codes, minimum=2)
        check_weight("commitment", commitment)
        check_weight("restart", restart)
        if not 0 < as_number(decay) < 1:
            raise InvalidInput(
                "decay", got=repr(decay), expected="a number between 0 and 1", fix="pass decay=0.99"
            )
        self.latent, self.network, self.codes = as_shape(latent), network, codes
        self.commitment, self.decay, self.restart = commitment, decay, restart
        self.head = Head(out_shape_of(network), self.latent)
        entries = torch.randn(codes, self.latent[0])
        self.register_buffer("codebook", entries)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", entries.clone())
        self.register_buffer("initialized", torch.tensor(False))

    def indices(self, z: Tensor) -> Tensor:
        r"""Numbers (\*batch, \*grid) of the entries nearest to z (\*batch, \*latent)."""
        return nearest_code(z, self.codebook, len(self.latent))

    @torch.no_grad()
    def initialize(self, x: Tensor, features: Tensor | None) -> None:
        r"""Start the entries at the encoder's vectors of random data (N, \*event), once."""
        if self.initialized:
            return
        rows = torch.randint(len(x), (min(len(x), 4 * self.codes),), device=x.device)
        vectors = self._vectors(self._encode(x[rows], None if features is None else features[rows]))
        chosen = vectors[torch.randint(len(vectors), (self.codes,), device=x.device)]
        # No two are alike: of several entries in one place only the first would ever be chosen.
        chosen = chosen + 1e-2 * vectors.std() * torch.randn_like(chosen)
        for buffer in (self.codebook, self.sums):
            buffer.copy_(chosen)
        self.initialized.fill_(True)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        vectors = self._encode(x, context)
        learns = self.training and vectors.requires_grad
        if learns:
            self.codebook.copy_(self.sums / self.counts.clamp_min(1e-6).unsqueeze(-1))
        codes = self.indices(vectors.detach())
        entries = self.codebook[codes].movedim(-1, -len(self.latent))
        # Without a gradient to pass, an entry to the bit: the sum rounds, by batch and by place.
        point = vectors + (entries - vectors).detach() if vectors.requires_grad else entries
        density = dist.Delta(point, event_dim=len(self.latent))
        if learns:
            self._follow(whole_batch(self._vectors(vectors)), whole_batch(codes.flatten()))
            apart = (vectors - entries).square().flatten(vectors.dim() - len(self.latent)).sum(-1)
            # A factor that the program puts in its guide.
            density.training_term = -self.commitment * apart
        return density

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        (vectors,) = self.head(features_of(self.network, x, context))
        return vectors

    def _vectors(self, z: Tensor) -> Tensor:
        r"""The vectors of a map (\*batch, D, \*grid) as rows (M, D)."""
        return z.movedim(-len(self.latent), -1).reshape(-1, self.latent[0])

    @torch.no_grad()
    def _follow(self, vectors: Tensor, codes: Tensor) -> None:
        """Move the decaying sums towards those of a batch's vectors (M, D) with codes (M,)."""
        chosen = nn.functional.one_hot(codes, self.codes).to(vectors.dtype)
        counts = self.counts.lerp(chosen.sum(0), 1 - self.decay)
        sums = self.sums.lerp(chosen.T @ vectors, 1 - self.decay)
        is_idle = counts < self.restart
        anew = vectors[torch.randint(len(vectors), (self.codes,), device=vectors.device)]
        self.counts.copy_(torch.where(is_idle, torch.ones_like(counts), counts))
        self.sums.copy_(torch.where(is_idle.unsqueeze(-1), anew, sums))
