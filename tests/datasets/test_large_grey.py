"""Large grey images in memory, whose draw is made when it is looked at and never kept."""

import numpy as np
import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.datasets import form, forms
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.on_disk import OnDisk
from pyro_vae.runtime import extremes
from pyro_vae.runtime.checks import check_data
from pyro_vae.validation import InvalidInput


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


@pytest.mark.parametrize("binarize", ["dynamic", "fixed"])
def test_bytes_that_are_no_grey_values_are_refused_as_bytes(monkeypatch, binarize):
    """As numbers they would take four times the memory, before the refusal."""
    monkeypatch.setattr(form, "scaled", None)
    levels = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    with pytest.raises(InvalidInput, match=r"values from 0 to 255 .*--scale 255"):
        Dataset(levels, binarize=binarize)


def test_grey_values_are_checked_in_blocks(monkeypatch):
    monkeypatch.setattr(forms, "BLOCK", 2)
    x = torch.rand(5, 1, 8, 8)
    x[3, 0, 0, 0], x[4] = 1.5, torch.nan
    with pytest.raises(InvalidInput, match=r"to 1\.5 to binarise"):
        forms.check_grey(x, missing=True)
    x[3, 0, 0, 0] = 0.5
    forms.check_grey(x, missing=True)


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


def test_the_least_and_the_largest_of_whole_numbers_are_found_in_blocks(monkeypatch):
    monkeypatch.setattr(extremes, "BLOCK", 2)
    for values, found in (
        (torch.tensor([3, 1, 0, 7, 2]), [3, 2]),
        (torch.tensor([[3.0, torch.nan], [torch.nan] * 2, [0.0, 1.0], [9.0, 2.0]]), [3, 2]),
        (torch.full((4, 2), torch.nan), []),
        (torch.tensor([1.0, 2.0, 3.5]), []),
    ):
        assert list(extremes._extremes(values)) == found
