"""Recipes: everything that determines a run, and its form in YAML.

The signature of `Recipe` is the one declaration: flags, YAML keys, their types and their help
follow from it. A component is named by a class of its family or by an import path, and takes its
arguments as ``--prior.components 500`` or as ``init_args`` in YAML. Nothing needs to be registered.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import pyro.infer
import torch
from torch import nn

from pyro_vae import networks, objectives, posteriors, priors, programs
from pyro_vae.files.reading import MEGABYTE, Kind, read_yaml
from pyro_vae.recipes.components import FAMILIES, check_trusted, component_names, with_import_path
from pyro_vae.training import schedules
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["Level", "Recipe", "Shape", "Site", "Values", "read_recipe", "read_settings"]

Shape = Sequence[int]
LevelPrior = Callable[[Shape, nn.Module], nn.Module] | Callable[[Shape], nn.Module]
Values = Mapping[str, Any]  # a recipe as YAML holds it


class MakesProgram(Protocol):
    """A program's class; what is named here is passed to it by name, all else is an option."""

    def __call__(
        self,
        *,
        prior: Any = None,
        likelihood: Any = None,
        likelihoods: Any = None,
        posterior: Any = None,
        priors: Any = None,
        posteriors: Any = None,
        path: object = None,
        context: Any = None,
        event_shape: Any = None,
    ) -> nn.Module: ...


DEFAULT_PROGRAM = cast(MakesProgram, programs.VAE)  # which needs some of what it is passed


@dataclass(kw_only=True)
class Site:
    """The parts of one observed site of several; those that are not named are the recipe's.

    Args:
        likelihood: p(x | z) of the site.
        posterior: its expert, a posterior of independent normals; by default DiagonalNormal.
        encoder: the expert's network.
        decoder: the likelihood's network.
    """

    likelihood: Callable[[Shape, nn.Module], nn.Module] | None = None
    posterior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    encoder: Callable[[Shape], nn.Module] | None = None
    decoder: Callable[[Shape], nn.Module] | None = None


@dataclass(kw_only=True)
class Level:
    """A level of a LadderVAE; the parts that it does not name are the recipe's.

    Args:
        shape: (channels, height, width) of its latent.
        cells: how many residual cells lead to it, up from the level below and down from that above.
        times: how many such levels there are, one upon the other.
        level_prior: p(z_l | h_l); the top level's is the recipe's prior.
        posterior: q(z_l | d_l, h_l).
        level_network: the network of its cells.
    """

    shape: list[int]
    cells: int = 1
    times: int = 1
    level_prior: LevelPrior | None = None
    posterior: Callable[[Shape, nn.Module], nn.Module] | None = None
    level_network: Callable[[Shape], nn.Module] | None = None


