"""Recipes: everything that determines a run, and its form in YAML.

The signature of `Recipe` is the one declaration: flags, YAML keys, their types and their help
follow from it. A component is named by a class of its family or by an import path, and takes its
arguments as ``--prior.components 500`` or as ``init_args`` in YAML. Nothing needs to be registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyro.infer
import torch
import yaml
from torch import nn

from pyro_vae import likelihoods, networks, objectives, posteriors, priors, programs
from pyro_vae.recipes.components import FAMILIES, resolve_component
from pyro_vae.training import schedules
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["Recipe", "Shape", "Values", "read_recipe"]

Shape = Sequence[int]
Values = Mapping[str, Any]  # a recipe as YAML holds it


@dataclass(kw_only=True)
class Recipe:
    """Everything that determines a run.

    Args:
        data: a data set's name, an .npz file with x and optionally y, or a folder of images.
        data_root: folder of the data sets' files; by default $PYRO_VAE_DATA, else a cache folder.
        binarize: how grey values become 0 or 1; by default what suits the data set.
        missing: NaN in the data marks a missing entry. The encoder then also takes the mask of
            what was observed, and the likelihood counts only that.
        missing_fraction: the probability that an entry of the data is removed, completely at
            random.
        labelled: how many training data keep their label, drawn from the seed, for a
            SemiSupervisedVAE; by default all.
        labelled_repeats: how many times an epoch visits each datum that kept its label, so that
            every batch has some.
        context: condition on the data's labels or on its covariates, as a CVAE does.
        context_to: which parts take the context; p(z | y) p(x | z) is [prior].
        latent: number of latent dimensions; for a hierarchy a list, the lowest level first. A level
            that is a grid is itself a list, as in [[16, 7, 7]].
        prior: p(z), a class of pyro_vae.priors or an import path.
        likelihood: p(x | z), a class of pyro_vae.likelihoods or an import path.
        posterior: q(z | x), a class of pyro_vae.posteriors or an import path.
        encoder: the posterior's network, a class of pyro_vae.networks or an import path.
        decoder: the likelihood's network, a class of pyro_vae.networks or an import path.
        corruption: how training corrupts the encoder's input, a class of
            pyro_vae.networks.corruptions or an import path.
        program: the program built from the parts, a class of pyro_vae.programs or an import path.
        level_prior: p(z_l | z_l+1) of a hierarchy below its top, a class of pyro_vae.posteriors or
            an import path.
        level_network: the network of a hierarchy from one level's latents to another's.
        objective: the bound that is maximised, a class of pyro_vae.objectives or an import path.
        optimizer: a class of torch.optim or an import path; its lr is the learning rate below.
        schedule: how the learning rate changes, a class of pyro_vae.training.schedules or an
            import path.
        epochs: total passes over the training data.
        batch_size: data in a batch.
        learning_rate: step size before the schedule scales it.
        warmup: epochs over which the weight of the KL rises from 0 to 1.
        clip_norm: upper limit of the gradient's global norm.
        validation: training data held out to measure the ELBO after every epoch; 0 for none.
        patience: stop after this many epochs without a better validation ELBO.
        seed: seed of weights, batches, draws and held-out data.
        device: auto, cpu or cuda; auto is cuda where there is one.
        compile: compile the training step where that pays (auto), always (on) or never (off).
        autocast: compute layers in bfloat16.
    """

    data: str = "digits"
    data_root: str | None = None
    binarize: Literal["none", "dynamic", "fixed"] | None = None
    missing: bool = False
    missing_fraction: float = 0.0
    labelled: int | None = None
    labelled_repeats: int = 1
    context: Literal["labels", "covariates"] | None = None
    context_to: list[Literal["prior", "encoder", "decoder"]] = field(
        default_factory=lambda: ["prior", "encoder", "decoder"]
    )
    latent: int | list[int | list[int]] = 20
    prior: Callable[[Shape], nn.Module] = priors.StandardNormal
    likelihood: Callable[[Shape, nn.Module], nn.Module] = likelihoods.Bernoulli
    posterior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    encoder: Callable[[Shape], nn.Module] = networks.MLP
    decoder: Callable[[Shape], nn.Module] = networks.MLP
    corruption: nn.Module | None = None
    program: Callable[[Any, Any, Any, nn.Module | None], nn.Module] = programs.VAE
    level_prior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    level_network: Callable[[Shape], nn.Module] = networks.MLP
    objective: Callable[[], pyro.infer.ELBO] = objectives.ELBO
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam
    schedule: Callable[[float], float] = field(default_factory=schedules.Constant)
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 0
    clip_norm: float | None = None
    validation: int = 0
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    autocast: bool = False


def read_recipe(path: str | Path) -> Values:
    """Read a YAML recipe, check its keys and give its components their import paths.

    Raises:
        InvalidInput: if the file is missing or holds no mapping, or if it names an unknown key or
            component; the error then names the nearest one.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise InvalidInput(
            "recipe",
            got=f"{path}, which does not exist",
            expected="a YAML file",
            fix="check the path",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(
            "recipe",
            got=f"{path}, which cannot be read ({error})",
            expected="a YAML file",
            fix="see experiments/vae_mnist.yaml for one",
        ) from None
    if not isinstance(values, Mapping):
        raise InvalidInput(
            "recipe",
            got=f"{path}, which holds no keys",
            expected="key: value lines",
            fix="see experiments/vae_mnist.yaml for one",
        )
    return normalize(values, str(path))


def normalize(values: Values, source: str) -> Values:
    """Check the keys of a recipe and replace components' names by import paths."""
    known = list(inspect.signature(Recipe).parameters)
    out = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InvalidInput(
                f"{source}: {key}",
                got="an unknown key",
                expected="a key of a recipe",
                fix=nearest_name(name, known),
            )
        if name in FAMILIES and isinstance(value, str):
            value = resolve_component(name, value)
        elif name in FAMILIES and isinstance(value, Mapping) and "class_path" in value:
            value = {**value, "class_path": resolve_component(name, value["class_path"])}
        out[name] = value
    return out
