"""Networks: from an input and an optional context to features.

The contract: ``network(in_shape, ...)`` is a module with ``out_shape``; its ``forward(x,
context=None)`` maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)`` for any leading batch
dimensions, the context's batch broadcast against the input's. The context joins features, so the
input is encoded once even where the context carries more batch dimensions. A network that makes
images or sequences is told their shape by ``size=``. Networks that keep this say ``takes_draws =
True``. Any other module with ``out_shape`` serves too, such as a plain `torch.nn.Sequential`: it is
called on a single batch dimension. Nothing needs to be inherited. `OneHot`, which turns labels into a context's features, is no network in this sense,
and `WithMask` wraps one for data with missing entries, `Corrupted` one for denoising: they stay out
of ``__all__``, from which choices and tests are derived.
"""

# ruff: noqa: F401  (what components and programs are built with is found here, outside of __all__)
from pyro_vae.networks import corruptions
from pyro_vae.networks.context import Corrupted, Covariates, OneHot, WithMask, WithoutContext
from pyro_vae.networks.convolutional import (
    Conv,
    Conv1d,
    ConvTranspose,
    ConvTranspose1d,
    ResidualConv,
    ResidualConvTranspose,
)
from pyro_vae.networks.dense import MLP, GatedMLP
from pyro_vae.networks.head import Head, Join
from pyro_vae.networks.recurrent import Recurrent, RecurrentDecoder
from pyro_vae.networks.shapes import (
    Size,
    as_shape,
    broadcast_batch,
    check_context_features,
    features_of,
    flatten_event,
    out_shape_of,
    over_batch,
    tell_event_dim,
)

__all__ = [
    "MLP",
    "GatedMLP",
    "Conv",
    "ConvTranspose",
    "ResidualConv",
    "ResidualConvTranspose",
    "Conv1d",
    "ConvTranspose1d",
    "Recurrent",
    "RecurrentDecoder",
]
