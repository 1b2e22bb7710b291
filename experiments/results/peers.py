"""Train one VAE by four libraries, and apply their estimators of log p(x) to one model.

    python experiments/results/peers.py FOLDER

The libraries are this one, Pyro, pythae and NumPyro. Static MNIST, 784-400(ReLU)-z20, batch 100,
Adam 1e-3, two epochs, seed 0. Each part is a process of its own with one thread, so that its memory
can be told, and leaves FOLDER/PART.json; parts that are there are not run again. Each trained model
is wrapped as a `pyro_vae.Program` and scored by one estimator, importance sampling with its own
guide. The second half simulates data from pythae's model, bounds log p(x) from both sides by
annealing, and asks each library's own estimator for log p(x).
"""

import json
import math
import resource
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.evaluation.importance_score import UnreliableEstimate

FEATURES, HIDDEN, LATENT, BATCH, EPOCHS, RATE, PARTICLES, PSEUDO = (
    784,
    400,
    20,
    100,
    2,
    1e-3,
    5,
    100,
)
TEST, DRAWS, SIMULATED = 300, 1000, 20


def data() -> tuple[Tensor, Tensor]:
    train, test = pv.datasets.load("binarized_mnist")
    return train.x.flatten(1), test.x[:TEST].flatten(1)


# training


def train_ours(kind: str, x: Tensor) -> pv.VAE:
    torch.manual_seed(0)
    prior = (
        pv.priors.VampPrior(LATENT, components=PSEUDO)
        if kind == "VampPrior"
        else pv.priors.StandardNormal(LATENT)
    )
    vae = pv.VAE(
        prior,
        pv.likelihoods.Bernoulli((FEATURES,), pv.networks.MLP(LATENT, [HIDDEN])),
        pv.posteriors.DiagonalNormal(LATENT, pv.networks.MLP((FEATURES,), [HIDDEN])),
    )
    objective = (
        pv.objectives.IWAE(num_particles=PARTICLES) if kind == "IWAE" else pv.objectives.ELBO()
    )
    pv.fit(
        vae,
        x,
        objective=objective,
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=RATE,
        progress=False,
    )
    return vae


def layers() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT)),
        nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, FEATURES)),
    )


def program_of(encode, decode, log_prior=None, modules=()) -> pv.Program:
    """Wrap a peer's model as a program.

    ``encode`` maps x to mean and scale, ``decode`` z to log-odds; the prior is N(0, I) unless
    given.
    """

    def model(x):
        with pyro.plate("data", len(x)):
            prior = log_prior() if log_prior else dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
            pyro.sample(
                "x", dist.Bernoulli(logits=decode(pyro.sample("z", prior))).to_event(1), obs=x
            )

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encode(x)).to_event(1))

    return pv.Program(model, guide, modules=modules, event_shape=(FEATURES,))


def train_pyro(kind: str, x: Tensor) -> pv.Program:
    """Train by a loop over `SVI.step`, with modules in Pyro's store, as in its VAE example."""
    encoder, decoder = layers()

    def encode(x):
        loc, log_scale = encoder(x).chunk(2, dim=-1)
        return loc, log_scale.exp()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encode(x)).to_event(1))

    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": RATE}), pyro.infer.Trace_ELBO())
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            svi.step(x[batch])
    return program_of(encode, decoder, modules=[encoder, decoder])


def pythae_model(kind: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pythae import models
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    encoder, decoder = layers()

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = encoder

        def forward(self, x):
            loc, log_var = self.net(x.reshape(len(x), -1)).chunk(2, dim=-1)
            return ModelOutput(embedding=loc, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = decoder

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    own = {
        "IWAE": {"number_samples": PARTICLES},
        "VAMP": {"number_components": PSEUDO, "linear_scheduling_steps": 0},
    }.get(kind, {})
    config = getattr(models, f"{kind}Config")(
        input_dim=(FEATURES,), latent_dim=LATENT, reconstruction_loss="bce", **own
    )
    return getattr(models, kind)(config, Encoder(), Decoder())


def pythae_program(model, kind: str) -> pv.Program:
    def moments(out):
        return out.embedding, torch.exp(0.5 * out.log_covariance)

    def vamp():
        pseudo = model.pseudo_inputs(model.idle_input)
        loc, scale = moments(model.encoder(pseudo))
        return dist.MixtureSameFamily(
            dist.Categorical(logits=torch.zeros(PSEUDO)), dist.Normal(loc, scale).to_event(1)
        )

    def encode(x):
        return moments(model.encoder(x))

    return program_of(encode, model.decoder.net, vamp if kind == "VAMP" else None, modules=[model])


def train_pythae(kind: str, x: Tensor) -> pv.Program:
    import tempfile

    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = pythae_model(kind)
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        no_cuda=True,
        seed=0,
    )
    trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=config)
    trainer.prepare_training()
    for epoch in range(1, EPOCHS + 1):
        trainer.train_step(epoch)
    return pythae_program(model.eval(), kind)


