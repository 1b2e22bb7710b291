"""Every network in `__all__` keeps its contract; a new class is tested without being listed."""

import inspect

import pytest
import torch

import pyro_vae as pv
from pyro_vae.networks import Head
from pyro_vae.testing import check_network
from pyro_vae.validation import InvalidInput

SHAPES = [
    (6,),
    (1, 8, 8),
    (3, 7, 5),
    (2, 1, 9),
    (1, 28, 28),
    (2, 9),
    (2, 4),
    (1, 16),
    (3, 1),
    (2, 3, 4, 5),
]


def is_decoder(cls) -> bool:
    return "size" in inspect.signature(cls).parameters


def build(name, shape, **arguments):
    """A network that reads, or makes, events of that shape; ``None`` where it refuses them."""
    cls = getattr(pv.networks, name)
    try:
        return cls(4, size=shape, **arguments) if is_decoder(cls) else cls(shape, **arguments)
    except InvalidInput as error:
        assert error.argument == ("size" if is_decoder(cls) else "in_shape")
        of_categories = name == "BagOfWords" and error.expected == "(length,)"
        assert ("channels, " in error.expected or of_categories) and "MLP" in error.fix
        return None


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", pv.networks.__all__)
def test_network(name, shape, context):
    network = build(name, shape, context=context)
    if network is None:
        return
    if is_decoder(type(network)):
        assert network.out_shape[1:] == shape[1 if len(shape) > len(network.size) else 0 :]
        x = torch.randn(3, 4)
    else:
        x = torch.randn(3, *shape)
    check_network(network, x, context=torch.randn(3, context) if context else None)


@pytest.mark.parametrize("name", pv.networks.__all__)
def test_every_network_takes_some_shape_and_every_option(name):
    shape = next(shape for shape in SHAPES if build(name, shape) is not None)
    cls = getattr(pv.networks, name)
    others = {
        "activation": torch.nn.Tanh,
        "dropout": 0.2,
        "hidden": [7, 5],
        "channels": [4, 3],
        "kernel_size": 1,
        "width": 6,
        "cell": "LSTM",
        "layers": 2,
        "bidirectional": True,
    }
    arguments = {name: others[name] for name in inspect.signature(cls).parameters if name in others}
    network = build(name, shape, **arguments)
    given = torch.randn(3, 4) if is_decoder(cls) else torch.randn(3, *shape)
    check_network(network, given)
    if "hidden" in arguments and not is_decoder(cls):
        assert network.out_shape[0] == 5


@pytest.mark.parametrize("name", pv.networks.__all__)
def test_a_program_of_each_network_reads_and_makes_what_it_takes(name):
    shape = next(shape for shape in reversed(SHAPES) if build(name, shape) is not None)
    network, other = (
        build(name, shape),
        pv.networks.MLP(4 if not is_decoder(getattr(pv.networks, name)) else shape, [8]),
    )
    encoder, decoder = (other, network) if is_decoder(type(network)) else (network, other)
    vae = pv.VAE(
        pv.priors.StandardNormal(4),
        pv.likelihoods.Normal(shape, decoder),
        pv.posteriors.DiagonalNormal(4, encoder),
    )
    assert pv.elbo(vae, torch.randn(2, *shape), 3).values.isfinite().all()
    assert pv.generate(vae, 2).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 7)])
def test_a_head_on_maps_is_one_linear_map_for_all_places(shape):
    head = Head(shape, (2, *shape[1:]), parameters=2)
    features = torch.randn(4, 6, *shape)
    loc, scale = head(features)
    assert loc.shape == scale.shape == (4, 6, 2, *shape[1:])
    by_hand = torch.einsum(
        "oc,knc...->kno...", head.layer.weight.flatten(1), features
    ) + head.layer.bias.reshape(-1, *(1,) * (len(shape) - 1))
    torch.testing.assert_close(torch.cat([loc, scale], 2), by_hand)
    assert head.layer.weight.numel() == 2 * 2 * 5


def test_gated_units_are_products(float64):
    network = pv.networks.GatedMLP(3, [2], context=4)
    x, c = torch.randn(5, 3), torch.randn(5, 4)
    both = (
        x @ network.layers[0].input.weight.T
        + network.layers[0].input.bias
        + c @ network.layers[0].context.weight.T
    )
    torch.testing.assert_close(network(x, context=c), both[:, :2] * torch.sigmoid(both[:, 2:]))


def test_a_recurrent_network_has_the_last_states_of_both_directions(float64):
    network = pv.networks.Recurrent((2, 6), width=3, hidden=[], bidirectional=True)
    x = torch.randn(4, 2, 6)
    _, last = network.recurrence(x.transpose(1, 2))
    torch.testing.assert_close(network(x), torch.cat([last[0], last[1]], -1))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: pv.networks.GatedMLP(3, []), "hidden"),
        (lambda: pv.networks.Conv((1, 8, 8), hidden=[], context=2), "hidden"),
        (lambda: pv.networks.Recurrent((1, 8), hidden=[], context=2), "hidden"),
        (lambda: pv.networks.ResidualConv((1, 8, 8), kernel_size=4), "kernel_size"),
        (lambda: pv.networks.ConvTranspose1d(2, (1, 8), channels=[]), "channels"),
        (lambda: pv.networks.RecurrentDecoder(2), "size"),
        (lambda: pv.networks.Recurrent((1, 8), cell="LSTN"), "did you mean 'LSTM'"),
    ],
)
def test_impossible_networks_say_so(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_words_are_counted_but_for_the_end(float64):
    network = pv.networks.BagOfWords(6, [3], categories=4)
    x = torch.tensor([[3.0, 1.0, 3.0, 2.0, 3.0, 0.0]], dtype=torch.float64)
    expected = network.dense(torch.tensor([[1.0, 1.0, 3.0]], dtype=torch.float64).log1p())
    torch.testing.assert_close(network(x), expected)
    with pytest.raises(InvalidInput, match="categories: got 1"):
        pv.networks.BagOfWords(6, categories=1)
