"""What is trained is saved and scored: a loss that reaches other parameters is refused."""

from functools import partial, wraps

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PROGRAMS
from common import small_vae

import pyro_vae as pv
from pyro_vae.training.ownership import leaves_of
from pyro_vae.validation import InvalidInput

X = torch.linspace(-1, 1, 12).reshape(4, 3)
AT_MODULE_LEVEL = torch.nn.Linear(2, 3)


def sample(encoder, decoder):
    """A model and a guide that are given their networks when they are called."""

    def model(x, decoder=decoder):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x, encoder=encoder):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return model, guide


def networks():
    return torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)


def by_closure(encoder, decoder):
    model, guide = sample(encoder, decoder)
    return lambda x: model(x, decoder), lambda x: guide(x, encoder)


def by_partial(encoder, decoder):
    model, guide = sample(encoder, decoder)
    return partial(model, decoder=decoder), partial(guide, encoder=encoder)


def by_wrapping(encoder, decoder):
    model, guide = by_closure(encoder, decoder)

    @wraps(model)
    def wrapped(x):
        return model(x)

    return wrapped, guide


def by_global(encoder, decoder):
    _, guide = by_closure(encoder, decoder)

    def of_global(x):
        return sample(encoder, AT_MODULE_LEVEL)[0](x)

    return of_global, guide


def refused(program, **options):
    with pytest.raises(InvalidInput) as error:
        pv.fit(program, X, epochs=1, progress=False, **options)
    return str(error.value)


@pytest.mark.parametrize("objective", pv.objectives.__all__)
def test_a_forgotten_module_is_named_with_the_line_to_write(objective):
    encoder, decoder = networks()
    model, guide = by_closure(encoder, decoder)
    message = refused(
        pv.Program(model, guide, modules=[encoder]), objective=getattr(pv.objectives, objective)()
    )
    assert "parameters of 'decoder', which the program does not own" in message
    assert message.endswith("write pv.Program(model, guide, modules=[decoder, encoder])")
    whole = pv.Program(model, guide, modules=[decoder, encoder])
    assert len(pv.fit(whole, X, epochs=1, progress=False)) == 1


@pytest.mark.parametrize("refers", [by_closure, by_partial, by_wrapping])
def test_however_the_function_refers_to_it(refers):
    encoder, decoder = networks()
    assert "parameters of 'decoder'" in refused(pv.Program(*refers(encoder, decoder), [encoder]))


def test_a_global_is_found():
    encoder, decoder = networks()
    program = pv.Program(*by_global(encoder, decoder), [encoder, decoder])
    assert "parameters of 'AT_MODULE_LEVEL'" in refused(program)


def test_networks_of_a_plain_object_are_found():
    class Pair:
        def __init__(self):
            self.encoder, self.decoder = networks()

        def model(self, x):
            return sample(None, self.decoder)[0](x)

        def guide(self, x):
            return sample(self.encoder, None)[1](x)

    pair = Pair()
    program = pv.Program(pair.model, pair.guide, modules=[pair.encoder])
    assert "parameters of 'model.__self__.decoder'" in refused(program)


def test_a_tensor_that_is_no_parameter_of_a_module_is_named():
    encoder, decoder = networks()
    shift = torch.zeros(3, requires_grad=True)
    model, guide = by_closure(encoder, lambda z: decoder(z) + shift)
    message = refused(pv.Program(model, guide, modules=[encoder, decoder]))
    assert "the tensor 'shift'" in message and "an nn.Parameter" in message


class Slots:
    __slots__ = ("network", "unset")

    def __init__(self, network):
        self.network = network


def by_default(network):
    def applied(h, network=network):
        return network(h)

    return applied


def by_keyword(network):
    def applied(h, *, network=network):
        return network(h)

    return applied


def by_slots(network):
    holder = Slots(network)
    return lambda h: holder.network(h)


def by_class(network):
    holder = type("Holder", (), {"network": network, "__module__": "mine"})
    return lambda h: holder.network(h)


def by_class_of_object(network):
    holder = type("Holder", (), {"network": network, "__module__": "mine"})()
    return lambda h: holder.network(h)


def by_container(network):
    holder = {"some": [(network,)]}
    return lambda h: holder["some"][0][0](h)


