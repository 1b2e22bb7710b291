"""Each kind of data becomes the right numbers, or is refused by one line."""

import logging
import os
import sys

import kinds
import numpy as np
import pytest
import torch

from pyro_vae.datasets import files
from pyro_vae.datasets.dataset import Dataset, as_dataset
from pyro_vae.datasets.named import load, load_whole
from pyro_vae.validation import InvalidInput

OF_SPLITS = ("images in train, val, test", "images, splits in a folder")


def named(given):
    return [pytest.param(kind, id=f"{kind.what} {kind.suffix or ''}") for kind in given]


def in_one_order(x, y):
    """Rows sorted, for those held out by chance are anywhere."""
    rows = np.asarray(x, dtype=float).reshape(len(x), -1)
    order = np.lexsort(np.nan_to_num(rows, nan=1e9).T[::-1])
    if isinstance(y, dict):
        y = {name: np.asarray(each)[order] for name, each in y.items()}
    elif y is not None:
        y = np.asarray(y)[order]
    return np.asarray(x, dtype=float)[order], y


def check(kind, read, caplog):
    with caplog.at_level(logging.WARNING):
        if kind.is_refused:
            with pytest.raises(InvalidInput) as refusal:
                read()
            assert kind.x in str(refusal.value) and "\n" not in str(refusal.value)
            assert ": got " in str(refusal.value) and len(str(refusal.value)) < 600
            return
        x, y, data = read()
    expected_x, expected_y = in_one_order(kind.x, kind.y)
    x, y = in_one_order(x, y)
    np.testing.assert_allclose(x, expected_x, rtol=0, atol=1e-7)
    assert x.shape == expected_x.shape and data.missing == kind.missing
    if kind.y is None:
        assert y is None
    else:
        np.testing.assert_equal(y, expected_y)
    # What is left out or filled in is said, and known to the data.
    assert kind.says in caplog.text and any(kind.says in note for note in (*data.notes, ""))
    assert bool(caplog.records) == bool(data.notes)


@pytest.mark.parametrize("kind", named(kinds.OBJECTS))
def test_an_object_becomes_its_numbers(kind, caplog):
    pytest.importorskip(kind.needs)

    def read():
        data = as_dataset(kind.make())
        return data.x, data.context, data

    check(kind, read, caplog)


@pytest.mark.parametrize("kind", named(kinds.FILES))
def test_a_file_becomes_its_numbers(kind, tmp_path, caplog):
    pytest.importorskip(kind.needs)
    path = tmp_path / f"mine{kind.suffix.strip('/')}"
    kind.make(path)

    def read():
        if np.ndim(kind.x) and len(kind.x) == 1:  # too few to hold some out
            whole = load_whole(str(path), **kind.options)
            return whole.x, whole.context, whole
        train, test = load(str(path), **kind.options)
        if kind.what in OF_SPLITS:  # parts of their own
            return train.x, train.context, train
        y = None if train.context is None else torch.cat([train.context, test.context])
        return torch.cat([train.x, test.x]), y, train

    check(kind, read, caplog)


def test_the_table_of_kinds_is_that_of_the_documentation():
    assert len(kinds.OBJECTS) + len(kinds.FILES) >= 40
    assert kinds.table() == kinds.DOCS.read_text(), "run python tests/kinds.py"


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    for name, library, extra in (
        ("a.parquet", "pyarrow.parquet", "tables"),
        ("a.h5ad", "anndata", "single-cell"),
        ("a.zarr", "zarr", "single-cell"),
    ):
        (tmp_path / name).write_bytes(b"something")
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(InvalidInput, match=rf'pip install "pyro-vae\[{extra}\]"'):
            load(str(tmp_path / name))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, whole = tmp_path / "mine.npy", files.read_npy
    np.save(path, kinds.X)

    def written_meanwhile(*args, **options):
        found = whole(*args, **options)
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(files, "read_npy", written_meanwhile)
    with pytest.raises(InvalidInput, match="changed while it was read"):
        load(str(path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(InvalidInput, match="no plain file"):
        load(str(tmp_path / "a.npy"))


def test_a_table_of_20000_columns(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 20_000)).round(3)
    names = ",".join(f"g{i}" for i in range(20_000))
    np.savetxt(tmp_path / "wide.csv", x, delimiter=",", header=names, comments="", fmt="%.3f")
    train, test = load(str(tmp_path / "wide.csv"))
    assert train.event_shape == (20_000,) and train.columns.names[-1] == "g19999"
    whole, _ = in_one_order(torch.cat([train.x, test.x]), None)
    np.testing.assert_array_equal(whole, in_one_order(x, None)[0])


def test_part_of_a_data_set_of_ours_keeps_its_policy():
    data = Dataset(torch.rand(6, 2), torch.arange(6), binarize="dynamic")
    part = as_dataset(torch.utils.data.Subset(data, [4, 1]))
    assert part.binarize == "dynamic" and torch.equal(part.x, data.x[[4, 1]])
    assert part.context.tolist() == [4, 1]


def test_a_loader_leaves_the_callers_random_numbers_alone():
    loader = torch.utils.data.DataLoader(torch.arange(10.0)[:, None], shuffle=True)
    state = torch.random.get_rng_state()
    assert sorted(as_dataset(loader).x.flatten().tolist()) == list(range(10))
    assert torch.equal(state, torch.random.get_rng_state())


def test_splits_share_the_numbers_of_their_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x=kinds.X, y=list("bcbc"), x_test=kinds.X[:2], y_test=list("ac"))
    train, test = load(str(tmp_path / "a.npz"))
    assert train.context.tolist() == [1, 2, 1, 2] and test.context.tolist() == [0, 2]
    assert train.context_columns[0].categories == ("a", "b", "c")


def test_validation_folders_are_held_out(tmp_path):
    kind = next(kind for kind in kinds.FILES if "train, val, test" in kind.what)
    kind.make(tmp_path / "images")
    train, test = load(str(tmp_path / "images"))
    rest, held = train.hold_out(2)
    assert rest is train and (len(train), len(test), len(held)) == (2, 2, 2)
    np.testing.assert_allclose(held.x, kind.x, atol=1e-7)
