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
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pyro.infer
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pyro_vae import corruptions, likelihoods, networks, objectives, posteriors, priors, programs, proposals, schedules
from pyro_vae.datasets import Dataset
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["FAMILIES", "Recipe", "RecipeParser", "build_optimizer", "build_program", "component_names", "parse_components",
           "read_recipe", "resolve_component"]

Shape = Sequence[int]

FAMILIES: dict[str, ModuleType] = {
    "prior": priors, "likelihood": likelihoods, "posterior": posteriors, "encoder": networks, "decoder": networks,
    "program": programs, "level_prior": posteriors, "level_network": networks, "corruption": corruptions, "objective": objectives,
    "schedule": schedules, "optimizer": torch.optim, "proposal": proposals,
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
        labelled: how many training data, drawn from the seed, keep their label, for a SemiSupervisedVAE; by default all.
        labelled_repeats: how many times an epoch visits each datum that kept its label, so that every batch has some.
        context: condition on the data's labels, or on its covariates: a CVAE.
        context_to: what the context is given to; p(z | y) p(x | z) is [prior].
        latent: number of latent dimensions; for a hierarchy a list, the lowest level first. A level that is a grid is a list
            itself, [[16, 7, 7]].
        prior: p(z), a class of pyro_vae.priors or an import path.
        likelihood: p(x | z), a class of pyro_vae.likelihoods or an import path.
        posterior: q(z | x), a class of pyro_vae.posteriors or an import path.
        encoder: the posterior's network, a class of pyro_vae.networks or an import path.
        decoder: the likelihood's network, a class of pyro_vae.networks or an import path.
        corruption: what is done in training to the data that the encoder sees, a class of pyro_vae.corruptions or an import path.
        program: what the parts are put together as, a class of pyro_vae.programs or an import path.
        level_prior: of a hierarchy, p(z_l | z_l+1) below the top, a class of pyro_vae.posteriors or an import path.
        level_network: of a hierarchy, the network from one level's latents to another's.
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
    labelled: int | None = None
    labelled_repeats: int = 1
    context: Literal["labels", "covariates"] | None = None
    context_to: list[Literal["prior", "encoder", "decoder"]] = field(default_factory=lambda: ["prior", "encoder", "decoder"])
    latent: int | list[int | list[int]] = 20
    prior: Callable[[Shape], nn.Module] = priors.StandardNormal
    likelihood: Callable[[Shape, nn.Module], nn.Module] = likelihoods.Bernoulli
    posterior: Callable[[Shape, nn.Module], nn.Module] = posteriors.DiagonalNormal
    encoder: Callable[[Shape], nn.Module] = networks.MLP
    decoder: Callable[[Shape], nn.Module] = networks.MLP
    corruption: nn.Module | None = None
    program: Callable[[Any, nn.Module, Any, nn.Module | None], nn.Module] = programs.VAE
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


def component_names(family: str) -> list[str]:
    """The components of this package that a key of a recipe takes by name: of the programs, those put together from parts.

    Example:
        >>> component_names("program")
        ['VAE', 'HierarchicalVAE', 'SemiSupervisedVAE']
    """
    module = FAMILIES[family]
    classes = [name for name in module.__all__ if inspect.isclass(getattr(module, name, None))]
    return [name for name in classes
            if module is not programs or "likelihood" in inspect.signature(getattr(module, name)).parameters]


def resolve_component(family: str, name: str) -> str:
    """The import path of a component: of the family's class of that name, or the path itself once it imports.

    Raises:
        InvalidInput: if there is no such component, with the nearest name.

    Example:
        >>> resolve_component("prior", "GaussianMixture")
        'pyro_vae.priors.GaussianMixture'
    """
    module, known = FAMILIES[family], component_names(family)
    if name in known:
        return f"{module.__name__}.{name}"
    path, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(path), attribute) if path else None
    except ImportError as error:
        # `import` puts a missing parent and a failing import of its own into one exception: say which
        raise InvalidInput(family, got=f"{name!r}, which cannot be imported ({error})", expected="an import path",
                           fix=f"check the path, or {nearest_name(attribute, known)}") from None
    except AttributeError:
        raise InvalidInput(family, got=f"{name!r}, a name that {path} does not have", expected="an import path",
                           fix=nearest_name(attribute, dir(importlib.import_module(path)))) from None
    if not callable(found):
        raise InvalidInput(family, got=repr(name), expected=f"a class of {module.__name__} or an import path",
                           fix=nearest_name(name, known))
    return name