@dataclass(kw_only=True)
class Recipe:
    """Everything that determines a run.

    Args:
        data: a data set's name, a file (.npz, .npy, .csv, .tsv, .parquet, .h5ad, .zarr, .h5, .txt),
            or a folder of images or sounds.
        data_root: folder of the data sets' files; by default $PYRO_VAE_DATA, else a cache folder.
        in_memory: off leaves the data on disk and reads them as they are needed; auto does so where
            they would take more than half of the memory that is free.
        binarize: how grey values become 0 or 1; by default what suits the data set and, for
            digits, the likelihood.
        missing: NaN in the data marks a missing entry. The encoder then also takes the mask of
            what was observed, and the likelihood counts only that.
        missing_fraction: the probability that an entry of the data is removed, completely at
            random.
        labelled: how many training data keep their label, drawn from the seed, for a
            SemiSupervisedVAE; by default all.
        labelled_repeats: how many times an epoch visits each datum that kept its label, so that
            every batch has some.
        key: the array or the layer of a file that is x, where there are several; several arrays,
            as in image,text, are as many observed sites.
        scale: what x is divided by, such as 255 for bytes.
        resize: height and width that images are resized to.
        channels: where the channels of images in arrays (N, *, *, *) are.
        target: the column of a table with the labels.
        columns: a kind (real, positive, count, binary, category, ordinal), a likelihood or drop for
            columns of a table, by name.
        standardize: bring the columns of a table to mean 0 and standard deviation 1 by the training
            rows. It is undone in what is sampled and imputed.
        context: condition on the data's labels or on its covariates, as a CVAE does, or on columns
            of a table, separated by commas.
        known: which columns of a table, or array of a file, hold what the likelihood must be told
            of each datum, by the quantity's name, as in scale: noise; one for each column of x are
            separated by commas. They are no part of x.
        context_to: which parts take the context; p(z | y) p(x | z) is [prior].
        latent: number of latent dimensions; for a hierarchy a list, the lowest level first. A level
            that is a grid is itself a list, as in [[16, 7, 7]].
        levels: the levels of a LadderVAE, the lowest first, in place of latent.
        prior: p(z), a class of pyro_vae.priors or an import path.
        likelihood: p(x | z), a class of pyro_vae.likelihoods or an import path; by default Mixed
            for a table whose columns are of several kinds, DiscretizedLogistic for the grey levels
            of digits, else Bernoulli.
        posterior: q(z | x), a class of pyro_vae.posteriors or an import path.
        encoder: the posterior's network, a class of pyro_vae.networks or an import path.
        decoder: the likelihood's network, a class of pyro_vae.networks or an import path.
        sites: likelihood, posterior (its expert), encoder and decoder of observed sites, by their
            names, for a MultimodalVAE; what a site does not name is as above.
        corruption: how training corrupts the encoder's input, a class of
            pyro_vae.networks.corruptions or an import path.
        program: the program built from the parts, a class of pyro_vae.programs or an import path;
            or the import path of a module of your own with model and guide, which has no parts.
        level_prior: p(z_l | z_l+1) of a hierarchy below its top, a class of pyro_vae.posteriors, a
            prior of codes, or an import path; or p(z_l), a class of pyro_vae.priors.
        level_network: the network of a hierarchy from one level's latents to another's; by default
            MLP, and Cells between the grids of a LadderVAE.
        objective: the bound that is maximised, a class of pyro_vae.objectives or an import path.
        optimizer: a class of torch.optim or an import path; its lr is the learning rate below.
        schedule: how the learning rate changes, a class of pyro_vae.training.schedules or an
            import path.
        epochs: total passes over the training data.
        batch_size: data in a batch.
        learning_rate: step size before the schedule scales it.
        warmup: epochs over which the weight of the KL rises from 0 to 1.
        clip_norm: upper limit of the gradient's global norm.
        skip_norm: leave out each step whose gradient has a larger global norm.
        average: decay of a moving average of the weights, such as 0.999, by which the program is
            validated, saved and scored.
        validation: training data held out to measure the ELBO after every epoch; 0 for none.
        patience: stop after this many epochs without a better validation ELBO.
        start: a run, or a folder that pv.save wrote, whose weights training starts from; by default
            they are drawn from the seed.
        seed: seed of weights, batches, draws and held-out data.
        device: auto, cpu or cuda; auto is cuda where there is one.
        compile: compile the training step where that pays (auto), always (on) or never (off).
        autocast: compute layers in bfloat16.
    """

    data: str = "digits"
    data_root: str | None = None
    in_memory: Literal["auto", "on", "off"] = "auto"
    binarize: Literal["none", "dynamic", "fixed"] | None = None
    missing: bool = False
    missing_fraction: float = 0.0
    labelled: int | None = None
    labelled_repeats: int = 1
    key: str | None = None
    scale: float | None = None
    resize: list[int] | None = None
    channels: Literal["first", "last"] | None = None
    target: str | None = None
    columns: dict[str, str] | None = None
    standardize: bool = False
    context: str | None = None
    known: dict[str, str] | None = None
    context_to: list[Literal["prior", "encoder", "decoder"]] = field(
        default_factory=lambda: ["prior", "encoder", "decoder"]
    )
    latent: int | list[int | list[int]] = 20
    levels: list[Level] | None = None
    prior: Callable[[Shape], nn.Module] = priors.StandardNormal
    likelihood: Callable[[Shape, nn.Module], nn.Module] | None = None
    posterior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    encoder: Callable[[Shape], nn.Module] = networks.MLP
    decoder: Callable[[Shape], nn.Module] = networks.MLP
    sites: dict[str, Site] | None = None
    corruption: nn.Module | None = None
    program: MakesProgram = DEFAULT_PROGRAM
    level_prior: LevelPrior = posteriors.DiagonalNormal
    level_network: Callable[[Shape], nn.Module] = networks.MLP
    objective: Callable[[], pyro.infer.ELBO] = objectives.ELBO
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam
    schedule: Callable[[float], float] = field(default_factory=schedules.Constant)
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 0
    clip_norm: float | None = None
    skip_norm: float | None = None
    average: float | None = None
    validation: int = 0
    patience: int | None = None
    start: str | None = None
    seed: int = 0
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    autocast: bool = False