@pytest.mark.parametrize(
    "holds, name",
    [
        (by_default, "'network'"),
        (by_keyword, "'network'"),
        (by_slots, "'holder.network'"),
        (by_class, "'holder.network'"),
        (by_class_of_object, "'holder.network'"),
        (by_container, "\"holder['some'][0][0]\""),
    ],
)
def test_wherever_a_network_is_held_it_is_named(holds, name):
    encoder, decoder = networks()
    last = holds(torch.nn.Linear(3, 3))
    model, guide = by_closure(encoder, lambda z: last(decoder(z)))
    message = refused(pv.Program(model, guide, modules=[encoder, decoder]))
    assert f"parameters of {name}, which the program does not own" in message


class InAList(torch.nn.Module):
    """A network that keeps its layers in a plain list, where torch does not find them."""

    def __init__(self):
        super().__init__()
        self.layers = [torch.nn.Linear(2, 3)]
        self.out_shape = 3
        self.last = torch.nn.Linear(3, 3)

    def forward(self, z):
        return self.last(self.layers[0](z))


def test_layers_in_a_plain_list_are_told_to_be_a_module_list():
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, InAList()),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    message = refused(vae)
    assert message.endswith("make likelihood.network.layers an nn.ModuleList (or an nn.ModuleDict)")


def test_a_buffer_that_requires_a_gradient_is_named():
    vae = small_vae()
    vae.prior.loc.requires_grad_()
    with pytest.raises(InvalidInput, match=r"the buffer 'prior.loc', which .* or else detach it"):
        pv.fit(vae, torch.zeros(4, 1, 8, 8), epochs=1, progress=False)


def test_a_tensor_computed_from_a_leaf_is_named():
    encoder, decoder = networks()
    doubled = 2 * torch.zeros(3, requires_grad=True)
    model, guide = by_closure(encoder, lambda z: decoder(z) + doubled)
    assert "the tensor 'doubled'" in refused(pv.Program(model, guide, modules=[encoder, decoder]))


class Held(torch.nn.Module):
    """A prior that is made once, of a parameter that no module has."""

    def __init__(self):
        super().__init__()
        loc = torch.nn.Parameter(torch.zeros(2))
        self.held = torch.distributions.Independent(torch.distributions.Normal(loc, 1.0), 1)

    def forward(self, *, context=None):
        return self.held


def test_the_parameters_of_a_prior_that_was_made_beforehand_are_named():
    vae = pv.VAE(
        Held(),
        pv.likelihoods.Normal(3, pv.networks.MLP(2, [4])),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    with pytest.raises(InvalidInput, match=r"the tensor 'prior.held.base_dist.loc'.* a module of"):
        pv.fit(vae, X, epochs=1, progress=False)


def test_a_part_that_is_not_registered_is_named_by_its_path():
    vae = small_vae()
    vae.likelihood.kept = [torch.nn.Linear(2, 2)]
    network = vae.likelihood.network
    network.register_forward_pre_hook(lambda module, args: (vae.likelihood.kept[0](args[0]),))
    with pytest.raises(InvalidInput, match=r"'likelihood.kept\[0\]'.*likelihood.kept an nn.Modul"):
        pv.fit(vae, torch.zeros(4, 1, 8, 8), epochs=1, progress=False)


def test_what_a_frozen_module_gives_is_no_parameter():
    encoder, decoder = networks()
    model, guide = by_closure(encoder, decoder.requires_grad_(False))
    assert (
        len(pv.fit(pv.Program(model, guide, modules=[encoder]), X, epochs=1, progress=False)) == 1
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_leaves_of_a_loss_are_the_parameters_of_the_program(name):
    program, context = PROGRAMS[name]
    x = torch.bernoulli(torch.rand(6, 1, 8, 8))
    loss = pv.objectives.ELBO().differentiable_loss(program.model, program.guide, x, *context)
    reached = leaves_of(loss)
    for parameter in program.parameters():
        reached.pop(id(parameter), None)
    # Refined cuts its own parameters off as leaves, anew in each run.
    assert all(not isinstance(leaf, torch.nn.Parameter) for leaf in reached.values())
    assert not reached or name == "refined"
