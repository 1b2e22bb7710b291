"""The commands on data that stay on disk: the run says so, and its scores are those in memory."""

import json

import numpy as np
import pytest
from commands import FAST, fails

from pyro_vae.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_run_on_disk(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    np.savez(
        tmp_path / "mine.npz", x=x, y=np.arange(300) % 2, x_test=x[:40] + 1, y_test=[0, 1] * 20
    )
    run, data = tmp_path / "run", str(tmp_path / "mine.npz")
    options = ["--data", data, "--likelihood", "Normal", "--context", "labels", "--out", str(run)]
    assert main(["train", *options, *FAST, "--epochs", "1", "--in-memory", "off"]) == 0
    assert "in_memory: 'off'" in (run / "recipe.yaml").read_text()
    scored = []
    for more in ([], ["--data", str(tmp_path / "same.npz")]):  # the other is read into memory
        (tmp_path / "same.npz").write_bytes((tmp_path / "mine.npz").read_bytes())
        assert main(["evaluate", str(run), "--num-samples", "20", *more]) == 0
        scored.append(json.loads((run / "evaluation.json").read_text()))
    assert scored[0]["elbo"] == scored[1]["elbo"]
    assert scored[0]["data"]["sha256"] == scored[1]["data"]["sha256"]
    capsys.readouterr()
    line = fails(capsys, "train", "--data", "digits", "--in-memory", "off", *FAST)
    assert "in_memory: got 'off' for digits" in line and "(--in-memory auto)" in line
