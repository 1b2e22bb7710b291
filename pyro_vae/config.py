"""From words to objects: recipes and flags, the components they name, and the program built of them.

The signature of `Recipe` is the one declaration: flags, YAML keys, their types and their help are derived from it.
A component is named by its class, looked up in its family first, or by an import path, and takes its arguments as
``--prior.components 500`` or as ``init_args`` in YAML. Nothing needs to be registered.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pyro.infer
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pyro_vae import corruptions, likelihoods, networks, objectives, posteriors, priors, schedules
from pyro_vae.datasets import Dataset
from pyro_vae.programs import VAE
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["FAMILIES", "Recipe", "RecipeParser", "build_optimizer", "build_program", "read_recipe", "resolve_component"]

Shape = Sequence[int]

FAMILIES: dict[str, ModuleType] = {
    "prior": priors, "likelihood": likelihoods, "posterior": posteriors, "encoder": networks, "decoder": networks,
    "corruption": corruptions,
    "objective": objectives, "schedule": schedules, "optimizer": torch.optim,
}


@dataclass(kw_only=True)
class Recipe:
    """Everything that determines a run.

    Args:
        data: a data set's name, an .npz file with x and optionally y, or a folder of images.
        data_root: folder of the data sets' files; by default $PYRO_VAE_DATA, else a cache folder.
        binarize: what is done about grey values; by default what suits the data set.
        missing: NaN in the data marks a missing entry; the encoder then also sees what was observed, and the likelihood
            counts that alone.
        missing_fraction: the probability with which each entry of the data is removed, completely at random.
        context: condition on the data's labels, or on its covariates: a CVAE.
        latent: number of latent dimensions, or the latent's shape, [16, 7, 7] for codes on a grid.
        prior: p(z), a class of pyro_vae.priors or an import path.
        likelihood: p(x | z), a class of pyro_vae.likelihoods or an import path.
        posterior: q(z | x), a class of pyro_vae.posteriors or an import path.
        encoder: the posterior's network, a class of pyro_vae.networks or an import path.
        decoder: the likelihood's network, a class of pyro_vae.networks or an import path.
        corruption: what is done in training to the data that the encoder sees, a class of pyro_vae.corruptions or an import path.
        objective: the bound that is maximised, a class of pyro_vae.objectives or an import path.
        optimizer: a class of torch.optim or an import path; its lr is the learning rate below.
        schedule: of the learning rate, a class of pyro_vae.schedules or an import path.
        epochs: passes over the training data, in total.
        batch_size: data in a batch.
        learning_rate: before the schedule.
        warmup: epochs over which the weight of the KL rises from 0 to 1.
        clip_norm: upper limit of the gradient's global norm.
        validation: training data held out to measure the ELBO after every epoch; 0 for none.
        patience: stop after so many epochs without a better validation ELBO.
        seed: of weights, batches, draws and held-out data.
        device: cuda where there is one, else cpu; or say which.
        compile: compile the training step where that pays, always, or never.
        autocast: compute layers in bfloat16.
    """

    data: str = "digits"
    data_root: str | None = None
    binarize: Literal["none", "dynamic", "fixed"] | None = None
    missing: bool = False
    missing_fraction: float = 0.0
    context: Literal["labels", "covariates"] | None = None
    latent: int | list[int] = 20
    prior: Callable[[Shape], nn.Module] = priors.StandardNormal
    likelihood: Callable[[Shape, nn.Module], nn.Module] = likelihoods.Bernoulli
    posterior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    encoder: Callable[[Shape], nn.Module] = networks.MLP
    decoder: Callable[[Shape], nn.Module] = networks.MLP
    corruption: nn.Module | None = None
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


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A YAML recipe as a dictionary whose keys are known and whose components have import paths.

    Raises:
        InvalidInput: if the file is missing or no mapping, or a key or component is unknown, with the nearest name.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise InvalidInput("recipe", got=f"{path}, which does not exist", expected="a YAML file", fix="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput("recipe", got=f"{path}, which cannot be read ({error})", expected="a YAML file",
                           fix="see experiments/vae_mnist.yaml for one") from None
    if not isinstance(values, Mapping):
        raise InvalidInput("recipe", got=f"{path}, which holds no keys", expected="key: value lines",
                           fix="see experiments/vae_mnist.yaml for one")
    return normalize(values, str(path))


def normalize(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checks the keys of a recipe and replaces components' names by import paths."""
    known = list(inspect.signature(Recipe).parameters)
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InvalidInput(f"{source}: {key}", got="an unknown key", expected="a key of a recipe",
                               fix=nearest_name(name, known))
        if name in FAMILIES and isinstance(value, str):
            value = resolve_component(name, value)
        elif name in FAMILIES and isinstance(value, Mapping) and "class_path" in value:
            value = {**value, "class_path": resolve_component(name, value["class_path"])}
        out[name] = value
    return out


