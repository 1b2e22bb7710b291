"""What commands measure depends neither on the order of rows nor on how other data are written."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from commands import FAST

from pyro_vae.cli import main

CLASSES = np.arange(300) * 3 // 300
SETTINGS = ["--likelihood", "Normal", "--likelihood.scale", "1.0", "--learning_rate", "3e-3"]


def clusters(labels=CLASSES):
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]])
    return centers[CLASSES] + rng.normal(size=(300, 2))


def trained(folder, name, *options):
    run = str(folder / f"run_{name}")
    data = str(folder / name)
    assert main(["train", "--data", data, "--out", run, *options, *FAST]) == 0
    return run


@pytest.mark.filterwarnings("ignore::pyro_vae.diagnostics.inference_data.UnreliableDraws")
@pytest.mark.parametrize("name", ["table.csv", "bytes.npz"])
def test_a_runs_own_data_are_not_outside_of_them(tmp_path, capsys, name):
    if name == "table.csv":
        rng = np.random.default_rng(1)
        z = rng.normal(size=200)
        frame = pd.DataFrame(
            {
                "wait": 70 + 14 * z,
                "erupts": 3 + z + 0.3 * rng.normal(size=200),
                "isl": rng.choice(["b", "a"], 200),
            }
        )
        frame.to_csv(tmp_path / name, index=False)
        frame[["isl", "erupts", "wait"]].to_csv(tmp_path / "other.csv", index=False)
        options = ["--standardize", "true", "--context", "isl"]
        other = str(tmp_path / "other.csv")
    else:
        x = (np.random.default_rng(1).random((200, 4)) * 255).round().astype(np.uint8)
        for each in (name, "other.npz"):
            np.savez(tmp_path / each, x=x)
        options = ["--scale", "255", "--likelihood", "Normal"]
        other = str(tmp_path / "other.npz")
    run = trained(tmp_path, name, *options)
    few = ["--num_samples", "20", "--reference", "0"]
    assert main(["inspect", run, "--outside", other, *few]) == 0
    said = capsys.readouterr().out
    areas = re.findall(r"AUROC by [^:]*: ([0-9.]+)", said)
    assert areas and all(float(area) == 0.5 for area in areas)


def test_fidelity_knows_no_order(tmp_path):
    x, order = clusters(), np.random.default_rng(2).permutation(300)
    np.savez(tmp_path / "sorted.npz", x=x.astype("f4"))
    np.savez(tmp_path / "mixed.npz", x=x[order].astype("f4"))
    found = {}
    for name in ("sorted.npz", "mixed.npz"):
        run = trained(tmp_path, name, *SETTINGS)
        for split in ("test", "train"):
            options = ["--points", "10", "--neighbours", "3", "--split", split, "--limit", "130"]
            assert main(["fidelity", run, *options]) == 0
            with open(f"{run}/fidelity.json") as file:
                found[name, split] = json.load(file)["numbers"]
    for split in ("test", "train"):
        for measure in ("precision", "recall", "density", "coverage"):
            key = f"{measure}, training data in their place"
            both = [found[name, split][key] for name in ("sorted.npz", "mixed.npz")]
            error = np.hypot(*(max(each["se"], 0.05) for each in both))
            assert abs(both[0]["value"] - both[1]["value"]) < 4 * error, (split, measure)
            assert both[0]["value"] > 0.4


@pytest.mark.filterwarnings("ignore::pyro_vae.diagnostics.inference_data.UnreliableDraws")
def test_probes_read_off_known_labels_alone(tmp_path, capsys):
    labels = np.where(np.random.default_rng(3).random(300) < 0.6, -1, CLASSES)
    np.savez(tmp_path / "some.npz", x=clusters().astype("f4"), y=labels)
    run = trained(tmp_path, "some.npz", *SETTINGS, "--epochs", "30")
    assert main(["inspect", run, "--num_samples", "20", "--reference", "0"]) == 0
    said = capsys.readouterr().out
    shares = re.findall(r"linear probe: ([0-9.]+)% .* of (\d+)", said)
    ((share, count),) = shares
    assert float(share) == 100.0 and 0 < int(count) < 30


def test_a_samples_context_is_in_the_units_of_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    t = 20 + 5 * rng.normal(size=200)
    noise = rng.uniform(1.0, 3.0, 200)
    frame = pd.DataFrame({"t": t, "y": 3 * t + noise * rng.normal(size=200), "noise": noise})
    frame.to_csv(tmp_path / "cov.csv", index=False)
    options = ["--context", "t", "--standardize", "true", "--columns.y", "real"]
    options += ["--likelihood", "NormalWithNoise", "--known.scale", "noise"]
    run = trained(tmp_path, "cov.csv", *options)
    assert main(["sample", run, "--num", "3", "--context", "t=26,noise=2", "--out", "a.npz"]) == 0
    made = np.load("a.npz")
    np.testing.assert_allclose(made["context"], np.full((3, 1), 26.0), rtol=1e-5)
    np.testing.assert_allclose(made["scale"], 2.0, rtol=1e-5)
    plain = frame.drop(columns="noise")
    plain.to_csv(tmp_path / "plain.csv", index=False)
    run = trained(tmp_path, "plain.csv", *options[:6])
    for number, given in enumerate(("26", "26.0", "t=26")):
        out = f"{number}.npz"
        assert main(["sample", run, "--num", "3", "--context", given, "--out", out]) == 0
        np.testing.assert_allclose(np.load(out)["context"], np.full((3, 1), 26.0), rtol=1e-5)
        np.testing.assert_allclose(np.load(out)["x"], np.load("0.npz")["x"])
