"""Tables: kinds of columns, contexts, units, and names that come out again."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.dataset import as_dataset
from pyro_vae.datasets.named import load, load_whole
from pyro_vae.validation import InvalidInput


def frame(num=60, seed=0):
    """A column of each kind."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "temperature": rng.normal(0, 4, num),
            "mass": np.exp(rng.normal(8, 0.3, num)),
            "eggs": rng.poisson(3, num),
            "year": rng.integers(2007, 2010, num),
            "ringed": rng.random(num) < 0.5,
            "sex": rng.choice(["f", "m"], num),
            "island": rng.choice(["Biscoe", "Dream", "Torgersen"], num),
            "size": pd.Categorical(
                rng.choice(["small", "medium", "large"], num),
                ["small", "medium", "large"],
                ordered=True,
            ),
        }
    )


KINDS = {
    "temperature": "real",
    "mass": "positive",
    "eggs": "count",
    "year": "positive",
    "ringed": "binary",
    "sex": "binary",
    "island": "category",
    "size": "ordinal",
}


def test_each_column_has_its_kind_and_its_categories():
    table = frame()
    data = as_dataset(table)
    assert {column.name: column.kind for column in data.columns} == KINDS
    assert data.columns[7].categories == ("small", "medium", "large")  # in their order
    assert data.columns[6].categories == ("Biscoe", "Dream", "Torgersen")
    assert data.x[:, 6].tolist() == [
        ("Biscoe", "Dream", "Torgersen").index(name) for name in table["island"]
    ]
    np.testing.assert_array_equal(data.x[:, 1], table["mass"])


def test_a_table_comes_out_as_it_went_in():
    table = frame()
    back = as_dataset(table).frame()
    for name in ("temperature", "mass", "eggs", "sex", "island"):
        assert back[name].tolist() == table[name].tolist()
    assert back["size"].tolist() == table["size"].astype(str).tolist()
    assert back["ringed"].tolist() == table["ringed"].astype(str).tolist()


def test_a_kind_or_a_likelihood_is_said_by_name():
    data, _ = load(frame(), columns={"eggs": "category", "mass": "StudentT", "year": "drop"})
    columns = {column.name: column for column in data.columns}
    assert columns["eggs"].kind == "category" and columns["eggs"].categories[:2] == ("0", "1")
    assert columns["mass"].likelihood == "StudentT" and "year" not in columns
    groups = {group["class_path"]: group["columns"] for group in data.columns.groups()}
    assert groups["StudentT"] == [data.columns.names.index("mass")]
    with pytest.raises(InvalidInput, match="did you mean 'category'"):
        load(frame(), columns={"eggs": "categry"})
    with pytest.raises(InvalidInput, match="did you mean 'eggs'"):
        load(frame(), columns={"egg": "category"})


def test_a_target_makes_labels_and_context_columns_covariates():
    table = frame()
    train, _ = load(table, target="island")
    assert train.num_classes == 3 and "island" not in train.columns.names
    assert train.context_columns[0].categories == ("Biscoe", "Dream", "Torgersen")
    train, test = load(table, context=["island", "temperature"])
    both = torch.cat([train.context, test.context])
    assert both.shape == (60, 2) and set(both[:, 0].tolist()) == {0.0, 1.0, 2.0}
    assert sorted(both[:, 1].tolist()) == sorted(table["temperature"])
    labels, _ = load(table, target="year")  # whole numbers are labels, by their names
    assert labels.context_columns[0].categories == ("2007", "2008", "2009")


@pytest.mark.parametrize("kind", ["table", "cells"])
def test_a_target_beside_other_columns_of_the_context_is_refused(kind):
    data, others = frame(), ["temperature", "island"]
    if kind == "cells":
        anndata = pytest.importorskip("anndata")
        obs = data[["year", *others]].set_axis(data.index.astype(str))
        data = anndata.AnnData(np.ones((60, 3)), obs=obs)
    with pytest.raises(InvalidInput, match=r"and year as the target.*year,temperature,island"):
        load(data, target="year", context=others)
    train, _ = load(data, target="year", context=["year"])
    assert list(train.context_columns.names) == ["year"]


