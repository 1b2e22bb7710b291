"""A plain module with `out_shape` serves as a network, though it takes one batch dimension only."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pyro_vae as pv
from pyro_vae.testing import check_network, check_program

EVENT = (1, 6, 6)


class Plain(nn.Module):
    """Layers one after another that read, or make, a shape."""

    def __init__(self, *layers, out_shape):
        super().__init__()
        self.layers, self.out_shape = nn.Sequential(*layers), out_shape

    def forward(self, x):
        return self.layers(x)


class First(nn.Module):
    """The outputs of a recurrent layer, without its state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Along(nn.Module):
    """A function along dimension 1, torch's default for many."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, dim=1)


def attention(width):
    return nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=8, batch_first=True)


def lstm(width):
    return First(nn.LSTM(width, 4, batch_first=True))


ENCODERS = {
    "convolution": lambda: [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8)],
    "batch norm": lambda: [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 8)],
    "batch norm of vectors": lambda: [nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8)],
    "group norm": lambda: [nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(32, 8)],
    "attention": lambda: [nn.Flatten(1, 2), attention(6), nn.Flatten(), nn.Linear(36, 8)],
    "lstm": lambda: [nn.Flatten(1, 2), lstm(6), nn.Flatten(), nn.Linear(24, 8)],
    "normalize": lambda: [nn.Flatten(), nn.Linear(36, 8), Along(F.normalize)],
    "softmax": lambda: [nn.Flatten(), nn.Linear(36, 8), nn.Softmax(dim=1)],
}
DECODERS = {
    "convolution": lambda: [
        nn.Linear(3, 32),
        nn.Unflatten(1, (2, 4, 4)),
        nn.ConvTranspose2d(2, 2, 3),
        nn.Flatten(),
        nn.Linear(72, 8),
    ],
    "batch norm": lambda: [
        nn.Linear(3, 32),
        nn.Unflatten(1, (2, 4, 4)),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(32, 8),
    ],
    "batch norm of vectors": lambda: [nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh()],
    "group norm": lambda: [nn.Linear(3, 8), nn.GroupNorm(2, 8)],
    "attention": lambda: [
        nn.Linear(3, 12),
        nn.Unflatten(1, (2, 6)),
        attention(6),
        nn.Flatten(),
        nn.Linear(12, 8),
    ],
    "lstm": lambda: [nn.Linear(3, 12), nn.Unflatten(1, (2, 6)), lstm(6), nn.Flatten()],
    "normalize": lambda: [nn.Linear(3, 8), Along(F.normalize)],
    "softmax": lambda: [nn.Linear(3, 8), nn.Softmax(dim=1)],
}


def plain(layers, out_shape=(8,)):
    return Plain(*layers(), out_shape=out_shape)


def program_of(encoder=None, decoder=None, context=0):
    mlp = pv.networks.MLP
    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Bernoulli(EVENT, decoder or mlp(3, [8], context=context)),
        posterior=pv.posteriors.DiagonalNormal(3, encoder or mlp(EVENT, [8], context=context)),
        context=pv.networks.OneHot(context) if context else None,
    )


PROGRAMS = [(ENCODERS, name, True) for name in ENCODERS] + [
    (DECODERS, name, False) for name in DECODERS
]


@pytest.mark.parametrize("family, name, is_encoder", PROGRAMS)
def test_a_plain_module_trains_scores_and_generates(family, name, is_encoder, float64):
    network = plain(family[name])
    program = program_of(**{"encoder" if is_encoder else "decoder": network})
    x = torch.bernoulli(torch.rand(24, *EVENT))
    history = pv.fit(program, x, validation=x[:8], epochs=2, batch_size=8, progress=False)
    assert len(history["validation_elbo"]) == 2
    together = pv.elbo(program, x, 7)
    assert together.values.shape == (24,)
    assert pv.log_likelihood(program, x, 7).values.shape == (24,)
    assert pv.generate(program, 5).shape == (5, *EVENT)
    assert pv.reconstruct(program, x).shape == x.shape
    # K draws at once are those of a loop, each datum by itself.
    program.eval()
    z, density = torch.randn(4, 5, 3), program.likelihood
    with torch.no_grad():
        together = density(z).log_prob(x[:5])
        loop = [
            [density(z[k, n : n + 1]).log_prob(x[n : n + 1]) for n in range(5)] for k in range(4)
        ]
    torch.testing.assert_close(together, torch.tensor(loop))


def test_a_plain_module_that_mixes_data_is_told():
    mixes = Plain(nn.Linear(3, 8), nn.Softmax(dim=0), out_shape=(8,))
    with pytest.raises(AssertionError, match="a batch must equal a loop"):
        check_network(mixes, torch.randn(4, 3))


def test_a_plain_sequential_of_torch_is_saved_too(tmp_path):
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Tanh())
    decoder.out_shape = (8,)
    program, x = program_of(decoder=decoder), torch.bernoulli(torch.rand(5, *EVENT))
    expected = pv.elbo(program, x, 3).values
    pv.save(program, tmp_path)
    assert torch.equal(pv.elbo(pv.load(tmp_path), x, 3).values, expected)
    check_program(program, x)


class WithContext(nn.Module):
    """A plain decoder that joins a context along dimension 1."""

    out_shape = (8,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 + 2, 8)

    def forward(self, z, context=None):
        return F.normalize(self.layer(torch.cat([z, context], 1)), dim=1)


def test_a_context_is_flattened_along(float64):
    program = program_of(decoder=WithContext(), context=2)
    x, labels = torch.bernoulli(torch.rand(6, *EVENT)), torch.arange(6) % 2
    together = pv.elbo(program, (x, labels), 5)
    assert together.values.shape == (6,)
    assert pv.generate(program, 4, context=1).shape == (4, *EVENT)
    z, c = torch.randn(4, 1, 3), torch.randn(6, 2)
    rows = torch.stack([program.likelihood(z[k].expand(6, 3), context=c).mean for k in range(4)])
    torch.testing.assert_close(program.likelihood(z, context=c).mean, rows)
    torch.testing.assert_close(
        program.likelihood(z[0].expand(6, 3), context=c.expand(4, 6, 2)).mean,
        rows[0].expand(4, *rows[0].shape),
    )
    check_program(program, x, context=labels)


@pytest.mark.parametrize("name", ["convolution", "lstm", "normalize"])
@pytest.mark.parametrize("inference", ["bottom_up", "top_down"])
def test_levels_of_a_hierarchy_may_be_plain(name, inference):
    q, mlp = pv.posteriors.DiagonalNormal, pv.networks.MLP
    seen = [q(4, mlp(EVENT, [8], context=3)), q(3, plain(ENCODERS[name]))]
    if inference == "bottom_up":
        seen = [q(4, plain(ENCODERS[name])), q(3, mlp(4, [8]))]
    program = pv.HierarchicalVAE(
        priors=[q(4, plain(DECODERS[name])), pv.priors.StandardNormal(3)],
        likelihood=pv.likelihoods.Bernoulli(EVENT, mlp(4, [8])),
        posteriors=seen,
        inference=inference,
    )
    x = torch.bernoulli(torch.rand(6, *EVENT))
    pv.fit(program, x, epochs=1, progress=False)
    assert pv.log_likelihood(program, x, 5).values.shape == (6,)


def test_wrappers_of_plain_modules_serve_too():
    encoder = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 8))
    encoder.out_shape = (8,)
    mlp = pv.networks.MLP
    program = pv.VAE(
        prior=pv.priors.VampPrior(3, components=4),
        likelihood=pv.likelihoods.Missing(
            pv.likelihoods.Bernoulli(EVENT, plain(DECODERS["normalize"]))
        ),
        posterior=pv.posteriors.DiagonalNormal(3, pv.networks.WithMask(EVENT, encoder)),
    )
    x = torch.bernoulli(torch.rand(6, *EVENT))
    x[:, 0, 0] = torch.nan
    data = pv.datasets.Dataset(x, missing=True)
    pv.fit(program, data, epochs=1, progress=False)
    assert pv.log_likelihood(program, data, 5).values.shape == (6,)
    inner = pv.networks.WithoutContext(plain(DECODERS["normalize"]))
    program = program_of(decoder=inner, encoder=mlp(EVENT, [8], context=2), context=2)
    assert pv.elbo(program, (x.nan_to_num(), torch.arange(6) % 2), 4).values.shape == (6,)


def test_a_replaced_network_is_run_flattened_at_once():
    program, x = program_of(), torch.bernoulli(torch.rand(6, *EVENT))
    pv.elbo(program, x, 3)
    program.likelihood.network = plain(DECODERS["convolution"])
    assert pv.elbo(program, x, 3).values.shape == (6,)


def test_scores_of_functions_along_dimension_1_are_the_same_together_and_one_by_one(float64):
    """With one draw for each datum dimension 1 was the features', with K draws the data's."""
    for name in ("normalize", "softmax"):
        program = program_of(decoder=plain(DECODERS[name])).eval()
        x, z = torch.bernoulli(torch.rand(5, *EVENT)), torch.randn(6, 5, 3)
        pv.elbo(program, x, 6)
        with torch.no_grad():
            together = program.likelihood(z).log_prob(x)
            alone = torch.cat(
                [program.likelihood(z[:, n : n + 1]).log_prob(x[n : n + 1]) for n in range(5)], 1
            )
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_our_networks_are_called_as_they_are(float64):
    program, x = program_of(), torch.bernoulli(torch.rand(5, *EVENT))
    seen, forward = [], program.likelihood.network.forward

    def watched(z, context=None):
        seen.append(tuple(z.shape))
        return forward(z, context)

    program.likelihood.network.forward = watched
    pv.elbo(program, x, 6)
    assert any(len(shape) == 3 for shape in seen)
