"""Deep latent-variable models in Pyro, trained by SVI and scored with errors."""

import importlib.util
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # all of it is imported on first use, so that a command starts at once
    from pyro_vae import (
        checks,
        datasets,
        diagnostics,
        evaluation,
        inspection,
        likelihoods,
        networks,
        objectives,
        posteriors,
        priors,
        training,
    )
    from pyro_vae.checkpoint import load, save
    from pyro_vae.checks import check
    from pyro_vae.diagnostics import to_inference_data
    from pyro_vae.evaluation import compare, elbo, log_likelihood, to_elpd
    from pyro_vae.programs import (
        VAE,
        HierarchicalVAE,
        LadderVAE,
        MultimodalVAE,
        Program,
        Refined,
        SemiSupervisedVAE,
    )
    from pyro_vae.runtime.at_globals import at_globals
    from pyro_vae.runtime.decoding import decode
    from pyro_vae.runtime.imputation import impute
    from pyro_vae.runtime.predictive import encode, generate, reconstruct
    from pyro_vae.training import CompiledSVI, fit  # type: ignore[no-redef]  # a module, too
    from pyro_vae.validation import InvalidInput

__version__ = "0.2.0"

__all__ = [
    "VAE", "CompiledSVI", "HierarchicalVAE", "InvalidInput", "LadderVAE", "MultimodalVAE",
    "Program", "Refined", "SemiSupervisedVAE", "at_globals", "check", "checks", "compare",
    "datasets", "decode", "diagnostics", "elbo", "encode", "evaluation", "fit", "generate",
    "impute", "inspection", "likelihoods", "load", "log_likelihood", "networks", "objectives",
    "plotting", "posteriors", "priors", "reconstruct", "save", "sharing", "to_elpd",
    "to_inference_data", "training",
]  # fmt: skip

# Where the functions and classes named above are defined.
_HOMES = {
    "VAE": "programs",
    "CompiledSVI": "training",
    "HierarchicalVAE": "programs",
    "InvalidInput": "validation",
    "LadderVAE": "programs",
    "MultimodalVAE": "programs",
    "Program": "programs",
    "Refined": "programs",
    "SemiSupervisedVAE": "programs",
    "at_globals": "runtime.at_globals",
    "check": "checks",
    "compare": "evaluation",
    "decode": "runtime.decoding",
    "elbo": "evaluation",
    "encode": "runtime.predictive",
    "fit": "training",
    "generate": "runtime.predictive",
    "impute": "runtime.imputation",
    "load": "checkpoint",
    "log_likelihood": "evaluation",
    "reconstruct": "runtime.predictive",
    "save": "checkpoint",
    "to_elpd": "evaluation",
    "to_inference_data": "diagnostics",
}

# Names of version 0.1.0, and where they live now.
_FORMER_NAMES = {
    "ais": "evaluation.ais",
    "bdmc": "evaluation.bdmc",
    "calibration": "diagnostics.calibration",
    "compare_posteriors": "diagnostics.compare_posteriors",
    "comparison": "evaluation.comparison",
    "corruptions": "networks.corruptions",
    "decomposition": "evaluation.decomposition",
    "draws": "diagnostics.samplers",
    "fidelity": "evaluation.fidelity",
    "geometry": "inspection.geometry",
    "proposals": "evaluation.proposals",
    "reference": "diagnostics.two_sample",
    "results": "evaluation.results",
    "schedules": "training.schedules",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, and resolve the names of version 0.1.0."""
    if not name.startswith("_"):
        if name in _FORMER_NAMES:
            package, member = _FORMER_NAMES[name].split(".")
            return getattr(_imported(package), member)
        if name in _HOMES:
            return globals().setdefault(name, getattr(_imported(_HOMES[name]), name))
        if importlib.util.find_spec(f"pyro_vae.{name}") is not None:
            return _imported(name)
    raise AttributeError(f"module 'pyro_vae' has no attribute {name!r}")


def _imported(name: str) -> ModuleType:
    """A module of ours; that a notebook lacks the widgets of Pyro's own bars is left unsaid."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        return importlib.import_module(f"pyro_vae.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
