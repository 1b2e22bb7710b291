"""Large grey images in memory, whose draw is made when it is looked at and never kept."""

import numpy as np
import pytest
import torch
from conftest import small_vae

import pyro_vae as pv
from pyro_vae.datasets import form
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.on_disk import OnDisk
from pyro_vae.runtime.checks import check_data


@pytest.fixture
def both(monkeypatch):
    """The same data, made before and after they count as large."""
    levels = np.random.default_rng(0).integers(0, 256, (5000, 1, 8, 8), dtype=np.uint8)
    small = Dataset(levels.copy(), binarize="dynamic", scale=255)
    small.x, small.sha256, small[3:4500:2].sha256  # kept
    monkeypatch.setattr(form, "LARGE", 1000)
    return small, Dataset(levels, binarize="dynamic", scale=255)


def test_their_hash_and_draw_are_those_of_small_data(both):
    small, large = both
    assert isinstance(large.looked_at, OnDisk) and not large.is_on_disk
    assert large.sha256 == small.sha256
    assert torch.equal(large.looked_at[100:4700:7], small.x[100:4700:7])
    part, other = large[3:4500:2], small[3:4500:2]
    assert part.sha256 == other.sha256 and torch.equal(part.looked_at[:], other.x)
    held, again = large.hold_out(100, 1), small.hold_out(100, 1)
    assert [each.sha256 for each in held] == [each.sha256 for each in again]
    assert torch.equal(large.to("cpu", torch.float32).x, small.x)


def test_checks_and_training_keep_no_draw(both):
    small, large = both
    fitted = []
    for data in (small, large):
        program = small_vae()
        check_data(program, data)
        pv.fit(program, data, epochs=1, batch_size=500, progress=False, seed=3, compile="off")
        fitted.append(program.state_dict())
    assert "x" not in vars(large)
    assert all(torch.equal(value, fitted[1][name]) for name, value in fitted[0].items())


def test_an_embedding_of_too_few_rows_is_refused_without_a_draw(both):
    _, large = both
    vae = small_vae()
    vae.posterior.add_module("embedding", torch.nn.Embedding(3, 2))
    check_data(vae, large)  # which looks at the extremes
    assert "x" not in vars(large)
