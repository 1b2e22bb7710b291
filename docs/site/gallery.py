"""A page of densities: priors, likelihoods and posteriors, drawn by the code itself."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.axes import Axes

import pyro_vae as pv
from pyro_vae.distributions import as_pyro
from pyro_vae.plotting.files import figure_png
from pyro_vae.validation import InvalidInput

DRAWS, BINS = 20_000, 60


def write(source: Path) -> None:
    """Write the page and its pictures."""
    folder = source / "gallery"
    folder.mkdir()
    page = ["Gallery", "=======", "", "Draws of each density, of one entry or two, at the weights "
            "that a component starts with.", ""]  # fmt: skip
    for family, densities in (
        ("Priors", priors()),
        ("Likelihoods", likelihoods()),
        ("Posteriors", posteriors()),
    ):
        page += [family, "-" * len(family), ""]
        for name, what, density in densities:
            with torch.no_grad():
                picture = figure_png(lambda ax: draw(density, ax), (3.4, 2.4))  # noqa: B023
            (folder / f"{family}-{name}.png").write_bytes(picture)
            page += [f"**{name}.** {what}", "", f".. image:: gallery/{family}-{name}.png",
                     f"   :alt: Draws of {name}.", "   :width: 17em", ""]  # fmt: skip
    (source / "gallery.rst").write_text("\n".join(page))


Entries = Iterator[tuple[str, str, torch.distributions.Distribution]]


def priors() -> Entries:
    """Every prior that needs nothing of a program, in one or two dimensions."""
    yield from _each(pv.priors, lambda cls, size: cls(size)())


def likelihoods() -> Entries:
    """Every likelihood that takes no known quantity, given one latent."""
    z = torch.tensor([[0.7]])
    yield from _each(pv.likelihoods, lambda cls, size: cls(size, pv.networks.MLP(1, []))(z))


def posteriors() -> Entries:
    """Every posterior, given one datum."""
    x = torch.tensor([[0.7]])
    yield from _each(pv.posteriors, lambda cls, size: cls(size, pv.networks.MLP(1, []))(x))


def _each(family, make) -> Entries:
    for name in family.__all__:
        cls = getattr(family, name)
        for size in (1, 2):
            torch.manual_seed(0)
            try:
                density = as_pyro(make(cls, size))
                density.sample()
            except (InvalidInput, TypeError, RuntimeError, ValueError, AttributeError):
                continue
            except NotImplementedError:
                continue
            yield name, (inspect.getdoc(cls) or "").splitlines()[0], density
            break


def draw(density: torch.distributions.Distribution, ax: Axes) -> Axes:
    """A histogram of one entry, or the points of two."""
    few = DRAWS if density.event_shape.numel() < 3 else 2
    x = density.sample((few,)).reshape(few, -1).float()
    if x.shape[1] == 1:
        whole = bool((x == x.round()).all())
        low, high = x.quantile(0.002).item(), x.quantile(0.998).item()
        if whole:
            values, counts = x[(x >= low) & (x <= high)].unique(return_counts=True)
            ax.bar(values, counts / few, width=0.8)
        else:
            ax.hist(x[(x >= low) & (x <= high)], bins=BINS, density=True)
        ax.set(xlabel="value", ylabel="probability" if whole else "density")
    else:
        ax.plot(*x[:1500, :2].T, ".", markersize=2, alpha=0.5)
        ax.set(xlabel="first entry", ylabel="second entry")
    return ax
