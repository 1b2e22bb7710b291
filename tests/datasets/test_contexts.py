"""Contexts, genes and labels have the same numbers in all splits and in other data."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.dataset import Dataset, as_dataset
from pyro_vae.datasets.named import load, load_whole
from pyro_vae.validation import InvalidInput

X = np.arange(8.0).reshape(4, 2)


def cells(genes, batches):
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"batch": batches}, index=[f"c{i}" for i in range(len(batches))])
    x = np.array([[1.0, 2.0, 3.0]] * len(batches))[:, : len(genes)]
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=genes))


def test_labels_by_name_have_one_number_in_all_splits():
    parts = {"train": (X, {"sex": list("mfmf")}), "test": (X[:2], {"sex": list("mm")})}
    train, test = load(parts)
    assert train.context["sex"].tolist() == [1, 0, 1, 0]
    assert test.context["sex"].tolist() == [1, 1]
    assert any("sex: f, m are 0, 1" in note for note in train.notes)


def test_cells_of_other_splits_are_matched_by_gene_and_batch():
    parts = {"train": cells(["a", "b"], ["q", "r"]), "test": cells(["b", "a"], ["r"])}
    train, test = load(parts, target="batch")
    assert train.columns.names == ["a", "b"]
    assert train.x.tolist() == [[1, 2], [1, 2]] and test.x.tolist() == [[2, 1]]
    assert train.context.tolist() == [0, 1] and test.context.tolist() == [1]
    assert any("genes are matched by name" in note for note in train.notes)


def test_cells_are_read_as_those_of_a_run():
    train, _ = load(cells(["a", "b"], list("qrqrqr")), target="batch")
    known = dict(like=train.columns, context_like=train.context_columns)
    other = load_whole(cells(["b", "c", "a"], ["r", "r"]), **known)
    assert other.x.tolist() == [[3, 1], [3, 1]] and other.context.tolist() == [1, 1]
    with pytest.raises(InvalidInput, match="without the gene 'b'"):
        load_whole(cells(["a", "c"], ["r"]), **known)
    with pytest.raises(InvalidInput, match="expected one of q, r, as in the training data"):
        load_whole(cells(["a", "b"], ["s"]), **known)


def test_labels_of_other_data_have_the_numbers_of_the_run(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "all" / label).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / "all" / label / "a.png")
    (tmp_path / "few" / "dog").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "few" / "dog" / "a.png")
    whole = load_whole(tmp_path / "all")
    few = load_whole(tmp_path / "few", context_like=whole.context_columns)
    assert whole.context.tolist() == [0, 1] and few.context.tolist() == [1]
    (tmp_path / "few" / "cow").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "few" / "cow" / "a.png")
    with pytest.raises(InvalidInput, match="got 'cow', expected one of cat, dog"):
        load_whole(tmp_path / "few", context_like=whole.context_columns)
    arrays = (X, ["dog", "dog", "dog", None])
    assert load_whole(arrays, context_like=whole.context_columns).context.tolist() == [1, 1, 1, -1]


def test_truth_values_are_labels_with_names():
    data = Dataset(X, X[:, 0] > 2)
    assert data.context.tolist() == [0, 0, 1, 1] and data.label_names == ("False", "True")
    by_name = as_dataset((X, {"censored": X[:, 0] > 2}))
    assert by_name.context["censored"].tolist() == [0, 0, 1, 1]
    assert by_name.notes == ("censored: False, True are 0, 1, ...",)


def test_a_series_keeps_its_name_and_its_order():
    labels = pd.Series(pd.Categorical(["lo", "hi", "lo", "hi"], ["lo", "mid", "hi"]), name="size")
    data = as_dataset((X, labels))
    assert data.context.tolist() == [0, 2, 0, 2]
    assert data.context_columns == Columns((Column("size", "category", ("lo", "mid", "hi")),))
    gaps = as_dataset((X, pd.Series([1, None, 2, 0], dtype="Int64")))
    assert gaps.context.tolist() == [1, -1, 2, 0] and gaps.context.dtype == torch.long


def test_labels_that_are_whole_numbers_are_in_their_order():
    names = [str(i) for i in range(12)]
    assert Dataset(np.zeros((12, 1)), names).context.tolist() == list(range(12))
