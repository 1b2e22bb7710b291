"""Sweeps of trials that train nothing: what is run, run again, refused, and tabulated."""

import json
import os
import re
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from commands import fails
from sweeps.fake_trials import finish

from pyro_vae.cli import main
from pyro_vae.evaluation.comparison import load_scores, scores_npz
from pyro_vae.sweeps import engines
from pyro_vae.sweeps.engines import Local, Ray, threads_of
from pyro_vae.sweeps.grid import combinations_of, read_axis
from pyro_vae.sweeps.page import files_of
from pyro_vae.sweeps.results import mean_validation, read_results
from pyro_vae.sweeps.search import Search, points_of, read_range
from pyro_vae.sweeps.sweep import Plan, Sweep
from pyro_vae.sweeps.trial import Crashed, Outcome
from pyro_vae.validation import InvalidInput

SETTINGS = list(combinations_of([read_axis("prior=A,B,C"), read_axis("posterior=D,E")]))


@pytest.fixture
def tried(monkeypatch):
    """The trials that ran, none of them in a process of its own."""
    found = []

    def run(trial, threads, given_up):
        found.append(trial.name)
        return finish(trial)

    monkeypatch.setattr(engines, "run_trial", run)
    return found


def sweep_in(folder, settings=SETTINGS, engine=None, seeds=2):
    return Sweep(Plan(folder, seeds, ("--num-samples", "200")), settings, engine or Local())


def table(folder, sweep):
    trials = [outcome.trial for outcome in sweep.outcomes if not outcome.problem]
    results = read_results(trials, "log_likelihood", {}, [])
    return json.loads(files_of(results, "pyro-vae sweep")["table.json"])


def test_a_sweep_that_is_killed_twice_gives_the_table_of_one_that_is_not(tmp_path, tried):
    few = SETTINGS[:3]
    whole = sweep_in(tmp_path / "whole", few)
    assert len(list(whole.run())) == len(set(tried)) == 6
    tried.clear()
    for ended in (2, 3):  # the engine is left while trials are still to come
        assert len(list(islice(sweep_in(tmp_path / "killed", few).run(), ended))) == ended
    again = sweep_in(tmp_path / "killed", few)
    assert len(list(again.run())) == 6
    assert len(tried) <= 6 + 2  # at most the one that was under way is run again
    assert table(tmp_path / "killed", again) == table(tmp_path / "whole", whole)
    tried.clear()
    assert len(list(sweep_in(tmp_path / "killed", few).run())) == 6 and tried == []


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_trial_that_is_killed_is_run_again_and_one_that_is_wrong_is_not(
    tmp_path, monkeypatch, jobs
):
    attempts = []

    def run(trial, threads, given_up):
        attempts.append(trial.name)
        if "posterior=E" in trial.name:
            return Outcome(trial, "latent: got -1")
        if "prior=A" in trial.name or attempts.count(trial.name) < 3:
            raise Crashed("its process ended by SIGKILL")
        return finish(trial)

    monkeypatch.setattr(engines, "run_trial", run)
    sweep = sweep_in(tmp_path, engine=Local(jobs, retries=2), seeds=1)
    list(sweep.run())
    problems = {outcome.trial.setting.name: outcome.problem for outcome in sweep.outcomes}
    good = {name for name, problem in problems.items() if not problem}
    assert good == {"prior=B, posterior=D", "prior=C, posterior=D"}
    assert "SIGKILL" in problems["prior=A, posterior=D"]
    counts = {name: attempts.count(name) for name in attempts}
    assert all(counts[name] == (1 if "=E" in name else 3) for name in counts)


def test_threads_are_divided_among_the_jobs(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads_of(jobs) for jobs in (1, 2, 3, 100)] == [8, 4, 2, 1]


