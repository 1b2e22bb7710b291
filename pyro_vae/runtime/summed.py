r"""Discrete latents that a model sums over: sites marked for enumeration that no guide draws.

.. math:: \log p(x, z) = \log \sum_y p(y)\, p(z \mid y)\, p(x \mid z, y)

Such a model is run at all states of y at once, in dimensions left of all plates. What depends on y
is contracted to one term (K, N) by Pyro's tensor message passing, exactly, chains included.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from functools import reduce

import torch
from opt_einsum import shared_intermediates
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.discrete import infer_discrete
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from torch import Tensor

from pyro_vae.contracts import Site, StochasticFunction, Trace, sites_of

__all__ = ["drawn_states", "is_summed", "latents_alone", "marginal_terms", "with_drawn"]


def is_summed(site: Site) -> bool:
    """Whether a site of the model stands at all its states at once."""
    return site["infer"].get("_enumerate_dim") is not None


def marginal_terms(trace: Trace, first_dim: int) -> dict[str, Tensor]:
    """The log-probabilities of the sites that depend on summed ones, with these summed out.

    They are unscaled, and in the shape of the plates.

    Args:
        trace: a model's trace.
        first_dim: the first dimension left of all plates, negative: those of states lie there.

    Returns:
        A tensor for each independent sum, under the name of a site of it; none if nothing is summed
        over.
    """
    if not any(is_summed(site) for site in sites_of(trace).values()):
        return {}
    log_probs = {
        name: scale_and_mask(
            site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]),
            mask=None if is_summed(site) else site["mask"],
        )
        for name, site in sites_of(trace).items()
    }
    # A constant of the model may have fewer digits than its parameters; contraction takes one type.
    widest = reduce(torch.promote_types, (value.dtype for value in log_probs.values()))
    trace.symbolize_dims()
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    states, names = set[str](), dict[frozenset[str], str]()
    for name, site in sites_of(trace).items():
        if log_probs[name].dim() <= -first_dim - 1:
            continue  # depends on no summed site
        symbols = site["infer"]["_dim_to_symbol"]
        term = packed.pack(log_probs[name].to(widest), symbols)
        ordinal = frozenset(
            trace.plate_to_symbol[frame.name]
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        )
        tree.setdefault(ordinal, []).append(term)
        names.setdefault(ordinal, name)
        if is_summed(site):
            states.add(site["infer"]["_enumerate_symbol"])  # type: ignore[arg-type]
    with shared_intermediates() as cache:
        contracted = contract_tensor_tree(tree, states, cache=cache)
    return {
        f"{names.get(ordinal, 'sum')} {i}": packed.unpack(term, trace.symbol_to_dim)
        for ordinal, terms in contracted.items()
        for i, term in enumerate(terms)
    }


def latents_alone(trace: Trace, names: Collection[str]) -> Trace:
    """A model's trace without what is observed: its latents of these names and the summed ones."""
    alone = trace.copy()
    for name, site in sites_of(trace).items():
        if name not in names and not is_summed(site):
            alone.remove_node(name)
    return alone


def drawn_states(
    model: StochasticFunction, args: tuple[object, ...], names: Collection[str], first_dim: int
) -> dict[str, Tensor]:
    """Draws of a model's summed sites from their posterior given all that is fixed in it.

    Args:
        model: the model with its other latents fixed, and x observed or hidden.
        args: what it is called with.
        names: the summed sites.
        first_dim: the first dimension left of all plates, negative.
    """
    sampler = infer_discrete(model, first_available_dim=first_dim, strict_enumeration_warning=False)
    with torch.no_grad():  # a state has no derivative
        drawn = sites_of(poutine.trace(sampler).get_trace(*args))
    return {name: drawn[name]["value"] for name in names}


def with_drawn(
    model: StochasticFunction, args: tuple[object, ...], names: Collection[str], first_dim: int
) -> StochasticFunction:
    """A model at draws of its summed sites, as `drawn_states` makes them."""
    return poutine.condition(model, data=drawn_states(model, args, names, first_dim))