def build_program(recipe: Recipe, data: Dataset) -> nn.Module:
    """The program that a recipe describes, sized for the data, its weights drawn from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        embed, features = _context_module(recipe, data)
        has_levels = "priors" in inspect.signature(target_of(recipe.program)).parameters
        levels = len(recipe.latent) if isinstance(recipe.latent, list) else 1
        if has_levels != (levels > 1):
            raise InvalidInput("latent", got=f"{recipe.latent} for {target_of(recipe.program).__name__}",
                               expected="a list, the lowest level first" if has_levels else "one number, as it has one level",
                               fix="pass --latent '[40, 20]'" if has_levels else "pass --program HierarchicalVAE for several")
        if has_levels and len(set(recipe.context_to)) < 3:
            raise InvalidInput("context_to", got=f"{recipe.context_to} for {target_of(recipe.program).__name__}",
                               expected="all parts, which take the levels above them in the same way", fix="leave it out")
        parts = _level_parts(recipe, data, features) if has_levels else _parts(recipe, data, features)
        return recipe.program(*parts, embed)


Parts = tuple[Any, nn.Module, Any]


def _parts(recipe: Recipe, data: Dataset, features: int) -> Parts:
    """Prior, likelihood and posterior of a program with one latent."""
    latent = networks.as_shape(recipe.latent[0] if isinstance(recipe.latent, list) else recipe.latent)
    return (_call("prior", recipe.prior, latent, context=features if "prior" in recipe.context_to else 0),
            _likelihood(recipe, data, latent, features), _call("posterior", recipe.posterior, latent, _encoder(recipe, data, features)))


def _level_parts(recipe: Recipe, data: Dataset, features: int) -> Parts:
    """Priors, likelihood and posteriors of a hierarchy, each sized for the latents that it is given and those it sees."""
    latents: Any = recipe.latent
    if not all(isinstance(latent, int) for latent in latents):
        raise InvalidInput("latent", got=str(latents), expected="a number for each level of a hierarchy", fix="pass --latent '[40, 20]'")
    options = settings_of(recipe.program)
    seen_above = [features + (sum(latents[level + 1:]) if options["skip"] else 0) for level in range(len(latents))]

    def link(to: int, given: int, context: int, component: Callable[..., nn.Module]) -> nn.Module:
        return _call("level_prior", component, (to,), _call("level_network", recipe.level_network, (given,), context=context))

    lower_priors = [link(latent, above, seen_above[level + 1], recipe.level_prior)
                    for level, (latent, above) in enumerate(pairwise(latents))]
    if options["inference"] == "top_down":
        top_down = [*(above + seen for above, seen in zip(latents[1:], seen_above[1:])), features]
        q = [_call("posterior", recipe.posterior, (latent,), _encoder(recipe, data, context))
             for latent, context in zip(latents, top_down)]
    else:
        q = [_call("posterior", recipe.posterior, (latents[0],), _encoder(recipe, data, features)),
             *(link(latent, below, features, recipe.posterior) for below, latent in pairwise(latents))]
    return ([*lower_priors, _call("prior", recipe.prior, (latents[-1],), context=features)],
            _likelihood(recipe, data, (latents[0],), seen_above[0]), q)


def _encoder(recipe: Recipe, data: Dataset, features: int) -> nn.Module:
    seen = networks.WithMask.doubled(data.event_shape) if data.missing else data.event_shape
    network = _given_context("encoder", recipe, recipe.encoder, seen, features, **_categories(data))
    if data.missing:
        network = networks.WithMask(data.event_shape, network)
    return network if recipe.corruption is None else networks.Corrupted(network, recipe.corruption)


def _likelihood(recipe: Recipe, data: Dataset, latent: Shape, features: int) -> nn.Module:
    decoder = _given_context("decoder", recipe, recipe.decoder, latent, features, size=data.event_shape)
    likelihood = _call("likelihood", recipe.likelihood, data.event_shape, decoder, **_categories(data))
    return likelihoods.Missing(likelihood) if data.missing else likelihood


def _categories(data: Dataset) -> dict[str, int]:
    """How many categories the entries of text are."""
    return {} if data.vocabulary is None else {"categories": len(data.vocabulary)}


def _given_context(argument: str, recipe: Recipe, factory: Callable[..., nn.Module], in_shape: Shape, features: int,
                   **offers: Any) -> nn.Module:
    """A network with the context's features, or one that does not see them, as the recipe says."""
    if argument in recipe.context_to:
        return _call(argument, factory, in_shape, context=features, **offers)
    return networks.WithoutContext(_call(argument, factory, in_shape, **offers))


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
    if data.num_classes > max(1000, len(data)):
        raise InvalidInput("context", got=f"labels up to {data.num_classes - 1} for {len(data)} data", expected="labels 0, 1, 2, ...",
                           fix="number them anew, for instance by numpy.unique(y, return_inverse=True)")
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
    target = target_of(factory)
    parameters = inspect.signature(target).parameters
    wanted = {name: value for name, value in offers.items() if name in parameters}
    given = factory.keywords if isinstance(factory, partial) else {}
    for name, value in wanted.items():
        own = given.get(name)
        is_default = name not in given or own == parameters[name].default
        if not is_default and own and (tuple(own) if isinstance(own, list) else own) != value:
            raise InvalidInput(f"{argument}.{name}", got=repr(own), expected=f"{value!r}, which follows from the data",
                               fix="leave it out; --context says whether there is a context" if name == "context" else "leave it out")
    if offers.get("context") and argument != "prior" and "context" not in wanted:
        raise InvalidInput(argument, got="a network that takes no context", expected="context= in its signature",
                           fix="choose MLP, or add that argument")
    try:
        return factory(*sizes, **wanted)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(argument, got=f"{target.__name__} with arguments that it cannot be built with ({error})",
                           expected="arguments as its docstring says", fix=f"see --{argument}.help {target.__name__}") from error


