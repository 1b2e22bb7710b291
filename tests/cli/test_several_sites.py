"""Data of several observed sites: every command takes their runs, and says what it leaves out."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import fails

import pyro_vae as pv
from pyro_vae.cli import main

OWN = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self, event_shape, latent: int = 2):
        super().__init__()
        self.event_shape, self.latent = event_shape, latent
        self.encoder, self.decoder = nn.Linear(16, latent), nn.Linear(latent, 16)
        self.words = nn.Linear(latent, 6)

    def model(self, x):
        with pyro.plate("pairs", len(x["image"])):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            logits = self.decoder(z).reshape(*z.shape[:-1], 1, 4, 4)
            pyro.sample("image", dist.Bernoulli(logits=logits).to_event(3), obs=x["image"])
            pyro.sample("text", dist.Normal(self.words(z), 1.0).to_event(1), obs=x["text"])

    def guide(self, x):
        with pyro.plate("pairs", len(x["image"])):
            loc = self.encoder(x["image"].flatten(1)) + x["text"].mean(1, keepdim=True)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
"""

RECIPE = """
data: pairs.npz
key: image,text
missing: true
program: MultimodalVAE
posterior: ProductOfExperts
latent: 3
encoder: {class_path: MLP, init_args: {hidden: [5]}}
sites:
  image: {likelihood: Bernoulli}
  text:
    likelihood: {class_path: Normal, init_args: {scale: 0.5}}
    encoder: {class_path: MLP, init_args: {hidden: [7]}}
    decoder: {class_path: MLP, init_args: {hidden: [9]}}
"""