def resolve_component(family: str, name: str) -> str:
    """The import path of a component: of the family's class of that name, or the path itself once it imports.

    Raises:
        InvalidInput: if there is no such component, with the nearest name.

    Example:
        >>> resolve_component("prior", "GaussianMixture")
        'pyro_vae.priors.GaussianMixture'
    """
    module = FAMILIES[family]
    if name in module.__all__:
        return f"{module.__name__}.{name}"
    path, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(path), attribute) if path else None
    except ImportError as error:
        # `import` puts a missing parent and a failing import of its own into one exception: say which
        raise InvalidInput(family, got=f"{name!r}, which cannot be imported ({error})", expected="an import path",
                           fix=f"check the path, or {nearest_name(attribute, module.__all__)}") from None
    except AttributeError:
        raise InvalidInput(family, got=f"{name!r}, a name that {path} does not have", expected="an import path",
                           fix=nearest_name(attribute, dir(importlib.import_module(path)))) from None
    if not callable(found):
        raise InvalidInput(family, got=repr(name), expected=f"a class of {module.__name__} or an import path",
                           fix=nearest_name(name, module.__all__))
    return name


def build_program(recipe: Recipe, data: Dataset) -> nn.Module:
    """The program that a recipe describes, sized for the data, its weights drawn from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        embed, features = _context_module(recipe, data)
        latent = networks.as_shape(recipe.latent)
        seen = networks.WithMask.doubled(data.event_shape) if data.missing else data.event_shape
        encoder = _call("encoder", recipe.encoder, seen, context=features)
        decoder = _call("decoder", recipe.decoder, latent, context=features, size=data.event_shape)
        likelihood = _call("likelihood", recipe.likelihood, data.event_shape, decoder)
        if data.missing:
            encoder, likelihood = networks.WithMask(data.event_shape, encoder), likelihoods.Missing(likelihood)
        if recipe.corruption is not None:
            encoder = networks.Corrupted(encoder, recipe.corruption)
        return VAE(
            prior=_call("prior", recipe.prior, latent, context=features),
            likelihood=likelihood,
            posterior=_call("posterior", recipe.posterior, latent, encoder),
            context=embed,
        )


def _context_module(recipe: Recipe, data: Dataset) -> tuple[nn.Module | None, int]:
    if recipe.context is None:
        return None, 0
    if data.context is None:
        raise InvalidInput("context", got=f"{recipe.context!r} with data {data.name!r}, which has none",
                           expected="data with labels or covariates", fix="add y to the .npz, or leave --context out")
    if recipe.context == "covariates":
        return Covariates(), 1 if data.context.dim() == 1 else data.context.shape[-1]
    if data.num_classes is None:
        raise InvalidInput("context", got=f"'labels' with y of {data.context.dtype}, shape {tuple(data.context.shape)}",
                           expected="integer labels (N,)", fix="pass --context covariates, or make y integers")
    return networks.OneHot(data.num_classes), data.num_classes


class Covariates(nn.Module):
    """Numbers as features: covariates (N,) or (N, C), unchanged but for a dimension of their own."""

    one: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(()), persistent=False)  # carries the program's device and dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.one).reshape(len(values), -1)


def _call(argument: str, factory: Callable[..., nn.Module], *sizes: Any, **offers: Any) -> nn.Module:
    """Builds a component from its sizes and what it asks for by name: a context's features, an image's size."""
    parameters = inspect.signature(target_of(factory)).parameters
    wanted = {name: value for name, value in offers.items() if name in parameters}
    if offers.get("context") and argument != "prior" and "context" not in wanted:
        raise InvalidInput(argument, got="a network that takes no context", expected="context= in its signature",
                           fix="choose MLP, or add that argument")
    return factory(*sizes, **wanted)


def target_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The class behind a factory: jsonargparse hands over a partial call whose last argument is the class."""
    return factory.args[-1] if isinstance(factory, partial) and factory.args else factory