def target_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The class behind a factory: jsonargparse hands over a partial call whose last argument is the class."""
    return factory.args[-1] if isinstance(factory, partial) and factory.args else factory


def settings_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a factory's class will be built with, its defaults among them, apart from those still to come."""
    given = factory.keywords if isinstance(factory, partial) else {}
    defaults = {name: parameter.default for name, parameter in inspect.signature(target_of(factory)).parameters.items()}
    return defaults | given


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
        return parse_components(self.parser, argv, recipe)

    def recipe(self, namespace: Namespace) -> Recipe:
        """The recipe that parsed arguments stand for, its components ready to be called."""
        built = self.parser.instantiate(namespace)
        return Recipe(**{field.name: built[field.name] for field in fields(Recipe)})

    def dump(self, namespace: Namespace) -> str:
        """The recipe as YAML that `read_recipe` reads."""
        whole = yaml.safe_load(self.parser.dump(namespace))
        return yaml.safe_dump({field.name: whole[field.name] for field in fields(Recipe) if field.name in whole},
                              sort_keys=False)


def parse_components(parser: ArgumentParser, argv: Sequence[str], layers: Mapping[str, Any]) -> Namespace:
    """Flags over values that come first; flags that name components may do so as `resolve_component` reads them."""
    values = dict(layers)
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        flag, equals, value = token.partition("=")
        family = flag.removeprefix("--")
        if family.endswith(".help") and family[:-5] in FAMILIES:
            name = value if equals else next(tokens, "")
            rest += [flag, resolve_component(family[:-5], name or component_names(family[:-5])[0])]
        elif flag.startswith("--") and family in FAMILIES:
            path = resolve_component(family, value if equals else next(tokens, ""))
            if _class_path(values.get(family)) != path:
                values[family] = {"class_path": path}
        else:
            rest.append(token)
    parser.set_defaults(values)
    return parser.parse_args(rest)


def _class_path(component: Any) -> str | None:
    return component.get("class_path") if isinstance(component, Mapping) else component