def test_a_target_beside_the_context_is_refused_where_x_is_a_column_of_pictures():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Array2D((2, 3), "uint8"), "year": datasets.Value("int64"),
         "age": datasets.Value("float32")}
    )  # fmt: skip
    columns = {"image": np.zeros((4, 2, 3), np.uint8), "year": [0, 1, 0, 1], "age": [1.0] * 4}
    data = datasets.Dataset.from_dict(columns, features=features)
    with pytest.raises(InvalidInput, match=r"and year as the target.*year,age"):
        load(data, key="image", target="year", context=["age"])


def test_a_missing_label_is_unknown_and_a_missing_covariate_is_refused():
    table = frame()
    table.loc[3, "island"] = None
    whole = load_whole(table, target="island")
    assert whole.context[3] == -1 and (whole.context >= 0).sum() == 59
    with pytest.raises(InvalidInput, match="context island: got a missing entry in row 3"):
        load_whole(table, context=["island", "eggs"])


def test_standardising_is_by_the_training_rows_and_is_undone(float64):
    table = frame()
    table.loc[5, "temperature"] = None
    train, test = load(table, context=["eggs", "year"], standardize=True)
    real, positive = train.x[:, 0], train.x[:, 1]
    known = real[~torch.isnan(real)]
    torch.testing.assert_close(known.mean(), torch.zeros(()), atol=1e-12, rtol=0)
    torch.testing.assert_close(known.std(correction=0), torch.ones(()))
    torch.testing.assert_close(positive.mean(), torch.ones(()))
    assert (positive > 0).all()
    unit, columns = load(table, context=["eggs", "year"])[1], train.columns
    assert test.columns is columns  # the test rows have the units of the training rows
    torch.testing.assert_close(columns.restore(test.x), unit.x, equal_nan=True)
    torch.testing.assert_close(
        columns.log_scale, np.log([columns[0].scale, columns[1].scale]).sum().item()
    )
    again = load(table, like=columns, context_like=train.context_columns)[1]
    assert torch.equal(again.x.nan_to_num(), test.x.nan_to_num())
    assert torch.equal(again.context, test.context)


def test_standardising_is_refused_for_images_and_leaves_constants_alone():
    with pytest.raises(InvalidInput, match="to be binarised"):
        load("digits", standardize=True)
    constant = np.column_stack([np.full(30, 7.0), np.arange(30.0)])
    train, _ = load(constant, standardize=True)
    assert (train.x[:, 0] == 0).all() and train.x.isfinite().all()


def test_a_whole_table_is_standardised_by_all_its_rows(float64):
    table = frame()
    whole = load_whole(table, standardize=True)
    torch.testing.assert_close(whole.x[:, 0].mean(), torch.zeros(()), atol=1e-12, rtol=0)
    torch.testing.assert_close(whole.x[:, 0].std(correction=0), torch.ones(()))
    np.testing.assert_allclose(whole.frame()["temperature"], table["temperature"])
    assert any("standardised by all rows" in note for note in whole.notes)


def test_all_splits_as_one_keep_contexts_by_name():
    part = (np.eye(2), {"sex": ["m", "f"], "size": [1.0, 2.0]})
    whole = load_whole({"train": part, "test": part})
    assert whole.context["sex"].tolist() == [1, 0, 1, 0]
    assert whole.context["size"].tolist() == [1, 2, 1, 2]


def test_categories_of_other_rows_are_numbered_as_those_of_the_first(tmp_path):
    train, _ = load(frame(), target="sex")
    few = pd.DataFrame(frame()[:4])
    few["island"] = ["Torgersen", None, "Torgersen", "Torgersen"]
    few["extra"] = 1
    data = load_whole(few, like=train.columns, context_like=train.context_columns)
    place = train.columns.names.index("island")
    assert data.x[:, place].nan_to_num(nan=-1).tolist() == [2, -1, 2, 2]
    few["island"] = "Elsewhere"
    with pytest.raises(InvalidInput, match="one of Biscoe, Dream, Torgersen"):
        load_whole(few, like=train.columns)
    with pytest.raises(InvalidInput, match="expected a column of the table"):
        load_whole(few.drop(columns="mass"), like=train.columns)