def searched(folder, num, stop=None):
    """The settings of a search whose trials reach what their learning rate says."""
    search = Search(folder / "search.log", SETTINGS[:2], [read_range("lr=1e-4..1e-2:log")], num)
    found = []
    for setting in search.settings_to_try():
        found.append(setting.name)
        if len(found) == stop:
            return found  # asked and not told
        search.tell(setting, -abs(float(dict(setting.values)["lr"]) - 1e-3))
    return found


def test_a_search_that_was_killed_asks_what_it_would_have_asked(tmp_path):
    pytest.importorskip("optuna")
    whole = searched(tmp_path / "whole", 14)
    searched(tmp_path / "killed", 14, stop=4)
    searched(tmp_path / "killed", 14, stop=12)
    assert searched(tmp_path / "killed", 14) == whole and len(whole) == 14
    with pytest.raises(InvalidInput, match="other ranges"):
        Search(tmp_path / "whole" / "search.log", SETTINGS, [read_range("lr=1..2")], 3)


def test_a_search_of_few_values_ends(tmp_path):
    pytest.importorskip("optuna")
    search = Search(tmp_path / "search.log", SETTINGS[:1], [read_range("latent=2..3")], 9)
    found = []
    for setting in search.settings_to_try():
        search.tell(setting, 1.0)
        found.append(setting.name)
    assert sorted(name[-8:] for name in found) == ["latent=2", "latent=3"]


def test_a_search_is_told_the_mean_over_seeds_and_nothing_of_what_failed(tmp_path, monkeypatch):
    pytest.importorskip("optuna")

    def run(trial, threads, given_up):
        if trial.setting.name.endswith("latent=3"):
            return Outcome(trial, "too large")
        return finish(trial, better=float(trial.seed))

    monkeypatch.setattr(engines, "run_trial", run)
    search = Search(tmp_path / "search.log", SETTINGS[:1], [read_range("latent=2..3")], 6)
    list(sweep_in(tmp_path, search).run())
    values = {trial.params["latent"]: trial.value for trial in search.study.trials}
    assert values == {2: pytest.approx(-8.5), 3: None}


def by_seed(trial, values):
    """A finished trial whose scores are about the number that stands for its setting and seed."""
    return finish(trial, better=values[trial.setting.name, trial.seed])


@pytest.mark.parametrize("by_validation", [False, True])
def test_a_setting_that_lost_a_seed_is_not_first_and_is_marked(tmp_path, by_validation):
    """The first seed is a hard one, which A lost: by what is left of it A would be the best."""
    values = {("prior=A", 1): 9.0, ("prior=B", 0): 0.0, ("prior=B", 1): 9.5,
              ("prior=C", 0): -2.0, ("prior=C", 1): 7.0}  # fmt: skip
    plan = Plan(tmp_path, 2, ("--num-samples", "200"))
    settings = list(combinations_of([read_axis("prior=A,B,C")]))
    trials = [plan.trial(setting, seed) for setting in settings for seed in (0, 1)]
    lost, good = trials[0], trials[1:]
    for trial in good:
        by_seed(trial, values)
    failed = [Outcome(lost, "it diverged")]
    results = read_results(good, "log_likelihood", {}, failed, by_validation)
    assert [row.setting.name for row in results.rows] == ["prior=B", "prior=C", "prior=A"]
    assert [row.lost for row in results.rows] == [(), (), (0,)]
    assert all(row.difference.mean < 0 for row in results.rows[1:])
    assert mean_validation([Outcome(lost, "it diverged"), Outcome(good[0])]) is None
    assert mean_validation([Outcome(trial) for trial in good[1:3]]) == pytest.approx(-4.25)
    files = files_of(results, "pyro-vae sweep")
    found = json.loads(files["table.json"])
    assert found["best"] == "prior=B" and found["rows"][2]["lost_seeds"] == [0]
    for name in ("table.md", "report.html"):
        said = files[name].decode()
        assert "1 of 2" in said and "Rows that lost a seed" in said
    few = read_results(good[:1], "log_likelihood", {}, failed, by_validation)
    assert "No row has all of its seeds" in files_of(few, "")["table.md"].decode()


