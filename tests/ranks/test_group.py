"""Several processes train what one does: the same losses and weights, whatever the program."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from stored_kinds import Watched
from torch import nn

import pyro_vae as pv
from pyro_vae.ranks.batch import DrawnShapes, WholeBatchNoise
from pyro_vae.ranks.group import Group
from pyro_vae.validation import InvalidInput

SHAPE, BATCH, NUMBER = (6,), 4, 9  # so that the last batch holds one datum


class Normalised(nn.Module):
    """A network with batch normalisation."""

    out_shape = (5,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, x, context=None):
        return torch.tanh(self.norm(self.first(x)))


class Squared(pv.objectives.ELBO):
    """A loss that is no sum over data, which only its values tell."""

    def differentiable_loss(self, *args, **kwargs):
        return super().differentiable_loss(*args, **kwargs) ** 2


def vae(**parts) -> pv.VAE:
    encoder = parts.pop("encoder", None) or pv.networks.MLP(SHAPE, [5])
    return pv.VAE(
        **{
            "prior": pv.priors.StandardNormal(2),
            "likelihood": pv.likelihoods.Bernoulli(SHAPE, pv.networks.MLP(2, [5])),
            "posterior": pv.posteriors.DiagonalNormal(2, encoder),
            **parts,
        }
    )


def conditional() -> pv.VAE:
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(SHAPE, pv.networks.MLP(2, [5], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(SHAPE, [5], context=3)),
        context=pv.networks.OneHot(3),
    )


def codes() -> pv.VAE:
    return pv.VAE(
        prior=pv.priors.UniformCodes((2, 3)),
        likelihood=pv.likelihoods.Bernoulli(SHAPE, pv.networks.MLP((2, 3), [5])),
        posterior=pv.posteriors.Codebook((2, 3), pv.networks.MLP(SHAPE, [5]), codes=4),
    )


PROGRAMS: dict[str, tuple[Callable[[], pv.VAE], dict]] = {
    "vae": (vae, {"warmup": 1, "clip_norm": 5.0, "average": 0.9}),
    "cvae": (conditional, {"compile": "on"}),
    "vamp": (lambda: vae(prior=pv.priors.VampPrior(2, components=3)), {}),
    # What is equal in a batch has no gradient after the norm. Adam would make much of its rounding.
    "batch norm": (
        lambda: vae(encoder=Normalised()),
        {"batch_size": 3, "optimizer": torch.optim.SGD},
    ),
    "codebook": (codes, {}),
    "on disk": (conditional, {}),
    "iwae": (vae, {"objective": pv.objectives.IWAE(num_particles=3)}),
}


def data() -> pv.datasets.Dataset:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (NUMBER, *SHAPE), generator=generator) / 255
    return pv.datasets.Dataset(grey, torch.arange(NUMBER) % 3, binarize="dynamic")


def trained(
    name: str,
    out: Path | None = None,
    epochs: int = 2,
    resume: bool = False,
    compile: str | None = None,
) -> dict:
    make, settings = PROGRAMS[name]
    settings = settings | ({"compile": compile} if compile else {})
    torch.manual_seed(0)
    program = make()
    given = data() if make is conditional else data().with_context(None)
    if name == "on disk":
        rows = Watched(data().values.numpy())
        given = pv.datasets.Dataset(rows, given.context, binarize="dynamic")
    validation = pv.datasets.Dataset(data().values.round(), given.context)
    history = pv.fit(
        program,
        given,
        validation=validation,
        epochs=epochs,
        progress=False,
        out=out,
        resume=resume,
        **{"batch_size": BATCH, "compile": "off", "learning_rate": 0.01, **settings},
    )
    score = pv.log_likelihood(program, validation, 7) if name == "vae" else None
    return {
        "history": [history[key] for key in ("objective", "validation_elbo")],
        "state": program.state_dict(),
        "score": None if score is None else score.values,
    }


def join(rank: int, size: int, folder: Path, dtype: torch.dtype = torch.float64) -> None:
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    at = f"file://{folder / 'meeting'}"
    dist.init_process_group(
        "gloo", init_method=at, rank=rank, world_size=size, timeout=timedelta(seconds=120)
    )


def work(rank: int, size: int, folder: Path) -> None:
    join(rank, size, folder)
    found = {name: trained(name) for name in PROGRAMS}
    trained("vae", folder / "run", epochs=1)
    for mixing in (pv.objectives.BetaTCVAE(), pv.objectives.FreeBits()):
        with pytest.raises(InvalidInput, match="its objective mixes the data of a batch"):
            pv.fit(vae(), data().with_context(None), objective=mixing)
    with pytest.raises(InvalidInput, match="not the sum over two and two"):
        pv.fit(vae(), data().with_context(None), objective=Squared())
    with pytest.raises(InvalidInput, match="other data or settings in another process"):
        pv.fit(vae(), data().with_context(None), seed=rank, progress=False)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def assert_equal(one: dict, other: dict) -> None:
    torch.testing.assert_close(one["history"], other["history"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(one["state"], other["state"], rtol=1e-10, atol=1e-10)


def test_two_processes_train_score_and_resume_as_one(float64, tmp_path):
    multiprocessing.spawn(work, (2, tmp_path), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in PROGRAMS:
        alone = trained(name)
        assert_equal(found[0][name], alone)
        assert_equal(found[1][name], alone)
    assert torch.equal(found[0]["vae"]["score"], found[1]["vae"]["score"])
    # What two processes began, one goes on with.
    assert_equal(trained("vae", tmp_path / "run", resume=True), trained("vae"))


def work_long(rank: int, size: int, folder: Path, dtype: torch.dtype, settings: dict) -> None:
    join(rank, size, folder, dtype)
    found = {name: trained(name, **settings) for name in PROGRAMS}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.torture
@pytest.mark.parametrize("compile", ["off", "on"])
def test_two_processes_are_one_after_two_hundred_steps(float64, tmp_path, compile):
    settings = {"epochs": 67, "compile": compile}  # of three steps
    multiprocessing.spawn(work_long, (2, tmp_path, torch.float64, settings), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in PROGRAMS:
        alone = trained(name, **settings)
        assert_equal(found[0][name], alone)
        assert_equal(found[1][name], alone)


@pytest.mark.torture
@pytest.mark.parametrize("compile", ["off", "on"])
def test_two_processes_lose_as_one_does_in_single_precision(tmp_path, compile):
    settings = {"epochs": 4, "compile": compile}
    multiprocessing.spawn(work_long, (2, tmp_path, torch.float32, settings), nprocs=2)
    found = torch.load(tmp_path / "0.pt")
    for name in PROGRAMS:
        losses, alone = found[name]["history"][0], trained(name, **settings)["history"][0]
        torch.testing.assert_close(losses, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [1, 2, 5, 64])
def test_the_rows_of_all_processes_are_those_of_the_batch(size, number):
    shares = [Group(rank, size).rows(number) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: torch.empty(3, n, 2).normal_(),
        lambda n: torch.randn(n, 5),
        lambda n: torch.rand_like(torch.empty(2, n)),
        lambda n: nn.functional.dropout(torch.ones(n, 4), 0.5),
        lambda n: torch.randn(4),
    ],
)
def test_the_noise_of_some_rows_is_that_of_the_whole_batch(draw):
    shapes = []
    for size in (2, 3):
        with DrawnShapes() as drawn:
            draw(size)
        shapes.append(drawn)
    dims = shapes[0].dims(shapes[1])
    torch.manual_seed(0)
    whole = draw(6)
    parts = []
    for rows in ([0, 1, 2, 3], [4, 5]):
        torch.manual_seed(0)
        with WholeBatchNoise(dims, 6, torch.tensor(rows)):
            parts.append(draw(len(rows)))
    if dims == [None]:
        assert torch.equal(parts[0], whole)
    else:
        assert torch.equal(torch.cat(parts, dims[0]), whole)
