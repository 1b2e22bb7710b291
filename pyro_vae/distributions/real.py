"""Distributions of real numbers."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

__all__ = ["StudentT"]


class StudentT(dist.StudentT):
    r"""Student's t, its log-density computed in double precision.

    .. math:: p(x) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\pi \nu}\, s}
              \left(1 + \frac{(x - \mu)^2}{\nu s^2}\right)^{-\frac{\nu + 1}{2}}

    In float32 the two log-gammas of torch's own cancel: at :math:`\nu = 10^4` it is off by 0.005.

    Args:
        df: degrees of freedom :math:`\nu`.
        loc: the location :math:`\mu`.
        scale: the scale s.

    Example:
        >>> StudentT(torch.tensor(1e4)).log_prob(torch.tensor(0.0))
        tensor(-0.9190)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        df, loc, scale = self.df.double(), self.loc.double(), self.scale.double()
        exact = dist.StudentT(df, loc, scale, validate_args=False).log_prob(value.double())
        return exact.to(self.loc.dtype)