def build_optimizer(recipe: Recipe) -> Callable[..., torch.optim.Optimizer]:
    """The recipe's optimiser, fused where it can be and nothing else was said."""
    factory: Any = recipe.optimizer
    default = inspect.signature(target_of(factory)).parameters["lr"].default
    if isinstance(factory, partial) and factory.keywords.get("lr", default) != default:
        raise InvalidInput("optimizer.lr", got=str(factory.keywords["lr"]), expected="the learning rate in one place",
                           fix=f"pass --learning-rate {factory.keywords['lr']}")
    chosen = factory.keywords.get("fused") if isinstance(factory, partial) else None
    can_be = "fused" in inspect.signature(target_of(factory)).parameters
    return partial(factory, fused=True) if can_be and chosen is None else factory


# ------------------------------------------------------------------------------------------------------- parsing

class RecipeParser:
    """Recipes from layers: a file, then flags; a later layer's component replaces the earlier one's arguments.

    Args:
        parser: the command's parser; the recipe's flags are added to it.
    """

    def __init__(self, parser: ArgumentParser):
        self.parser = parser
        parser.add_class_arguments(Recipe)
        # An instance is no default that can be written to YAML; the class by its path is.
        parser.set_defaults({"schedule": {"class_path": resolve_component("schedule", "Constant")}})

    def parse(self, argv: Sequence[str], recipe: Mapping[str, Any]) -> Namespace:
        """Flags over a recipe (see `read_recipe`) over the defaults."""
        layers = dict(recipe)
        rest: list[str] = []
        tokens = iter(argv)
        for token in tokens:
            flag, equals, value = token.partition("=")
            family = flag.removeprefix("--")
            if family.endswith(".help") and family[:-5] in FAMILIES:
                name = value if equals else next(tokens, "")
                rest += [flag, resolve_component(family[:-5], name or FAMILIES[family[:-5]].__all__[0])]
            elif flag.startswith("--") and family in FAMILIES:
                path = resolve_component(family, value if equals else next(tokens, ""))
                if _class_path(layers.get(family)) != path:
                    layers[family] = {"class_path": path}
            else:
                rest.append(token)
        self.parser.set_defaults(layers)
        return self.parser.parse_args(rest)

    def recipe(self, namespace: Namespace) -> Recipe:
        """The recipe that parsed arguments stand for, its components ready to be called."""
        built = self.parser.instantiate(namespace)
        return Recipe(**{field.name: built[field.name] for field in fields(Recipe)})

    def dump(self, namespace: Namespace) -> str:
        """The recipe as YAML that `read_recipe` reads."""
        whole = yaml.safe_load(self.parser.dump(namespace))
        return yaml.safe_dump({field.name: whole[field.name] for field in fields(Recipe) if field.name in whole},
                              sort_keys=False)


def _class_path(component: Any) -> str | None:
    return component.get("class_path") if isinstance(component, Mapping) else component