def numpyro_pair(params=None):
    """Build NumPyro's model and guide of the same layers, with given or learned parameters."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as jdist

    nets = [[layer for layer in net if isinstance(layer, nn.Linear)] for net in layers()]
    start = params or {
        f"{name}{i}.{part}": jnp.asarray(getattr(layer, part).detach().numpy())
        for name, net in zip(("encoder", "decoder"), nets)
        for i, layer in enumerate(net)
        for part in ("weight", "bias")
    }

    def value(name):
        return start[name] if params else numpyro.param(name, start[name])

    def net(name, h):
        h = jax.nn.relu(h @ value(f"{name}0.weight").T + value(f"{name}0.bias"))
        return h @ value(f"{name}1.weight").T + value(f"{name}1.bias")

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", jdist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            numpyro.sample("x", jdist.Bernoulli(logits=net("decoder", z)).to_event(1), obs=x)

    def guide(x):
        loc, raw = jnp.split(net("encoder", x), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", jdist.Normal(loc, jnp.exp(raw / (2 if params else 1))).to_event(1))

    return model, guide


def train_numpyro(kind: str, x: Tensor) -> pv.Program:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    model, guide = numpyro_pair()
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(RATE), numpyro.infer.Trace_ELBO())
    array, update = jnp.asarray(x.numpy()), jax.jit(svi.update)
    state = svi.init(jax.random.PRNGKey(0), array[:BATCH])
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            state, _ = update(state, array[batch.numpy()])
    found = {
        name: torch.from_numpy(np.array(value)) for name, value in svi.get_params(state).items()
    }

    def net(name, h):
        h = torch.relu(h @ found[f"{name}0.weight"].T + found[f"{name}0.bias"])
        return h @ found[f"{name}1.weight"].T + found[f"{name}1.bias"]

    def encode(x):
        loc, log_scale = net("encoder", x).chunk(2, dim=-1)
        return loc, log_scale.exp()

    return program_of(encode, lambda z: net("decoder", z))


TRAINED = {
    "pyro_vae, VAE": (train_ours, "VAE"),
    "Pyro, SVI.step": (train_pyro, "VAE"),
    "NumPyro, jitted update": (train_numpyro, "VAE"),
    "pythae, VAE": (train_pythae, "VAE"),
    "pyro_vae, IWAE": (train_ours, "IWAE"),
    "pythae, IWAE": (train_pythae, "IWAE"),
    "pyro_vae, VampPrior": (train_ours, "VampPrior"),
    "pythae, VAMP": (train_pythae, "VAMP"),
}


def trained(name: str) -> dict:
    train, kind = TRAINED[name]
    x, test = data()
    torch.manual_seed(0)
    start, cpu = time.monotonic(), time.process_time()
    program = train(kind, x)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    score, elbo = pv.log_likelihood(program, test, DRAWS), pv.elbo(program, test, 100)
    return {
        "cpu_seconds": cpu,
        "seconds": seconds,
        "memory_mb": memory,
        "log_p": score.mean,
        "se": score.se,
        "mc_se": score.mean_mc_se,
        "elbo": elbo.mean,
        "pareto_k": score.pareto_k.median().item(),
        "num_samples": DRAWS,
        "num_data": TEST,
        "steps": EPOCHS * (len(x) // BATCH),
    }


# estimators


def estimators() -> dict:
    """Estimate log p(x) by each library, on simulated data with annealing's bounds beside it."""
    import jax
    import jax.numpy as jnp
    import numpyro

    x, _ = data()
    model = pythae_model("VAE")
    program = pythae_program(model, "VAE")
    pv.fit(program, x, epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, progress=False)
    model.eval()
    rows: dict[str, dict] = {}

    def take(name: str, estimate) -> None:
        start = time.process_time()
        value = estimate()
        rows[name] = {
            "value": value if isinstance(value, float) else value.mean,
            "cpu_seconds": time.process_time() - start,
        }
        if not isinstance(value, float):
            rows[name] |= {"mc_se": value.mean_mc_se}
        print(name, rows[name], flush=True)

    def nll(*args, **options) -> float:
        return float(model.get_nll(*args, **options))

    before = time.process_time()
    both = pv.evaluation.bdmc(program, SIMULATED, num_chains=8, num_temperatures=100, start="guide")
    take("`bdmc`, lower bound", lambda: both.lower)
    take("`bdmc`, upper bound", lambda: both.upper)
    for bound in rows.values():
        bound["cpu_seconds"] = (time.process_time() - before) / 2
    x = both.x
    for draws in (DRAWS, 5 * DRAWS):
        take(
            f"`pyro_vae.log_likelihood`, K = {draws}", partial(pv.log_likelihood, program, x, draws)
        )
        take(
            f"`pythae` `get_nll`, n_samples = {draws}",
            partial(nll, x, n_samples=draws, batch_size=100),
        )
    take(
        f"`pyro_vae.log_likelihood`, `Refined()`, K = {DRAWS}",
        lambda: pv.log_likelihood(program, x, DRAWS, proposal=pv.evaluation.Refitted()),
    )
    take("`pythae` `get_nll`, n_samples = 10", partial(nll, x, n_samples=10))
    take("`pyro_vae.log_likelihood`, K = 10", lambda: pv.log_likelihood(program, x, 10))
    renyi = pyro.infer.RenyiELBO(alpha=0, num_particles=DRAWS, vectorize_particles=True)
    with torch.no_grad():
        take(
            f"Pyro `RenyiELBO`(alpha = 0), {DRAWS} particles, all data at once",
            lambda: -float(renyi.loss(program.model, program.guide, x)) / len(x),
        )
        take(
            f"Pyro `RenyiELBO`(alpha = 0), {DRAWS} particles, datum by datum",
            lambda: (
                -sum(float(renyi.loss(program.model, program.guide, each)) for each in x.split(1))
                / len(x)
            ),
        )

        def joint_weights() -> float:
            log_weights, _, _ = pyro.infer.importance.vectorized_importance_weights(
                program.model,
                program.guide,
                x,
                num_samples=DRAWS,
                max_plate_nesting=1,
                normalized=False,
            )
            return (log_weights.logsumexp(0) - math.log(DRAWS)).item() / len(x)

        take(f"Pyro `vectorized_importance_weights`, K = {DRAWS}, all data at once", joint_weights)
    params = {
        f"{name}{i}.{part}": jnp.asarray(getattr(layer, part).detach().numpy())
        for name, net in (("encoder", model.encoder.net), ("decoder", model.decoder.net))
        for i, layer in enumerate(each for each in net if isinstance(each, nn.Linear))
        for part in ("weight", "bias")
    }
    pair, bound, key = (
        numpyro_pair(params),
        numpyro.infer.RenyiELBO(alpha=0, num_particles=DRAWS),
        jax.random.PRNGKey(0),
    )
    array = jnp.asarray(x.numpy())
    loss = jax.jit(lambda x: bound.loss(key, {}, *pair, x))
    take(
        f"NumPyro `RenyiELBO`(alpha = 0), {DRAWS} particles, all data at once",
        lambda: -float(loss(array)) / len(x),
    )
    take(
        f"NumPyro `RenyiELBO`(alpha = 0), {DRAWS} particles, datum by datum",
        lambda: -sum(float(loss(each[None])) for each in array) / len(x),
    )
    return {"num_data": SIMULATED, "rows": rows}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*TRAINED, "estimators"]:
        if not (folder / f"{name}.json").exists():
            subprocess.run([sys.executable, __file__, str(folder), name], check=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
        parts = {
            path.stem: json.loads(path.read_text())
            for path in sorted(Path(sys.argv[1]).glob("*.json"))
        }
        checkpoint.write_text(
            Path(__file__).with_name("peers.json"), json.dumps(parts, indent=1) + "\n"
        )
    else:
        warnings.simplefilter("ignore", UnreliableEstimate)
        torch.set_num_threads(1)
        part = estimators() if sys.argv[2] == "estimators" else trained(sys.argv[2])
        checkpoint.write_text(
            Path(sys.argv[1]) / f"{sys.argv[2]}.json", json.dumps(part, indent=1) + "\n"
        )
        print(sys.argv[2], part, flush=True)
