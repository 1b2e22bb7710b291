"""A moving average of the weights, and steps that are left out for their gradient."""

import copy

import pytest
import torch
from cases import small_vae

import pyro_vae as pv
from pyro_vae.compilation.optimizer import Update
from pyro_vae.evaluation.importance import validation_elbo
from pyro_vae.runtime.settings import Settings
from pyro_vae.training import Callback

OPTIONS = dict(batch_size=50, progress=False, compile="off", learning_rate=1e-2)


def digits(num=150):
    return pv.datasets.load("digits")[0][:num]


def weights(program):
    return {name: value.clone() for name, value in program.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def spied(taken):
    """An optimiser that notes all parameters after each step."""

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            taken.append([p.detach().clone() for p in self.param_groups[0]["params"]])

    return Spy


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.999])
def test_a_program_is_left_with_the_average_of_its_weights(decay):
    taken, seen = [], []

    class Note(Callback):
        def epoch(self, training):
            seen.append([p.detach().clone() for p in training.program.parameters()])

    program = small_vae()
    fit = dict(OPTIONS, optimizer=spied(taken), average=decay, callbacks=[Note()])
    pv.fit(program, digits(), epochs=3, **fit)
    assert len(taken) == 9

    def average(steps):
        powers = [decay ** (len(steps) - 1 - i) for i in range(len(steps))]
        return [
            sum(power * x.double() for power, x in zip(powers, xs)) / sum(powers)
            for xs in zip(*steps)
        ]

    for found, steps in ((list(program.parameters()), taken), (seen[0], taken[:3])):
        for one, expected in zip(found, average(steps)):
            torch.testing.assert_close(one.double(), expected, rtol=2e-5, atol=2e-6)


class Standardised(torch.nn.Module):
    """A network with batch normalisation."""

    out_shape = (16,)

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU()
        )

    def forward(self, x):
        return self.layers(x)


def with_statistics():
    torch.manual_seed(1)
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(6, pv.networks.MLP(2, [16]), scale=0.5),
        pv.posteriors.DiagonalNormal(2, Standardised()),
    )


def linear_data(num=400):
    torch.manual_seed(0)
    return 2 * torch.randn(num, 2) @ torch.randn(2, 6) + 0.3 * torch.randn(num, 6) + 3


def with_own_statistics(program, x):
    """A copy whose running statistics are those of its own weights on the data."""
    found = copy.deepcopy(program)
    layer = found.posterior.network.layers[1]
    layer.reset_running_stats()
    layer.momentum = None
    with torch.no_grad():
        layer.train()(found.posterior.network.layers[0](x))
    return found.eval()


def test_averaged_weights_have_statistics_of_their_own():
    program, x = with_statistics(), linear_data()
    pv.fit(program, x, epochs=30, average=0.99, **(OPTIONS | {"learning_rate": 3e-3}))
    left = pv.elbo(program, x, num_samples=20).mean
    own = pv.elbo(with_own_statistics(program, x), x, num_samples=20).mean
    assert abs(left - own) < 0.1  # 3 with the statistics of the last weights


@pytest.mark.parametrize("compile", ["off", "on"])
def test_statistics_of_the_average_are_resumed_to_the_bit(tmp_path, compile):
    seen, x = [], linear_data(150)
    options = dict(OPTIONS, average=0.7, compile=compile)

    class Note(Callback):
        def epoch(self, training):
            seen.append(weights(training.program))

    whole, again = with_statistics(), with_statistics()
    pv.fit(whole, x, epochs=4, callbacks=[Note()], **options)
    pv.fit(with_statistics(), x, epochs=2, out=tmp_path, **options)
    pv.fit(again, x, epochs=4, out=tmp_path, resume=True, **options)
    assert_same(weights(whole), weights(again))
    assert_same(weights(whole), seen[-1])
    assert_same(weights(whole), weights(pv.load(tmp_path)))


def test_training_goes_on_with_its_own_statistics():
    plain, averaged = with_statistics(), with_statistics()
    taken = {True: [], False: []}

    def note(is_averaged):
        def hook(layer, *_):
            if layer.training and torch.is_grad_enabled():
                taken[is_averaged].append((layer.running_mean.clone(), layer.momentum))

        return hook

    for program, average in ((plain, None), (averaged, 0.9)):
        layer = program.posterior.network.layers[1]
        layer.register_forward_hook(note(average is not None))
        pv.fit(program, linear_data(150), epochs=3, average=average, **OPTIONS)
    assert len(taken[True]) == len(taken[False]) >= 9
    for (one, momentum), (two, _) in zip(taken[True], taken[False]):
        assert torch.equal(one, two) and momentum == 0.1


def test_the_best_epoch_has_its_own_statistics():
    x = linear_data()
    program = with_statistics()
    history = pv.fit(program, x[:300], epochs=4, average=0.9, validation=x[300:], **OPTIONS)
    found = validation_elbo(program, pv.datasets.Dataset(x[300:]), Settings(), looked_at=True)
    assert found == pytest.approx(max(history["validation_elbo"]), rel=1e-6)


