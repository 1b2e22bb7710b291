"""A program takes no more memory or time, while it is built, than its weights account for."""

import pytest

from pyro_vae import checkpoint

MLP = {"class": "pyro_vae.networks.MLP", "args": {"in_shape": [2]}}


def of(path, **args):
    return {"class": f"pyro_vae.{path}", "args": args}


BOMBS = [
    of("networks.MLP", in_shape=[10**9]),
    of("networks.MLP", in_shape=[2], hidden=[10**6, 10**6]),
    of("networks.OneHot", num_classes=10**5),
    of("priors.StandardNormal", latent=[10**5] * 50),
    of("priors.Flow", latent=[3], transforms=10**6),
    of("likelihoods.Mixed", event_shape=[10**9], network=MLP),
    of("posteriors.FullRankNormal", latent=[10**6], network=MLP),
    {"class": "torch.nn.LSTM", "args": {"input_size": 1, "hidden_size": 1, "num_layers": 10**6}},
]


@pytest.mark.parametrize("description", BOMBS)
def test_sizes_that_the_weights_do_not_have_are_refused(description):
    with pytest.raises(
        checkpoint.CheckpointError, match=r"cannot be built \((Memory|Runtime)Error"
    ):
        checkpoint.build(description)