FEW = ["--num-samples", "5", "--limit", "6"]
ONE = ["--epochs", "1", "--compile", "off", *FEW]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "ownpairs2.py").write_text(OWN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownpairs2", raising=False)
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    image = (draws.random((60, 1, 4, 4)) < 0.5).astype("float32")
    text = draws.normal(size=(60, 6)).astype("float32")
    np.savez(tmp_path / "whole.npz", image=image, text=text, y=np.arange(60) % 3)
    image[::4], text[1::4] = np.nan, np.nan  # half of the pairs are incomplete
    np.savez(tmp_path / "pairs.npz", image=image, text=text, other=np.ones(3))
    return tmp_path


def commands(capsys, run, data, *trust):
    """Evaluates, samples from, inspects and reports a run; returns what was printed."""
    capsys.readouterr()
    assert main(["evaluate", run, *FEW, *trust]) == 0
    scores = json.loads(Path(f"{run}/evaluation.json").read_text())
    program = pv.load(run, trust=trust[1:])
    test = pv.datasets.load(data, key="image,text", missing="pairs" in data)[1]
    assert scores["bits_per_dim"] is None and scores["data"]["sha256"] == test[:6].sha256
    expected = pv.evaluation.evaluate(program, test[:6], 5, seed=0)["elbo"].mean
    assert scores["elbo"]["mean"] == pytest.approx(expected, rel=1e-6)
    assert main(["sample", run, "--num", "3", "--out", "new.npz", *trust]) == 0
    new = np.load("new.npz")
    assert new["image"].shape == (3, 1, 4, 4) and new["text"].shape == (3, 6)
    assert "expected one of .png, .npz" in fails(capsys, "sample", run, "--out", "a.wav", *trust)
    few = ["--num-samples", "4", "--limit", "6", "--reference", "0"]
    assert main(["inspect", run, *few, "--outside", data, *trust]) == 0
    assert main(["report", run, *trust]) == 0
    assert main(["compare", run, run]) == 0
    said = capsys.readouterr().out
    few = ["--limit", "6"]
    if data == "whole.npz":
        for command, options in {
            "anneal": ["--num-chains", "2", "--num-temperatures", "3", "--simulated", "3"],
            "decompose": ["--num-samples", "3"],
            "calibrate": ["--simulated", "5", "--num-samples", "4"],
            "gaps": ["--num-samples", "5", "--steps", "2"],
        }.items():
            assert main([command, run, *few, *options, *trust]) == 0
        points = ["--points", "3", "--neighbours", "1"]
        assert main(["fidelity", run, *few, *points, *trust]) == 0
        found = json.loads(Path(f"{run}/fidelity.json").read_text())["numbers"]
        assert {name.split(":")[0] for name in found} == {"image", "text"}
    else:
        line = fails(capsys, "fidelity", run, *few, *trust)
        assert "got data with missing entries" in line
    assert "Left out: figures of the decoder" in said
    assert "a run on several sites, image, text" in fails(capsys, "impute", run, *trust)
    return said


def test_every_command_takes_a_program_of_ones_own(folder, capsys, quick_chains):
    own = ["--data", "whole.npz", "--key", "image,text", "--program", "ownpairs2.Two"]
    assert main(["train", *own, "--latent", "3", "--out", "run", *ONE]) == 0
    again = ["--trust", "ownpairs2", *ONE, "--epochs", "2"]
    assert main(["train", "--resume", "--out", "run", *again]) == 0
    commands(capsys, "run", "whole.npz", "--trust", "ownpairs2")


def test_a_recipe_of_a_multimodal_program_has_parts_of_each_site(folder, capsys, caplog):
    assert main(["train", "recipe.yaml", "--out", "run", *ONE]) == 0
    assert "arrays other are left out" in caplog.text
    program = pv.load("run")
    assert isinstance(program, pv.MultimodalVAE)
    assert program.event_shape == {"image": (1, 4, 4), "text": (6,)}
    shapes = {name: tuple(p.shape) for name, p in program.named_parameters()}
    widths = {
        "likelihoods.text": 9, "posterior.experts.image": 5, "posterior.experts.text": 7,
    }  # fmt: skip
    for name, width in widths.items():
        assert any(name in key and width in shape for key, shape in shapes.items()), name
    commands(capsys, "run", "pairs.npz")
    page = Path("run/report.html").read_text()
    assert "p(x | z), image: Bernoulli" in page and "p(x | z), text: Normal" in page


PAIRS = ["--data", "pairs.npz", "--missing", "true", "--key", "image,text"]
MULTI = ["--program", "MultimodalVAE", "--posterior", "ProductOfExperts"]


@pytest.mark.parametrize(
    "options, words",
    [
        (PAIRS, "pass --program MultimodalVAE --posterior ProductOfExperts"),
        ([*PAIRS, "--program", "MultimodalVAE"], "posterior: got DiagonalNormal for MultimodalVAE"),
        ([*MULTI, "--data", "pairs.npz", "--key", "text", "--missing", "true"],
         "key: got data of a single site .* --key image,text"),
        ([*PAIRS, *MULTI, "--sites", "{txt: {likelihood: Normal}}"], "did you mean 'text'"),
        ([*PAIRS, *MULTI, "--sites", "{text: {likelihood: Norml}}"], "likelihood: got 'Norml'"),
        ([*PAIRS, "--program", "ownpairs2.Two", "--sites", "{text: {likelihood: Normal}}"],
         "leave --sites out"),
        ([*PAIRS[:-1], "image,txt"], "did you mean 'text'"),
        ([*PAIRS, *MULTI, "--scale", "255"], "scale: got 255.0 for several sites, image, text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_line(folder, capsys, options, words):
    line = fails(capsys, "train", *options, "--out", "run", *ONE)
    assert re.search(words, line), line


def test_a_recipe_names_nothing_in_its_sites_that_is_not_trusted(folder, capsys):
    text = RECIPE.replace("Bernoulli", "os.system")
    (folder / "recipe.yaml").write_text(text)
    line = fails(capsys, "train", "recipe.yaml", "--out", "run", *ONE)
    assert "'os.system', which is neither" in line


def test_arrays_of_several_sites_are_split_alike_or_refused(folder):
    draws = np.random.default_rng(1)
    splits = {
        f"{n}{s}": draws.normal(size=(k, 2)) for n in "ab" for s, k in (("", 5), ("_test", 3))
    }
    np.savez("splits.npz", **splits)
    train, test = pv.datasets.load("splits.npz", key="a, b")
    np.testing.assert_allclose(train.x["b"], splits["b"])
    np.testing.assert_allclose(test.x["a"], splits["a_test"])
    del splits["b_test"]
    np.savez("splits.npz", **splits)
    with pytest.raises(pv.validation.InvalidInput, match="write a_test, b_test, or none"):
        pv.datasets.load("splits.npz", key="a,b")
    gaps = pv.datasets.load("whole.npz", key="image,text", missing_fraction=0.3)[0]
    assert 0.2 < gaps.x["text"].isnan().float().mean() < 0.4 and gaps.missing


def test_all_data_of_several_sites_are_their_parts_in_order(folder, capsys):
    draws = np.random.default_rng(1)
    splits = {
        f"{name}{split}": draws.normal(size=(num, size)).astype("float32")
        for name, size in (("image", 2), ("text", 3))
        for split, num in (("", 20), ("_test", 6))
    }
    splits["text_test"][0] = np.nan
    labels = {"y": np.arange(20) % 3, "y_test": np.arange(6) % 3}
    np.savez("splits.npz", **splits, **labels)
    how = {"key": "image,text", "missing": True}
    whole = pv.datasets.load_whole("splits.npz", **how)
    for name in ("image", "text"):
        expected = np.concatenate([splits[name], splits[f"{name}_test"]])
        np.testing.assert_array_equal(whole.x[name], expected)
    assert whole.context.tolist() == [*labels["y"], *labels["y_test"]]
    assert len(whole) == 26 and whole.missing and whole.split == "all"
    test = pv.datasets.load("splits.npz", **how)[1]
    assert whole[20:].sha256 == test.sha256
    recipe = RECIPE.replace("pairs.npz", "splits.npz").replace("Bernoulli", "Normal")
    (folder / "recipe.yaml").write_text(recipe)
    assert main(["train", "recipe.yaml", "--out", "run", *ONE]) == 0
    assert main(["evaluate", "run", "--split", "all", "--num-samples", "5"]) == 0
    scores = json.loads(Path("run/evaluation.json").read_text())
    assert scores["num_data"] == 26 and scores["data"]["sha256"] == whole.sha256
