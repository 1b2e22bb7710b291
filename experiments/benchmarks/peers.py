"""Training rounds of the other libraries that are installed, on the plain and convolutional VAE."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

Round = Callable[[], object]


def rounds(features: int, hidden: int, latent: int, batches: Sequence[Tensor]) -> dict[str, Round]:
    """For each peer that is installed, one pass over the batches."""
    found: dict[str, Round] = {}
    if importlib.util.find_spec("pythae"):
        found["pythae's trainer"] = Pythae(features, hidden, latent, batches)
    if importlib.util.find_spec("numpyro"):
        found |= numpyro_rounds(*plain_numpyro(features, hidden, latent), batches)
    return found


def convolutional_rounds(batches: Sequence[Tensor]) -> dict[str, Round]:
    """The same for the convolutional VAE."""
    return (
        numpyro_rounds(*convolutional_numpyro(), batches)
        if importlib.util.find_spec("numpyro")
        else {}
    )


# pythae


def pythae_model(features: int, hidden: int, latent: int):
    """pythae's VAE with the same layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(features, hidden)
            self.mean, self.log_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

        def forward(self, x):
            h = torch.relu(self.hidden(x.reshape(len(x), -1)))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features), nn.Sigmoid()
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z).reshape(len(z), features))

    return VAE(
        VAEConfig(input_dim=(features,), latent_dim=latent, reconstruction_loss="bce"),
        Encoder(),
        Decoder(),
    )


class Pythae:
    """An epoch of pythae's own BaseTrainer, its data loader included."""

    def __init__(self, features: int, hidden: int, latent: int, batches: Sequence[Tensor]):
        model = pythae_model(features, hidden, latent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pythae.data.datasets import BaseDataset
            from pythae.trainers import BaseTrainer, BaseTrainerConfig
        data = BaseDataset(torch.cat(list(batches)), torch.zeros(sum(map(len, batches))))
        folder = tempfile.mkdtemp()
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=len(batches[0]),
            learning_rate=1e-3,
            no_cuda=True,
        )
        self.trainer = BaseTrainer(model, data, training_config=config)
        self.trainer.prepare_training()
        self.folder, self.epoch = Path(folder), 0

    def __call__(self) -> float:
        self.epoch += 1
        return self.trainer.train_step(self.epoch)


# NumPyro


def numpyro_rounds(model: Callable, guide: Callable, batches: Sequence[Tensor]) -> dict[str, Round]:
    """Time NumPyro's SVI in two ways: ``svi.update`` jitted, and a whole pass as one `lax.scan`.

    The batches are JAX arrays beforehand.
    """
    import jax
    import jax.numpy as jnp
    import numpyro

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.Trace_ELBO())
    arrays = [jnp.asarray(x.numpy()) for x in batches]
    stacked = jnp.stack(arrays)
    update, epoch = (
        jax.jit(svi.update),
        jax.jit(lambda state, xs: jax.lax.scan(svi.update, state, xs)),
    )
    states = {name: svi.init(jax.random.PRNGKey(0), arrays[0]) for name in ("update", "scan")}

    def updates() -> None:
        state = states["update"]
        for x in arrays:
            state, _ = update(state, x)
        states["update"] = jax.block_until_ready(state)

    def scan() -> None:
        states["scan"] = jax.block_until_ready(epoch(states["scan"], stacked)[0])

    return {"NumPyro, jitted update": updates, "NumPyro, lax.scan": scan}


def plain_numpyro(features: int, hidden: int, latent: int) -> tuple[Callable, Callable]:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def dense(name, inputs, outputs):
        init = jax.random.normal(jax.random.PRNGKey(len(name)), (inputs, outputs)) * inputs**-0.5
        return numpyro.param(f"{name}.weight", init), numpyro.param(
            f"{name}.bias", jnp.zeros(outputs)
        )

    def affine(h, layer):
        return h @ layer[0] + layer[1]

    def model(x):
        first, second = dense("decoder1", latent, hidden), dense("decoder2", hidden, features)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            logits = affine(jax.nn.relu(affine(z, first)), second)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        first, second = dense("encoder1", features, hidden), dense("encoder22", hidden, 2 * latent)
        loc, raw = jnp.split(affine(jax.nn.relu(affine(x, first)), second), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-4).to_event(1))

    return model, guide


def convolutional_numpyro() -> tuple[Callable, Callable]:
    """Build the layers of `steps.convolutional` in JAX.

    3x3 convolutions of stride 2 with 16 and 32 channels, a dense layer of 128, and back.
    """
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def param(name, *shape, fan):
        init = jax.random.normal(jax.random.PRNGKey(len(name)), shape) * fan**-0.5
        return numpyro.param(name, init)

    def dense(name, h, outputs):
        return h @ param(f"{name}.weight", h.shape[-1], outputs, fan=h.shape[-1]) + numpyro.param(
            f"{name}.bias", jnp.zeros(outputs)
        )

    def convolution(name, h, outputs, transposed=False, size=3, stride=2):
        kernel = param(
            f"{name}.weight", size, size, h.shape[-1], outputs, fan=size * size * h.shape[-1]
        )
        apply = jax.lax.conv_transpose if transposed else jax.lax.conv_general_dilated
        out = apply(h, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return out + numpyro.param(f"{name}.bias", jnp.zeros(outputs))

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(20), 1.0).to_event(1))
            h = jax.nn.relu(dense("up", jax.nn.relu(dense("decode", z, 128)), 7 * 7 * 32)).reshape(
                -1, 7, 7, 32
            )
            h = jax.nn.relu(convolution("up1", h, 32, transposed=True))
            h = jax.nn.relu(convolution("up2", h, 16, transposed=True))
            logits = convolution("pixels", h, 1, size=1, stride=1)
            numpyro.sample(
                "x", dist.Bernoulli(logits=logits).to_event(3), obs=x.reshape(-1, 28, 28, 1)
            )

    def guide(x):
        h = jax.nn.relu(convolution("down1", x.reshape(-1, 28, 28, 1), 16))
        h = jax.nn.relu(convolution("down2", h, 32)).reshape(len(x), -1)
        loc, raw = jnp.split(dense("head", jax.nn.relu(dense("encode", h, 128)), 40), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-4).to_event(1))

    return model, guide
