"""Trackers get every number once, whatever library stands behind them."""

import importlib
import sys
import types

import pytest
import torch
from commands import FAST, fails
from common import small_vae

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.training import LogLikelihood, MLflow, TensorBoard, WeightsAndBiases
from pyro_vae.training.trackers import TRACKERS
from pyro_vae.validation import InvalidInput

X = (torch.arange(40 * 64) % 3 == 0).float().reshape(40, 1, 8, 8)


def fit(epochs, folder, *callbacks, **options):
    score = LogLikelihood(X[:5], num_samples=5)
    return pv.fit(small_vae(), X, epochs=epochs, batch_size=16, compile="off", progress=False,
                  callbacks=[score, *callbacks], out=folder, **options)  # fmt: skip


def test_tensorboard_has_the_curves_of_a_run_and_of_its_continuation(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(2, tmp_path, TensorBoard())
    history = fit(4, tmp_path, TensorBoard(), resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name, expected in (
        ("objective", history["objective"]),
        ("log_likelihood", [value for _, value in history.logged["log_likelihood"]]),
    ):
        assert [event.step for event in events.Scalars(name)] == history["step"]
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx(expected, rel=1e-6)


def test_tensorboard_needs_a_folder(tmp_path):
    with pytest.raises(InvalidInput, match=r"^callbacks: got TensorBoard\(\) without a folder"):
        fit(1, None, TensorBoard())
    fit(1, None, TensorBoard(tmp_path / "events"))
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_names_its_extra(name, monkeypatch, tmp_path, capsys):
    for module in ("tensorboard.compat.proto.event_pb2", "mlflow.tracking", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInput, match=rf'pip install "pyro-vae\[{name}\]"'):
        TRACKERS[name]()
    said = fails(capsys, "train", "--out", tmp_path / "run", "--log", name, *FAST)
    assert f"pyro-vae[{name}]" in said and not (tmp_path / "run").exists()


def test_the_extras_are_those_of_the_package():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = text.split("[project.optional-dependencies]")[1].split("[dependency-groups]")[0]
    assert all(f"\n{name} = [" in extras for name in TRACKERS)


def test_the_command_logs_to_tensorboard_when_told_to(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "plain"), *FAST]) == 0
    assert not (tmp_path / "plain" / "tensorboard").exists()
    assert main(["train", "--out", str(tmp_path / "run"), "--log", "tensorboard", *FAST]) == 0
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    said = fails(capsys, "train", "--log", "tensorbord", *FAST)
    assert "did you mean 'tensorboard'?" in said


class FakeMlflow(types.SimpleNamespace):
    """A client that keeps what it is told, in a dictionary that outlives it."""

    def __init__(self, store):
        super().__init__(store=store)

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id="0") if "experiment" in self.store else None

    def create_experiment(self, name):
        self.store["experiment"] = name
        return "0"

    def create_run(self, experiment, tags, run_name):
        self.store |= {"tags": tags, "name": run_name, "metrics": [], "params": {}}
        return self._run

    @property
    def _run(self):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

    def search_runs(self, experiments, query, max_results):
        assert query.count("'") == 2  # those of the query itself
        return [self._run] if f"'{self.store['tags']['folder_id']}'" in query else []

    def log_param(self, run, name, value):
        self.store["params"][name] = value

    def log_metric(self, run, name, value, step):
        self.store["metrics"].append((name, value, step))

    def set_terminated(self, run, status):
        self.store["status"] = status


def test_mlflow_gets_every_number_once(tmp_path, monkeypatch):
    store: dict = {}
    library = types.ModuleType("mlflow.tracking")
    library.MlflowClient = lambda tracking_uri: FakeMlflow(store)
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", library)
    fit(2, tmp_path / "sister's run", MLflow())
    history = fit(3, tmp_path / "sister's run", MLflow(), resume=True)
    steps = [(value, step) for name, value, step in store["metrics"] if name == "objective"]
    assert steps == list(zip(history["objective"], history["step"]))
    assert store["status"] == "FINISHED" and store["name"] == "sister's run"
    assert store["params"]["batch_size"] == "16" and "program" not in store["params"]


def test_weights_and_biases_gets_every_number_once(tmp_path, monkeypatch):
    opened, logged = [], []

    class Run:
        def log(self, scalars, step):
            logged.append((step, scalars))

        def finish(self, exit_code):
            opened.append(exit_code)

    library = types.ModuleType("wandb")
    library.Settings = dict
    library.init = lambda **options: opened.append(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", library)
    fit(2, tmp_path / "run", WeightsAndBiases(mode="offline"))
    history = fit(3, tmp_path / "run", WeightsAndBiases(mode="offline"), resume=True)
    first, ended, second, _ = opened
    assert first["id"] == second["id"] and first["mode"] == "offline" and ended == 0
    assert first["dir"] == str(tmp_path / "run")
    curve = [(step, found["objective"]) for step, found in logged if "objective" in found]
    assert curve == list(zip(history["step"], history["objective"]))


def installed(name):
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
    )


@installed("mlflow")
@installed("sqlalchemy")
@pytest.mark.filterwarnings("default")
def test_mlflow_itself_in_a_local_file(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    fit(2, tmp_path / "run", MLflow(uri))
    history = fit(3, tmp_path / "run", MLflow(uri), resume=True)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("pyro_vae").experiment_id])
    found = client.get_metric_history(run.info.run_id, "objective")
    assert [(each.value, each.step) for each in found] == list(
        zip(history["objective"], history["step"])
    )


@installed("wandb")
@pytest.mark.filterwarnings("default")
def test_weights_and_biases_itself_without_a_network(tmp_path):
    fit(2, tmp_path / "run", WeightsAndBiases(mode="offline"))
    (found,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert next(iter(found.glob("*.wandb"))).stat().st_size > 0
