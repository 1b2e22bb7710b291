"""Sweeps that are killed, and a Ray cluster that loses a worker: the table is that of a quiet one.

The long form: ``pytest -n 0 -s -m torture tests/torture/test_sweeps.py``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pyro_vae.evaluation.comparison import load_scores

pytestmark = pytest.mark.torture

RECIPE = """latent: 2
epochs: 4
encoder: {class_path: MLP, init_args: {hidden: [16]}}
decoder: {class_path: MLP, init_args: {hidden: [16]}}
"""
GRID = ["--vary", "prior=StandardNormal,Laplace,VampPrior --prior.components 5",
        "--vary", "posterior=DiagonalNormal,FullRankNormal", "--seeds", "2",
        "--num-samples", "50", "--limit", "100"]  # fmt: skip
HERE = {**os.environ, "OMP_NUM_THREADS": "1"}


def sweep(folder: Path, *more: str) -> subprocess.Popen[str]:
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "pyro_vae", "sweep", str(recipe), *GRID, *more]
    return subprocess.Popen(
        [*command, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=HERE,
    )


def ended(engine: subprocess.Popen[str]) -> None:
    said, _ = engine.communicate()
    assert engine.returncode == 0, said


def table(folder: Path) -> dict:
    """The table without what a clock says."""
    found = json.loads((folder / "table.json").read_text())
    for row in found["rows"]:
        for each in (row, *row["seeds"]):
            del each["seconds"]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    ended(sweep(folder))
    assert len(table(folder)["rows"]) == 6
    return folder


def wait_for_trials(folder: Path, number: int) -> None:
    while len(list(folder.glob("trials/*"))) < number:
        time.sleep(0.2)


def test_a_sweep_that_is_killed_twice_gives_the_table_of_one_that_is_not(whole, tmp_path):
    random.seed(0)
    for trials in (3, 8):
        engine = sweep(tmp_path / "sweep")
        wait_for_trials(tmp_path / "sweep", trials)
        time.sleep(random.uniform(0, 8))
        engine.send_signal(signal.SIGKILL)
        engine.communicate()
    ended(sweep(tmp_path / "sweep"))
    assert table(tmp_path / "sweep") == table(whole)


def test_a_cluster_of_two_workers_that_loses_one_gives_the_same_table(whole, tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        engine = sweep(tmp_path / "sweep", "--engine", "ray", "--address", cluster.address)
        wait_for_trials(tmp_path / "sweep", 4)
        cluster.remove_node(lost, allow_graceful=False)
        ended(engine)
    finally:
        cluster.shutdown()
    assert table(tmp_path / "sweep") == table(whole)


@pytest.mark.parametrize("how", [["--processes", "2"], ["--processes", "2", "--engine", "ray"]])
def test_an_evaluation_of_two_processes_is_that_of_one_to_the_bit(whole, how):
    folder = next(path for path in sorted(whole.glob("trials/*")))
    command = [sys.executable, "-m", "pyro_vae", "evaluate", str(folder), "--num-samples", "200"]
    subprocess.run(command, check=True, env=HERE)
    alone = load_scores(folder / "evaluation.npz")
    subprocess.run([*command, *how], check=True, env=HERE)
    together = load_scores(folder / "evaluation.npz")
    for name, score in alone.items():
        for part, values in score.per_datum.items():
            assert np.array_equal(values, together[name].per_datum[part], equal_nan=True)


def test_a_race_stops_the_trials_that_fall_behind(tmp_path):
    pytest.importorskip("ray.tune")
    folder, recipe = tmp_path / "sweep", tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "validation: 200\n")
    race = ["--vary", "learning-rate=1e-2,1e-3,1e-4,1e-5", "--vary", "epochs=900", *GRID[-4:]]
    race += ["--engine", "ray", "--early-stopping", "asha", "--grace", "3", "--out", str(folder)]
    command = [sys.executable, "-m", "pyro_vae", "sweep", str(recipe), *race]
    subprocess.run(command, check=True, env=HERE)
    found = table(folder)
    stopped = {each["options"]["learning-rate"]: each["reason"] for each in found["failed"]}
    assert found["rows"][0]["name"] == "learning-rate=1e-2" and "1e-5" in stopped
    for rate, reason in stopped.items():
        metrics = (folder / "trials" / f"learning-rate={rate},seed=0" / "metrics.csv").read_text()
        reached = metrics.splitlines()[-1].partition(",")[0]
        assert reason.startswith(f"stopped by ASHA after epoch {reached}, ")
    assert len(found["rows"]) + len(stopped) == 4
