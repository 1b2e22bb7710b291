"""Training steps of other libraries on the plain VAE; those that are not installed are left out."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], object]


def steps(features: int, hidden: int, latent: int, x: Tensor) -> dict[str, Step]:
    """A step for each peer that is installed."""
    found: dict[str, Step] = {}
    if importlib.util.find_spec("pythae"):
        found["pythae"] = pythae_step(features, hidden, latent)
    if importlib.util.find_spec("numpyro"):
        found["NumPyro, jitted update"] = NumPyro(features, hidden, latent, x, scanned=False)
        found["NumPyro, lax.scan"] = NumPyro(features, hidden, latent, x, scanned=True)
    return found


def pythae_step(features: int, hidden: int, latent: int) -> Step:
    """What pythae's BaseTrainer does for a batch: forward, backward, a plain Adam, and the loss read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = torch.nn.Linear(features, hidden)
            self.mean, self.log_var = torch.nn.Linear(hidden, latent), torch.nn.Linear(hidden, latent)

        def forward(self, x):
            h = torch.relu(self.hidden(x.reshape(len(x), -1)))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(latent, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, features),
                                              torch.nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z).reshape(len(z), features))

    model = VAE(VAEConfig(input_dim=(features,), latent_dim=latent, reconstruction_loss="bce"), Encoder(), Decoder())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run(x: Tensor) -> float:
        loss = model({"data": x}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


class NumPyro:
    """NumPyro's SVI on the same model: ``svi.update`` jitted, or a whole round as one `lax.scan`."""

    def __init__(self, features: int, hidden: int, latent: int, x: Tensor, scanned: bool):
        import jax
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist

        self.scanned = scanned

        def dense(name, inputs, outputs):
            init = jax.random.normal(jax.random.PRNGKey(len(name)), (inputs, outputs)) * inputs**-0.5
            return numpyro.param(f"{name}.weight", init), numpyro.param(f"{name}.bias", jnp.zeros(outputs))

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

        svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.Trace_ELBO())
        batch = jnp.asarray(x.numpy())
        self.state = svi.init(jax.random.PRNGKey(0), batch)
        self.update = jax.jit(svi.update)
        self.epoch = jax.jit(lambda state, batches: jax.lax.scan(svi.update, state, batches))
        self.pending: list = []
        self.as_array, self.stack, self.block = (lambda t: jnp.asarray(t.numpy())), jnp.stack, jax.block_until_ready
        self.loss = self.update(self.state, batch)[1]

    def __call__(self, x: Tensor) -> None:
        batch = self.as_array(x)
        if self.scanned:
            self.pending.append(batch)
        else:
            self.state, self.loss = self.update(self.state, batch)

    def wait(self) -> None:
        if self.pending:
            self.state, self.loss = self.epoch(self.state, self.stack(self.pending))
            self.pending = []
        self.block(self.loss)
