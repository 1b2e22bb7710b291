"""Whether validation data are scored by a graph is decided once, and a resumed run knows it."""

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Graphs are captured and interpreted, not compiled."""
    monkeypatch.setattr(Captured, "compile", lambda self, _: setattr(self, "is_compiled", True))


def trained(vae, epochs, **options):
    digits = pv.datasets.load("digits")[0]
    return pv.fit(
        vae, digits[:64], validation=digits[64:164], epochs=epochs, batch_size=32,
        compile="on", progress=False, **options,
    )["validation_elbo"]  # fmt: skip


def is_compiled(folder):
    return pv.checkpoint.read_state(folder, "training")[1]["compiled_validation"]


def test_a_resume_that_finds_nothing_to_do_forgets_nothing(tmp_path):
    trained(small_vae(), 2, out=tmp_path)
    assert is_compiled(tmp_path) is True
    trained(small_vae(), 2, out=tmp_path, resume=True)
    assert is_compiled(tmp_path) is True
    trained(small_vae(), 3, out=tmp_path, resume=True)
    assert is_compiled(tmp_path) is True


def test_an_interrupt_before_the_first_score_forgets_nothing(tmp_path):
    class Interrupted(pv.training.Callback):
        def start(self, training):
            raise KeyboardInterrupt

    trained(small_vae(), 1, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trained(small_vae(), 3, out=tmp_path, resume=True, callbacks=[Interrupted()])
    assert is_compiled(tmp_path) is True


class Keeping(torch.nn.Module):
    """A network that keeps something of its last run."""

    out_shape = (16,)

    def __init__(self, keep):
        super().__init__()
        self.net, self.keep, self.last = pv.networks.MLP((1, 8, 8), [16]), keep, 0

    def forward(self, x):
        h = self.net(x)
        self.last = self.last + 1 if self.keep == "a count" else (h, h.mean())
        return h


@pytest.mark.parametrize("keep, compiled", [("a count", False), ("tensors", True)])
@pytest.mark.filterwarnings("ignore:this program runs eagerly")
def test_what_a_network_keeps_decides_in_the_first_epoch(tmp_path, keep, compiled):
    def vae():
        vae = small_vae()
        vae.posterior.network = Keeping(keep)
        return vae

    torch.manual_seed(0)
    program = vae()
    trained(program, 1, out=tmp_path)
    assert is_compiled(tmp_path) is compiled
    trained(vae(), 3, out=tmp_path, resume=True)
    assert is_compiled(tmp_path) is compiled


def test_a_copy_in_single_precision_is_scored_eagerly(tmp_path):
    trained(small_vae().to(torch.bfloat16), 1, out=tmp_path)
    assert is_compiled(tmp_path) is False
