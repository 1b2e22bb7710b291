"""How data sets show: one line, and a table in a notebook."""

import torch

import pyro_vae as pv
from pyro_vae.datasets.shown import facts_html, plus_minus


def test_a_data_set_is_one_short_line_with_what_decides_its_numbers():
    x, labels = torch.rand(1500, 1, 8, 8), torch.arange(1500) % 10
    data = pv.datasets.Dataset(x, labels, name="digits", binarize="dynamic")
    assert repr(data) == (
        "Dataset(name=digits, split=train, data=1,500, shape=(1, 8, 8), labels=10, "
        "binarize=dynamic)"
    )
    covariates = pv.datasets.Dataset({"a": x, "b": x[:, 0]}, torch.rand(1500, 3))
    assert repr(covariates) == (
        "Dataset(name=data, split=train, data=1,500, shape={'a': (1, 8, 8), 'b': (8, 8)}, "
        "context=(3,))"
    )


def test_a_notebook_shows_a_data_set_with_its_hash_and_without_markup_of_its_name():
    data = pv.datasets.Dataset(torch.rand(3, 2), name="<b>mine</b>")
    page = data._repr_html_()
    assert "&lt;b&gt;mine&lt;/b&gt;" in page and "<b>" not in page
    assert data.sha256[:12] in page


def test_an_unknown_error_is_left_out():
    assert plus_minus(-1.25, float("nan"), 1) == "-1.2"
    assert facts_html("", {}) == "<table></table>"
