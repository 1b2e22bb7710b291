"""Components by name or import path."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import ModuleType

import torch

from pyro_vae import likelihoods, networks, objectives, posteriors, priors, programs
from pyro_vae.checkpoint import Untrusted, current_path, import_of_the_users
from pyro_vae.checkpoint.description import resolve
from pyro_vae.checkpoint.trust import LAYERS, class_at, is_the_users
from pyro_vae.contracts import Bindable
from pyro_vae.evaluation import proposals
from pyro_vae.files.reading import parsed_yaml
from pyro_vae.networks import cells, corruptions
from pyro_vae.programs.parts import takes_input
from pyro_vae.training import schedules
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = [
    "FAMILIES", "LEVELS", "SITES", "check_trusted", "component_names", "may_name", "names_in",
    "resolve_component", "with_import_path", "with_import_paths",
]  # fmt: skip

SITES = "sites"  # the key of a recipe with components of observed sites, by their names
LEVELS = "levels"  # the key of a recipe with components of levels, in a list

FAMILIES: dict[str, ModuleType] = {
    "prior": priors,
    "likelihood": likelihoods,
    "posterior": posteriors,
    "encoder": networks,
    "decoder": networks,
    "program": programs,
    "level_prior": posteriors,
    "level_network": networks,
    "kind": cells,
    "corruption": corruptions,
    "objective": objectives,
    "schedule": schedules,
    "optimizer": torch.optim,
    "proposal": proposals,
}


LIKELIHOODS = {"likelihood", "likelihoods"}  # the arguments of programs that are built from parts


def component_names(family: str) -> list[str]:
    """This package's components that a recipe's key accepts by name.

    Of the programs, only those that are built from a prior, a likelihood and a posterior.

    Example:
        >>> component_names("program")
        ['VAE', 'HierarchicalVAE', 'LadderVAE', 'MultimodalVAE', 'SemiSupervisedVAE']
    """
    module = FAMILIES[family]
    classes = {name: vars(module).get(name) for name in _names_of(module)}
    names = [
        name
        for name, value in classes.items()
        if inspect.isclass(value)
        and (module is not programs or inspect.signature(value).parameters.keys() & LIKELIHOODS)
    ]
    return [*names, *priors_below_the_top()] if family == "level_prior" else names


def priors_below_the_top() -> list[str]:
    """The priors that may stand below the top of a hierarchy by their name alone.

    One that shares q(z | x) stands at the top, unless it takes what is above. A name that
    `pyro_vae.posteriors` has too is that of the posterior; the prior's import path names the prior.

    Example:
        >>> {"UniformCodes", "PixelCNN", "GaussianMixture"} <= {*priors_below_the_top()}
        True
        >>> {"VampPrior", "Flow"} & {*priors_below_the_top()}
        set()
    """
    return [
        name
        for name in priors.__all__
        if name not in vars(posteriors)
        and (takes_input(vars(priors)[name]) or not issubclass(vars(priors)[name], Bindable))
    ]


def _holder_of(family: str, name: str) -> ModuleType:
    """The module that a component of a family is found in."""
    module = FAMILIES[family]
    return module if name in vars(module) else priors


def _names_of(module: ModuleType) -> list[str]:
    """The components of a module, those of several observed sites last."""
    return [*module.__all__, *vars(module).get("OF_SITES", ())]


def resolve_component(family: str, name: str) -> str:
    """The import path of a component, given by class name or by path.

    Raises:
        InvalidInput: if there is no such component; the error names the nearest one.

    Example:
        >>> resolve_component("prior", "GaussianMixture")
        'pyro_vae.priors.GaussianMixture'
    """
    module, known = FAMILIES[family], component_names(family)
    if name in known:
        return f"{_holder_of(family, name).__name__}.{name}"
    former = vars(module).get("FORMER_NAMES", {})
    if name in former:
        return f"{module.__name__}.{former[name].__name__}"
    name = current_path(name)
    path, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_of_the_users(path), attribute) if path else None
    except ImportError as error:
        # A missing module and a failing import inside it raise the same exception: say which.
        raise InvalidInput(
            family,
            got=f"{name!r}, which cannot be imported ({error})",
            expected="an import path",
            fix=f"check the path, or {nearest_name(attribute, known)}",
        ) from None
    except AttributeError:
        raise InvalidInput(
            family,
            got=f"{name!r}, a name that {path} does not have",
            expected="an import path",
            fix=nearest_name(
                attribute, [own for own in dir(import_of_the_users(path)) if own[0] != "_"]
            ),
        ) from None
    if not callable(found) or isinstance(found, torch.nn.Module):
        raise InvalidInput(
            family,
            got=repr(name),
            expected=f"a class of {module.__name__} or an import path",
            fix=nearest_name(name, known),
        )
    return name


def with_import_paths(family: str, argument: object) -> object:
    """An argument of a component, in which components of its family are named by import path.

    Example:
        >>> with_import_paths("likelihood", {"of": {"class_path": "Gamma"}})
        {'of': {'class_path': 'pyro_vae.likelihoods.Gamma'}}
    """
    if not isinstance(argument, Mapping):
        return argument
    found = {
        key: with_import_paths("kind" if key == "kind" else family, value)
        for key, value in argument.items()
    }
    if found.get("class_path") in component_names(family):
        found["class_path"] = resolve_component(family, str(found["class_path"]))
    return found


def with_import_path(key: str, value: object) -> object:
    """A recipe's value, in which components are named by import path.

    Example:
        >>> with_import_path("prior", "VampPrior")
        'pyro_vae.priors.VampPrior'
        >>> with_import_path("sites", {"image": {"encoder": "MLP"}})
        {'image': {'encoder': 'pyro_vae.networks.MLP'}}
    """
    if key == SITES and isinstance(value, Mapping):
        return {site: _with_import_paths_of(parts) for site, parts in value.items()}
    if key == LEVELS and isinstance(value, list):
        return [_with_import_paths_of(parts) for parts in value]
    if key in FAMILIES and isinstance(value, str):
        return resolve_component(key, value)
    if key in FAMILIES and isinstance(value, Mapping) and "class_path" in value:
        found = with_import_paths(key, value.get("init_args"))
        given = {"init_args": found} if "init_args" in value else {}
        return {**value, **given, "class_path": resolve_component(key, str(value["class_path"]))}
    return value


def _with_import_paths_of(parts: object) -> object:
    """The parts of a site or of a level, named by import path."""
    if not isinstance(parts, Mapping):
        return parts
    return {name: with_import_path(str(name), part) for name, part in parts.items()}


def check_trusted(values: Mapping[str, object], source: str, trust: Sequence[str]) -> None:
    """Raise `Untrusted` if a recipe names what no file may name, before anything is imported.

    Args:
        values: the recipe.
        source: the file that it comes from.
        trust: modules that the user named.
    """
    for key in values.keys() & {*FAMILIES, LEVELS, SITES}:
        for name in names_in(values[key], is_class=key in FAMILIES):
            if not may_name(name, trust):
                raise Untrusted(name, f"{source}: {key}")


def names_in(value: object, is_class: bool = False) -> Iterator[str]:
    """Texts in a component's description that are import paths, or that name a class.

    The parser of options reads a text as YAML: the names inside of it are given, too.
    """
    if isinstance(value, str):
        try:
            inside = parsed_yaml(value)
        except Exception:  # of what is no YAML, or nests without end
            inside = None
            yield value
        if inside != value:
            yield from names_in(inside, is_class)
        elif is_class or "." in value:
            yield value
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from names_in(item, is_class=key == "class_path")


def may_name(name: str, trust: Sequence[str] = ()) -> bool:
    """Whether a file may name a component, by its name or its import path."""
    name = current_path(name)
    path, _, attribute = name.rpartition(".")
    named = [(module, each) for module in FAMILIES.values() for each in _names_of(module)]
    if not path:
        return attribute in LAYERS or any(attribute == each for _, each in named)
    # A component of ours goes by any module that holds it; `Program` calls what it is given.
    found = vars(sys.modules[path]).get(attribute) if path in sys.modules else None
    if any(found is vars(module)[each] for module, each in named if each in vars(module)):
        return found is not programs.Program
    try:
        return class_at(name, trust) is not programs.Program
    except Untrusted:
        return False
    except ImportError:
        return True  # of a module that may be named: `resolve_component` says what is wrong
    except TypeError:  # no class of a module's, but maybe a function of the user's
        with suppress(AttributeError):
            return is_the_users(resolve(name), trust)
        return True