def test_a_score_that_a_trial_lacks_is_told_by_what_all_have(tmp_path):
    plan, (first, other) = Plan(tmp_path, 1, ()), SETTINGS[:2]
    trials = [plan.trial(setting, 0) for setting in (first, other)]
    for trial in trials:
        finish(trial)
    point = load_scores(trials[1].folder / "evaluation.npz")["elbo"]
    (trials[1].folder / "evaluation.npz").write_bytes(scores_npz({"log_joint": point}))
    with pytest.raises(InvalidInput, match="add --score log_joint"):
        read_results(trials[1:], "log_likelihood", {}, [])
    for score in ("log_likelihood", "log_joint"):
        with pytest.raises(InvalidInput, match="into a folder of their own"):
            read_results(trials, score, {}, [])


VALIDATED = ["--vary", "validation=200"]
RECIPE = "latent: 2\nencoder: {class_path: MLP, init_args: {hidden: [4]}}\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_the_command_lists_what_makes_no_sense_and_writes_the_table(
    tmp_path, recipe, tried, capsys
):
    out = tmp_path / "sweep"
    argv = ["sweep", str(recipe), "--vary", "prior=StandardNormal,Laplace", "--seeds", "2",
            "--vary", "posterior=DiagonalNormal,VonMisesFisher", "--vary", "encoder.hidden=[5, 4]",
            "--out", str(out)]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr()
    assert "2 of 4 combinations are refused" in said.err and "[4/4]" in said.err
    found = json.loads((out / "table.json").read_text())
    assert {row["name"] for row in found["rows"]} == {
        f"prior={prior}, posterior=DiagonalNormal" for prior in ("StandardNormal", "Laplace")
    }
    assert ["the area of a sphere" in row["reason"] for row in found["refused"]] == [True, True]
    assert (found["rows"][0]["difference"], found["num_data"]) == (None, 30)
    rows = re.findall(r"^\| prior=.*\|$", (out / "table.md").read_text(), re.M)
    assert len(rows) == 2
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 1 and "http" not in re.sub("http-equiv", "", page)
    tried.clear()
    assert main(argv) == 0 and tried == []
    assert main([*argv[:-2], "--num-samples", "7", "--out", str(out)]) == 0 and len(tried) == 4
    recipe.write_text(RECIPE + "epochs: 5\n")
    assert "a sweep of another recipe" in fails(capsys, *argv)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to vary"),
        (["--vary", "latent=2,3", "--vary", "latent=4,5"], "latent twice"),
        (["--vary", "learning-rate=1e-3,0.001"], "one training"),
        (["--vary", "latent=2,3", "--search", "seed=0..9"], "--seeds 3"),
        (["--vary", "latent=0,-1"], "no combination that makes sense"),
        (
            ["--vary", "binarize=none,dynamic", "--vary", "likelihood=ContinuousBernoulli"],
            "test data",
        ),
        (["--vary", "likelihood=Bernoulli,Normal", "--vary", "binarize=fixed"], "densities"),
        (["--search", "learning-rate=1e-4..1e-2:log"], "without validation data"),
        (["--search", "nope=1..2", *VALIDATED], "search: got no.*nope=1: --nope: got an unknown"),
        (["--search", "latent=1.5..3", *VALIDATED], "latent=1.5: .*of integers where both ends"),
        (["--search", "latent=1.0..3.0", *VALIDATED], r"latent=1\.764: "),
        (["--search", "latent=-3..3", *VALIDATED], "latent=-3: "),
        (["--search", "latent=2..3", "--vary", "epochs=0", *VALIDATED], "epochs=?0?"),
        (
            ["--search", "missing-fraction=0.1..0.4", *VALIDATED],
            "search: got test data that differ",
        ),
        (["--vary", "latent=2,3", "--engine", "spark"], "did you mean|choose one of"),
        (["--vary", "latent=2,3", "--jobs", "0"], "jobs"),
        (["--vary", "latent=2,3", "--score", "f1"], "score"),
        (
            ["--vary", "prior=StandardNormal,Flat --posterior Delta"],
            "prior=StandardNormal and prior=Flat --posterior Delta.*with --score log_joint",
        ),
        (
            ["--vary", "prior=StandardNormal,Flat", "--vary", "posterior=Delta"],
            "log_likelihood' of guides that are a point.*add --score log_joint",
        ),
        (["--vary", "latent=2,3", "--score", "log_joint"], "add --score log_likelihood"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(tmp_path, recipe, tried, capsys, options, said):
    line = fails(capsys, "sweep", recipe, *options, "--out", tmp_path / "sweep")
    assert re.search(said, line) and tried == []


@pytest.mark.parametrize("found", ["link", "pipe", "folder", "[" * 9, '{"op_code": 99}\n', "\0\n"])
def test_the_log_of_a_search_is_a_file_of_its_own(tmp_path, found):
    pytest.importorskip("optuna")
    path, mine = tmp_path / "search.log", tmp_path / "mine"
    mine.write_text("mine")
    if found == "link":
        path.symlink_to(mine)
    elif found == "pipe":
        os.mkfifo(path)
    elif found == "folder":
        path.mkdir()
    else:
        path.write_text(found)
    with pytest.raises(InvalidInput, match=r"search\.log"):
        Search(path, SETTINGS[:1], [read_range("learning-rate=1e-4..1e-2")], 2)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "given, environment, asked",
    [(None, None, "local"), (None, "first:6379", "first:6379"), ("here:1", "first:6379", "here:1")],
)
def test_without_a_name_no_cluster_of_the_past_is_asked_for(monkeypatch, given, environment, asked):
    addresses = []
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda address, **_: addresses.append(address),
        shutdown=lambda: None,
    )
    monkeypatch.setattr(engines, "optional", lambda *_: fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with Ray(address=given).connected():
        pass
    assert addresses == [asked]


def test_a_recipe_that_is_refused_does_not_keep_the_folder(tmp_path, recipe, tried, capsys):
    argv = ["sweep", recipe, "--vary", "epochs=1,2", "--out", tmp_path / "sweep"]
    recipe.write_text(RECIPE + "prior: Nope\n")
    assert "Nope" in fails(capsys, *argv)
    recipe.write_text(RECIPE)
    assert main(list(map(str, argv))) == 0 and len(tried) == 2
    assert (tmp_path / "sweep" / "recipe.yaml").read_text() == RECIPE
    recipe.write_text(RECIPE + "prior: Laplace\n")
    assert "a sweep of another recipe" in fails(capsys, *argv)


def test_a_setting_in_which_a_range_has_no_meaning_is_not_searched(tmp_path, recipe, tried, capsys):
    pytest.importorskip("optuna")
    argv = ["sweep", str(recipe), "--vary", "prior=StandardNormal,VampPrior", *VALIDATED,
            "--search", "prior.components=2..9", "--trials", "3",
            "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(argv) == 0
    assert "1 of 2 combinations are refused" in capsys.readouterr().err
    assert tried and all("prior=VampPrior" in name for name in tried)
    (refused,) = json.loads((tmp_path / "out" / "table.json").read_text())["refused"]
    assert refused["options"]["prior"] == "StandardNormal"
    assert "components" in refused["reason"]


def test_the_points_of_a_search_are_both_ends_and_one_between():
    ranges = [read_range("latent=2..9"), read_range("lr=1e-4..1e-2:log"), read_range("x=1..3:log")]
    points = [dict(point.values) for point in points_of(SETTINGS[0], ranges)]
    assert [point["latent"] for point in points] == ["2", "9", "4"]
    assert [float(point["lr"]) for point in points] == pytest.approx([1e-4, 1e-2, 5.807e-4])
    assert [point["x"] for point in points] == ["1", "3", "1"]
    assert len(points_of(SETTINGS[0], [read_range("latent=1..2")])) == 2
    assert points_of(SETTINGS[0], []) == SETTINGS[:1]
