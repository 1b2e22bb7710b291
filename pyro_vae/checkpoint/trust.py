"""Decide which classes a file may name: a file never decides what runs.

A run folder may come from a stranger. What its files name is built if it is a component of this
package, one of the layers of torch that are listed here, or a module class of the user's own: one
whose module the user named, or has imported from a file of their own. Names are compared before
anything is imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType

from torch import nn

from pyro_vae.files.writing import CheckpointError

__all__ = [
    "OURS", "Untrusted", "class_at", "import_of_the_users", "is_named", "is_the_users",
    "is_trusted_class",
]  # fmt: skip

# The packages whose public classes programs are made of.
OURS = (
    "pyro_vae.programs", "pyro_vae.priors", "pyro_vae.likelihoods", "pyro_vae.posteriors",
    "pyro_vae.networks",
)  # fmt: skip

# Layers that compute with numbers: none calls, imports or reads what it is given.
LAYERS = frozenset([
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AlphaDropout", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Bilinear", "CELU", "ChannelShuffle",
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
    "ConvTranspose3d", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "ELU", "Embedding",
    "EmbeddingBag", "FeatureAlphaDropout", "Flatten", "Fold", "GELU", "GLU", "GRU", "GRUCell",
    "GroupNorm", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "InstanceNorm1d",
    "InstanceNorm2d", "InstanceNorm3d", "LPPool1d", "LPPool2d", "LPPool3d", "LSTM", "LSTMCell",
    "LayerNorm", "LeakyReLU", "Linear", "LocalResponseNorm", "LogSigmoid", "LogSoftmax",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "Mish", "ModuleDict", "ModuleList", "MultiheadAttention",
    "PReLU", "PixelShuffle", "PixelUnshuffle", "RMSNorm", "RNN", "RNNCell", "RReLU", "ReLU",
    "ReLU6", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "SELU", "Sequential", "SiLU", "Sigmoid", "Softmax",
    "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold",
    "Unflatten", "Unfold", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad1d",
    "ZeroPad2d", "ZeroPad3d",
])  # fmt: skip


class Untrusted(CheckpointError):
    """A class of somebody else's, named by a file but not by the user."""

    def __init__(self, path: str, argument: str = "run"):
        module = path.rpartition(".")[0]
        top = module.split(".")[0] or path
        super().__init__(
            argument,
            got=f"{path!r}, which is neither pyro_vae's nor a listed layer of torch",
            expected="a class whose module you named, for a file from a stranger may name anything",
            fix=f"if you trust {module or path}, add --trust {top} "
            f"(in Python, trust=[{top!r}] or import {module or path} first)",
        )


def class_at(path: str, trust: Sequence[str] = ()) -> type[nn.Module]:
    """The module class at an import path that a file names.

    Args:
        path: the import path.
        trust: modules that the user named; what lies inside of them is theirs, too.

    Raises:
        Untrusted: before any import, if the module is not one that a file may name.
        TypeError: if there is no such class, or it is no subclass of `torch.nn.Module`.

    Example:
        >>> class_at("torch.nn.Linear")
        <class 'torch.nn.modules.linear.Linear'>
    """
    module, _, name = path.rpartition(".")
    if is_named(module, ["torch.nn"]) and not is_named("torch", trust):
        found = vars(nn).get(name) if name in LAYERS else None
        if found is None:
            raise Untrusted(path)
    elif is_of_ours(module):
        found = getattr(importlib.import_module(module), name, None)
    elif is_named(module, trust):
        found = getattr(import_of_the_users(module), name, None)
    elif _is_imported_by_the_user(module):
        found = vars(sys.modules[module]).get(name)
    else:
        raise Untrusted(path)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise TypeError(f"{path} is not a module class")
    if not is_trusted_class(found, trust):
        raise Untrusted(f"{found.__module__}.{found.__qualname__}")
    return found


def is_trusted_class(cls: type, trust: Sequence[str] = ()) -> bool:
    """Whether a file may name a class, by where it was defined and not by what else holds it."""
    if is_of_ours(cls.__module__):
        return cls.__name__ in vars(sys.modules[cls.__module__]).get("__all__", ())
    is_layer = cls.__name__ in LAYERS and vars(nn)[cls.__name__] is cls
    return is_layer or is_the_users(cls, trust)


def is_the_users(made: object, trust: Sequence[str] = ()) -> bool:
    """Whether a class, a function or a partial of one was defined in a module of the user's.

    What such a module has itself imported, as by ``from os import system``, is not theirs.
    """
    if isinstance(made, partial):
        return is_the_users(made.func, trust)
    if not isinstance(made, type | FunctionType):
        return False
    return is_named(made.__module__, trust) or _is_imported_by_the_user(made.__module__)


def is_of_ours(module: str) -> bool:
    """Whether a module is one of the packages whose public classes programs are made of."""
    return is_named(module, OURS) or module == "pyro_vae"


def is_named(module: str, names: Sequence[str]) -> bool:
    """Whether a module is one of those named, or lies inside of one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _is_imported_by_the_user(name: str) -> bool:
    """Whether the user's program has imported a module from a file of its own.

    A library's module is not the user's, whoever imported it: torch, Python's and whatever else is
    installed have classes that act on what they are given.
    """
    module = sys.modules.get(name)
    if name == "__main__":
        return True
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    if not isinstance(file, str) or is_named(name, ["pyro_vae", "torch", "pyro"]):
        return False
    place, paths = Path(file).resolve(), sysconfig.get_paths()
    libraries = [Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")]
    return not {"site-packages", "dist-packages"} & set(place.parts) and not any(
        place.is_relative_to(folder) for folder in libraries
    )


def import_of_the_users(name: str) -> ModuleType:
    """Import a module that the user named, from the working folder where it is nowhere else.

    Raises:
        ImportError: if it is not there, or for whatever its own code raises, ``SystemExit`` too.
    """
    top = name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        # Last, so that nothing there hides a library; for good, so that the user's modules find
        # one another later.
        with suppress(OSError):  # a working folder that was removed
            sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except (ImportError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a script that ends the process, too
        raise ImportError(f"{name} raised {type(error).__name__}: {error}") from error
