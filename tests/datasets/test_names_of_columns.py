"""What the columns of a table are called, and what is said of them by name."""

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from pyro_vae.validation import InvalidInput


def table(**columns):
    random = np.random.default_rng(0)
    numbers = {name: random.normal(size=40) for name in ("a", "b")}
    return pd.DataFrame(numbers | columns)


def test_a_text_is_the_name_of_one_column_of_the_context():
    frame = table(ab=np.arange(40) % 7 / 3)
    data = pv.datasets.load_whole(frame, context="ab")
    assert data.context_columns.names == ["ab"] and data.columns.names == ["a", "b"]
    train, _ = pv.datasets.load(frame, context="ab")
    assert train.context_columns.names == ["ab"]


def test_several_sites_are_named_in_a_list_or_with_commas(tmp_path):
    path = tmp_path / "pairs.npz"
    np.savez(path, image=np.random.rand(9, 4), text=np.random.rand(9, 2), other=np.random.rand(9))
    listed, written = (
        pv.datasets.load_whole(path, key=k) for k in (["image", "text"], "image,text")
    )
    assert listed.parts.keys() == written.parts.keys() and listed.sha256 == written.sha256


@pytest.mark.parametrize("values", [["A"] * 40, pd.Categorical(["A"] * 40)])
def test_a_column_of_one_category_is_refused_by_its_name(values):
    with pytest.raises(InvalidInput, match=r"columns site: got one category, 'A'.*site': 'drop'"):
        pv.datasets.load_whole(table(site=values)).columns.groups()
    kept = pv.datasets.load_whole(table(site=values), columns={"site": "drop"})
    assert kept.columns.names == ["a", "b"]


def test_a_table_of_names_alone_is_the_same_data_when_it_is_read_again():
    kinds = np.random.default_rng(0).choice(["a", "b", "c"], (40, 2))
    frame = pd.DataFrame(kinds, columns=["one", "other"])
    train, test = pv.datasets.load(frame)
    again = pv.datasets.load(frame, like=train.columns)
    assert [each.sha256 for each in again] == [train.sha256, test.sha256]
    assert again[0].tensor.dtype == train.tensor.dtype


@pytest.mark.parametrize("read", [pv.datasets.load, pv.datasets.load_whole])
@pytest.mark.parametrize("wrong", [{"binarize": "no"}, {"seed": -1}, {"missing_fraction": 2}])
def test_wrong_changes_are_refused_by_name(read, wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        read("digits", **wrong)
