"""Components by name or import path."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import torch

from pyro_vae import likelihoods, networks, objectives, posteriors, priors, programs
from pyro_vae.checkpoint.description import current_path
from pyro_vae.evaluation import proposals
from pyro_vae.networks import corruptions
from pyro_vae.training import schedules
from pyro_vae.validation import InvalidInput, nearest_name

__all__ = ["FAMILIES", "component_names", "resolve_component"]

FAMILIES: dict[str, ModuleType] = {
    "prior": priors,
    "likelihood": likelihoods,
    "posterior": posteriors,
    "encoder": networks,
    "decoder": networks,
    "program": programs,
    "level_prior": posteriors,
    "level_network": networks,
    "corruption": corruptions,
    "objective": objectives,
    "schedule": schedules,
    "optimizer": torch.optim,
    "proposal": proposals,
}


def component_names(family: str) -> list[str]:
    """This package's components that a recipe's key accepts by name.

    Of the programs, only those that are built from a prior, a likelihood and a posterior.

    Example:
        >>> component_names("program")
        ['VAE', 'HierarchicalVAE', 'SemiSupervisedVAE']
    """
    module = FAMILIES[family]
    classes = {name: vars(module).get(name) for name in module.__all__}
    return [
        name
        for name, value in classes.items()
        if inspect.isclass(value)
        and (module is not programs or "likelihood" in inspect.signature(value).parameters)
    ]


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
        return f"{module.__name__}.{name}"
    former = vars(module).get("FORMER_NAMES", {})
    if name in former:
        return f"{module.__name__}.{former[name].__name__}"
    name = current_path(name)
    path, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(path), attribute) if path else None
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
            fix=nearest_name(attribute, dir(importlib.import_module(path))),
        ) from None
    if not callable(found):
        raise InvalidInput(
            family,
            got=repr(name),
            expected=f"a class of {module.__name__} or an import path",
            fix=nearest_name(name, known),
        )
    return name
