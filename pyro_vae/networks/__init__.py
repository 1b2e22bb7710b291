"""Networks: from an input and an optional context to features.

The contract: ``network(in_shape, ...)`` is a module with ``out_shape``; its ``forward(x,
context=None)`` maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)`` for any leading batch
dimensions, the context's batch broadcast against the input's. The context joins features, so the
input is encoded once even where the context carries more batch dimensions. A network that makes
images or sequences is told their shape by ``size=``. A network that keeps this contract says
``takes_draws = True``. Any other module with ``out_shape``, such as a plain `torch.nn.Sequential`,
serves too: it is called on a single batch dimension. Nothing is inherited.

Layers and what wraps a network live here, densities do not. ``__all__`` holds the networks alone,
for choices and tests are derived from it: not `OneHot`, `Covariates` and `ColumnFeatures`, which
turn a context into features, nor `WithMask`, `Corrupted`, `WithoutContext`, `Bayesian` and `ARD`,
which wrap a network, nor `Ladder`, which is made of several.
"""

# ruff: noqa: F401  (components and programs import the other names from here)
from pyro_vae.networks import cells, corruptions
from pyro_vae.networks.context import (
    ColumnFeatures,
    Corrupted,
    Covariates,
    OneHot,
    WithMask,
    WithoutContext,
)
from pyro_vae.networks.dense import MLP, GatedMLP
from pyro_vae.networks.global_latents import ARD, Bayesian, Sample, WithGlobals
from pyro_vae.networks.grids import Cells
from pyro_vae.networks.head import Head, Join, bounded
from pyro_vae.networks.images import Conv, ConvTranspose
from pyro_vae.networks.ladder import Ladder, side_by_side
from pyro_vae.networks.recurrent import Recurrent, RecurrentDecoder
from pyro_vae.networks.residual import ResidualConv, ResidualConvTranspose
from pyro_vae.networks.sequences import Conv1d, ConvTranspose1d
from pyro_vae.networks.shapes import (
    Shape,
    Size,
    as_context,
    as_shape,
    broadcast_batch,
    check_context_features,
    features_of,
    flatten_event,
    out_shape_of,
    over_batch,
    tell_event_dim,
)
from pyro_vae.networks.steps import RecurrentSmoother, StepwiseMLP
from pyro_vae.networks.words import BagOfWords

__all__ = [
    "MLP",
    "GatedMLP",
    "Conv",
    "ConvTranspose",
    "ResidualConv",
    "ResidualConvTranspose",
    "Cells",
    "Conv1d",
    "ConvTranspose1d",
    "BagOfWords",
    "Recurrent",
    "RecurrentDecoder",
    "RecurrentSmoother",
    "StepwiseMLP",
]
