"""Ends of intervals: NaN where there is none, and no codes for data that are drawn."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")

MLP, NUM = pv.networks.MLP, 12
CODES = torch.arange(NUM * 3).reshape(NUM, 3) % 4 - 1


def program(context=0, interval=True):
    torch.manual_seed(0)
    module = pv.networks.OneHot(context) if context else None
    likelihood = pv.likelihoods.Censored(
        3, MLP(2, [8], context=context), of="Weibull", interval=interval
    )
    posterior = pv.posteriors.DiagonalNormal(2, MLP(3, [8], context=context))
    return pv.VAE(pv.priors.StandardNormal(2), likelihood, posterior, module).double()


def data(ends=torch.nan):
    x = torch.rand(NUM, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    return x, {"censored": CODES, "upper": torch.where(CODES == 2, x + 1, ends)}


def test_an_end_that_is_not_used_may_be_anything():
    found = [pv.elbo(program(), data(ends)).values for ends in (torch.nan, 0.0, 99.0)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    trained = [program(), program()]
    for each, ends in zip(trained, (torch.nan, 1.0)):
        pv.fit(each, data(ends), epochs=2, progress=False)
    for one, other in zip(*(each.parameters() for each in trained)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("of_datum", [False, True])
@pytest.mark.parametrize("wrong", [torch.nan, 0.1])
def test_an_end_that_is_used_is_a_number_above_x(wrong, of_datum):
    x, known = data()
    known["upper"][:, 2][CODES[:, 2] == 2] = wrong
    if of_datum:
        x, known = x[:, 2:], {name: value[:, 2] for name, value in known.items()}
        one = pv.likelihoods.Censored(1, MLP(2, [8]), interval=True)
        posterior = pv.posteriors.DiagonalNormal(2, MLP(1, [8]))
        vae = pv.VAE(pv.priors.StandardNormal(2), one, posterior).double()
    else:
        vae = program()
    first = int((CODES[:, 2] == 2).nonzero()[0])
    message = rf"context\['upper'\]: got {wrong} in datum {first}, expected .* censored is 2"
    for function in (pv.elbo, lambda *args: pv.fit(*args, progress=False)):
        with pytest.raises(InvalidInput, match=message):
            function(vae, (x, known))


def test_no_codes_are_needed_to_draw():
    vae, (x, known) = program(), data()
    codes = {"censored": torch.zeros(NUM), "upper": torch.ones(NUM)}
    torch.testing.assert_close(pv.generate(vae, NUM), pv.generate(vae, NUM, context=codes))
    z = pv.encode(vae, (x, known))["z"]
    torch.testing.assert_close(pv.decode(vae, z), pv.decode(vae, z, known))
    one = pv.diagnostics.calibrate(vae, 4, 9, progress=False)
    assert len(one.ranks) == 4
    with pytest.raises(InvalidInput, match=r"context\['censored'\]: got none"):
        pv.elbo(vae, (x, {"upper": x + 1}))


def test_a_label_goes_beside_the_codes():
    vae = program(context=2, interval=False)
    labels = torch.arange(NUM) % 2
    both = {"censored": torch.zeros(NUM), "labels": labels}
    expected = pv.generate(vae, NUM, context=both)
    torch.testing.assert_close(pv.generate(vae, NUM, context=labels), expected)
    torch.testing.assert_close(pv.generate(vae, NUM, context={"labels": labels}), expected)
    with pytest.raises(InvalidInput, match="context: got none, expected one label"):
        pv.generate(vae, NUM)
