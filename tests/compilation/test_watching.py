"""An eager run does without Dynamo, whose import takes a second or more."""

import subprocess
import sys

import torch

from pyro_vae.compilation.cost import OperationCounter
from pyro_vae.compilation.optimizer import Update

RUN = """
import sys, torch
import pyro_vae as pv

net = pv.networks.MLP
vae = pv.VAE(
    pv.priors.StandardNormal(2),
    pv.likelihoods.Bernoulli(4, net(2, [3])),
    pv.posteriors.DiagonalNormal(2, net(4, [3])),
)
x = torch.rand(64, 4).round()
pv.fit(vae, x, epochs=30, batch_size=4, compile="off", progress=False)
pv.log_likelihood(vae, x, 10)
print("torch._dynamo" in sys.modules)
"""


def test_an_eager_run_does_not_import_dynamo():
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_first_step_makes_the_state_that_adam_makes():
    made = []
    for step in ("ours", "torch"):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(3, 2).T), torch.nn.Parameter(torch.randn(4))]
        optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
        gradients = [torch.randn_like(p) for p in parameters]
        if step == "ours":
            Update(optimizer, parameters)(gradients)
        else:
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient
            optimizer.step()
        made.append((optimizer.state_dict()["state"], parameters))
    (ours, mine), (theirs, its) = made
    for slot in ("step", "exp_avg", "exp_avg_sq"):
        for i in range(2):
            torch.testing.assert_close(ours[i][slot], theirs[i][slot], rtol=0, atol=0)
            assert ours[i][slot].stride() == theirs[i][slot].stride()
    torch.testing.assert_close(mine, its, rtol=0, atol=0)


def test_a_mode_that_watches_sees_every_operation():
    with OperationCounter() as count:
        torch.ones(2) @ torch.ones(2)
    assert count.operations == 3