def test_a_codebook_is_left_as_its_last_step_left_it():
    def codes(average):
        torch.manual_seed(1)
        program = pv.VAE(
            pv.priors.UniformCodes((4,)),
            pv.likelihoods.Normal(6, pv.networks.MLP(4, [16])),
            pv.posteriors.Codebook((4,), pv.networks.MLP(6, [16]), codes=8),
        )
        pv.fit(program, linear_data(150), epochs=3, average=average, **OPTIONS)
        return program.posterior

    plain, averaged = codes(None), codes(0.9)
    for name in ("codebook", "counts", "sums"):
        assert torch.equal(plain.get_buffer(name), averaged.get_buffer(name)), name


def test_training_itself_is_the_same_with_an_average():
    plain, averaged = [], []
    pv.fit(small_vae(), digits(), epochs=2, optimizer=spied(plain), **OPTIONS)
    pv.fit(small_vae(), digits(), epochs=2, optimizer=spied(averaged), average=0.9, **OPTIONS)
    assert all(torch.equal(a, b) for one, two in zip(plain, averaged) for a, b in zip(one, two))


@pytest.mark.parametrize("validated", [False, True])
def test_a_resumed_run_has_the_same_average(tmp_path, validated):
    data, options = digits(), dict(OPTIONS, average=0.9)
    if validated:
        options["validation"] = data[:40]
    whole, again = small_vae(), small_vae(seed=9)
    full = pv.fit(whole, data, epochs=5, out=tmp_path / "whole", **options)
    pv.fit(small_vae(), data, epochs=2, out=tmp_path / "parts", **options)
    history = pv.fit(again, data, epochs=5, out=tmp_path / "parts", resume=True, **options)
    assert_same(weights(whole), weights(again))
    assert history["validation_elbo"] == full["validation_elbo"]
    assert_same(weights(pv.load(tmp_path / "parts")), weights(whole))


def test_validation_is_of_the_average():
    """The best epoch's score is that of the weights that the program is left with."""
    data, program = digits(), small_vae()
    history = pv.fit(program, data, epochs=3, average=0.9, validation=data[:40], **OPTIONS)
    options = dict(OPTIONS, learning_rate=1e-30, average=None)
    same = pv.fit(program, data, epochs=1, validation=data[:40], **options)
    assert max(history["validation_elbo"]) == pytest.approx(same["validation_elbo"][0], rel=1e-6)


def test_an_interrupt_leaves_the_average_of_the_epoch_before(tmp_path):
    class Interrupt(Callback):
        def epoch(self, training):
            if training.epoch == 3:
                raise KeyboardInterrupt

    data, options = digits(), dict(OPTIONS, average=0.9)
    two, stopped = small_vae(), small_vae()
    pv.fit(two, data, epochs=2, **options)
    with pytest.raises(KeyboardInterrupt):
        pv.fit(stopped, data, epochs=5, out=tmp_path, callbacks=[Interrupt()], **options)
    assert_same(weights(two), weights(stopped))
    assert_same(weights(two), weights(pv.load(tmp_path)))


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD])
def test_steps_with_a_large_gradient_are_left_out(optimizer):
    options = dict(OPTIONS, optimizer=optimizer)
    before = small_vae()
    program = small_vae()
    with pytest.warns(UserWarning, match=r"1e-09 left out all 3 steps .* gradient was [\d.]+"):
        history = pv.fit(program, digits(), epochs=2, skip_norm=1e-9, **options)
    assert_same(weights(before), weights(program))
    assert history.logged["skipped_steps"] == [(1, 3.0), (2, 3.0)]
    all_taken, plain = small_vae(), small_vae()
    history = pv.fit(all_taken, digits(), epochs=2, skip_norm=1e9, **options)
    pv.fit(plain, digits(), epochs=2, **options)
    assert_same(weights(plain), weights(all_taken))
    assert history.logged["skipped_steps"] == [(1, 0.0), (2, 0.0)]


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_is_left_out_leaves_no_trace(fused):
    """No moment and no count of Adam's knows of it, at the first step or later."""

    def after(*norms, skip_norm=None):
        parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        optimizer = torch.optim.Adam([parameter], lr=0.1, fused=fused)
        update = Update(optimizer, [parameter], skip_norm=skip_norm)
        for norm in norms:
            update([torch.tensor([0.6, -0.8]) * norm])
        return parameter, [x for x in optimizer.state[parameter].values()], update.skipped

    found, state, skipped = after(9.0, 1.0, 2.0, 8.0, 0.5, skip_norm=3.0)
    expected, other, _ = after(1.0, 2.0, 0.5)
    assert skipped == 2 and torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, other, strict=True))
