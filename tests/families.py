"""Build any member of a family by name, with what it asks for, so that no test lists a class."""

import inspect

import torch
from common import known_of

import pyro_vae as pv
from pyro_vae.runtime.checks import checked_data
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def prior(name, latent, context=0):
    """A prior with context features if it takes them and, for speed, few components."""
    cls = getattr(pv.priors, name)
    offers = {"context": context, "components": 4, "width": 4, "layers": 2}
    return cls(
        latent, **{key: offers[key] for key in offers if key in inspect.signature(cls).parameters}
    )


def takes_context(name):
    return "context" in inspect.signature(getattr(pv.priors, name)).parameters


def needs_context(name):
    try:
        prior(name, 2)
    except InvalidInput as refusal:
        return refusal.argument == "context"
    return False


def program(prior_name, posterior_name, likelihood_name="Bernoulli", latent=2, event=5):
    """A small program; with a context of three labels if the prior cannot do without."""
    context = 3 if needs_context(prior_name) else 0
    return pv.VAE(
        prior=prior(prior_name, latent, context),
        likelihood=getattr(pv.likelihoods, likelihood_name)(
            event, MLP(latent, [8], context=context)
        ),
        posterior=getattr(pv.posteriors, posterior_name)(latent, MLP(event, [8], context=context)),
        context=pv.networks.OneHot(3) if context else None,
    )


def data_of(program, num=6):
    """Data drawn from the likelihood, so that they lie in its support."""
    labels = torch.arange(num) % 3 if program.context is not None else None
    known = known_of(program.likelihood, num)
    features = None if labels is None else program.context(labels)
    x = program.likelihood(torch.randn(num, 2), context=features, **known).sample()
    if known:
        return x, known if labels is None else {"labels": labels, **known}
    return x if labels is None else (x, labels)


def program_with(family, name):
    """The program of a prior or posterior and the first of the other family that goes with it."""
    for prior_name in (
        [name] if family is pv.priors else sorted(pv.priors.__all__, key=needs_context)
    ):
        for posterior_name in [name] if family is pv.posteriors else pv.posteriors.__all__:
            found = program(
                prior_name, posterior_name, name if family is pv.likelihoods else "Bernoulli"
            )
            try:
                checked_data(found, data_of(found))
            except InvalidInput:
                continue
            return found
    raise AssertionError(f"nothing goes with {name}")


def refusal_of(build):
    """The error with which a size is refused, which names those that are not, or None."""
    try:
        build()
    except InvalidInput as refusal:
        assert (
            refusal.argument == "latent"
            and "shape" in refusal.expected
            and refusal.fix.startswith("pass latent=")
        )
        return refusal
    return None