# Options of train that say what is done with a run, not what it is.
OPTIONS = (
    "out", "resume", "num_samples", "limit", "figure_format", "log", "trust", "processes",
    "max_restarts",
)  # fmt: skip

RECIPE = Kind(
    "recipe", "a YAML file of key: value lines", "see experiments/vae_mnist.yaml for one", MEGABYTE
)


def read_recipe(
    path: str | Path, trust: Sequence[str] = (), inside: str | Path | None = None
) -> Values:
    """Read a YAML recipe, check its keys and give its components their import paths.

    Args:
        path: the recipe.
        trust: modules besides this package's whose components it may name.
        inside: the folder that it must lie in once symbolic links are followed; by default any.

    Raises:
        InvalidInput: if the file is missing or holds no mapping, or if it names an unknown key or
            component; the error then names the nearest one.
        Untrusted: if it names a component of a module that is not trusted.
    """
    values = read_settings(path, inside)
    for name, value in values.items():
        _check_kind(f"{path}: {name}", name, value)
    check_trusted(values, str(path), trust)
    return {name: with_import_path(name, value) for name, value in values.items()}


def _check_kind(argument: str, name: str, value: object) -> None:
    """Raise on nothing where a recipe needs something, and on what can name no component."""
    default = inspect.signature(Recipe).parameters[name].default
    if value is None and default is not None:
        raise InvalidInput(argument, got="nothing", expected="a value", fix="leave the line out")
    is_component = name in FAMILIES and value is not None
    is_named = isinstance(value, Mapping) and ("class_path" in value or default is not None)
    if is_component and not isinstance(value, str) and not (is_named and value):
        raise InvalidInput(
            argument,
            got=repr(value),
            expected="a class, or class_path and init_args",
            fix=f"write for instance class_path: {component_names(name)[0]}",
        )


def read_settings(path: str | Path, inside: str | Path | None = None) -> Values:
    """Read a YAML recipe and check its keys; what it names is neither looked up nor imported.

    Raises:
        InvalidInput: as `read_recipe` does.
    """
    values = read_yaml(path, RECIPE, inside)
    if not isinstance(values, Mapping):
        RECIPE.refuse(path, "which holds no keys")
    known = list(inspect.signature(Recipe).parameters)
    out = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InvalidInput(
                f"{path}: {key}",
                got="an option of the command line" if name in OPTIONS else "an unknown key",
                expected="a key of a recipe",
                fix=f"take the line out, and pass it to train: {_as_flag(name, value)}"
                if name in OPTIONS
                else nearest_name(name, known),
            )
        out[name] = value
    return out


def _as_flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {shlex.quote(str(value))}"