@pytest.mark.parametrize(
    "entries, message",
    [
        ([f"id-{i}" for i in range(200)], "200 different texts"),
        (["1.5", "2", "unknown", "4"], "numbers beside texts"),
        ([None, None], "a column without an entry"),
        ([1 + 2j, 3 + 0j], "complex"),
    ],
)
def test_columns_that_cannot_be_meant_as_they_are(entries, message):
    with pytest.raises(InvalidInput, match=message) as refusal:
        as_dataset(pd.DataFrame({"a": entries, "b": range(len(entries))}))
    assert "columns a" in str(refusal.value)


def test_columns_survive_json():
    columns = load(frame(), standardize=True)[0].columns
    assert Columns.from_json(json.loads(json.dumps(columns.to_json()))) == columns


def test_names_become_numbers_and_numbers_names():
    columns = Columns((Column("island", "category", ("a", "b")), Column("t", "real", (), 10, 2)))
    assert columns.numbers({"t": "14", "island": "b"}) == [1.0, 2.0]
    with pytest.raises(InvalidInput, match="expected one of a, b"):
        columns.numbers({"t": "14", "island": "c"})
    with pytest.raises(InvalidInput, match="a value for each of island, t"):
        columns.numbers({"t": "14"})


def test_a_line_of_separators_takes_no_time(tmp_path):
    """A pattern that tries each of them anew would take an hour."""
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n" + "\t" * 200_000 + "x\n")
    with pytest.raises(InvalidInput):
        load(str(tmp_path / "x.tsv"))


def test_a_name_of_thousands_of_letters_is_shortened_wherever_it_is_told(caplog):
    long = "a" * 20_000
    frame = pd.DataFrame({long: [1.5, 2.5, None], "kind": ["x", "y", "x"], "b": [1, 2, 3]})
    train, _ = load(frame, columns={"b": "drop"})
    assert len(caplog.text) < 1000 and "aaa... real, kind binary" in caplog.text
    assert "columns={'kind': 'drop'}" in caplog.text  # an example that can be typed
    assert all(len(note) < 300 for note in train.notes)
    for columns in ({long: "count"}, {long[1:]: "real"}):
        with pytest.raises(InvalidInput, match=r"columns.*a\.\.\.") as told:
            load(frame, columns=columns)
        assert len(str(told.value)) < 8100


DAYS = np.array(["2020-01-31", "2020-02-01", "2020-02-02"], dtype="datetime64[ns]")


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        [1.0, 2.0, 3.5],
        [1, 2, 10],
        [True, False],
        ["a", "b", "None"],
        DAYS,
        DAYS + np.array([0, 0, 3_600_000_000_000], dtype="timedelta64[ns]"),
        [datetime.date(2020, 1, 31), datetime.date(2020, 2, 1)],
    ],
    ids=lambda names: str(names[-1]),
)
def test_categories_of_any_kind_are_read_back(tmp_path, names, ordered):
    """From the table itself, from what a data set gives back, from other types and from a .csv."""
    codes = np.resize(np.arange(len(names)), 24)
    codes[5] = -1
    kind = pd.CategoricalDtype(names, ordered=ordered)
    table = pd.DataFrame({"c": pd.Categorical.from_codes(codes, dtype=kind), "v": np.arange(24.0)})
    whole = load_whole(table)
    table.to_csv(tmp_path / "t.csv", index=False, na_rep="NA")
    others = [table, whole.frame(), table.assign(c=table["c"].astype(object))]
    if "None" not in names:  # which a .csv does not tell from nothing
        others.append(str(tmp_path / "t.csv"))
    for other in others:
        again = load_whole(other, like=whole.columns)
        assert again.x[:, 0].nan_to_num(nan=-1).tolist() == codes.tolist()
    labels = load((table[["v"]], table["c"].fillna(names[0])))[0]
    assert labels.label_names == whole.columns[0].categories


def test_two_categories_of_one_name_are_refused():
    mixed = pd.Categorical([1, "1", 2] * 8)
    with pytest.raises(InvalidInput, match="columns c: got two categories named '1'"):
        load_whole(pd.DataFrame({"c": mixed, "v": np.arange(24.0)}))
