"""check RUN: verdicts as JSON and as a page that needs no other file."""

import json
import re
import time

import numpy as np
import pytest
from commands import FAST, fails

from pyro_vae.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks") / "run"
    assert main(["train", "--out", str(folder), *FAST]) == 0
    return folder


def test_check_writes_verdicts_and_a_page(run, capsys, monkeypatch):
    monkeypatch.setattr(time, "monotonic", time.process_time)  # whatever else the machine does
    assert main(["check", str(run), "--minutes", "0.05", "--limit", "60"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((run / "check.json").read_text())
    assert found["data"]["name"] == "digits" and found["num_data"] == 60
    by_name = {each["name"]: each for each in found["checks"]}
    assert by_name["test data among the training data"]["passed"] is True
    identity = by_name["binarisation and identity of the data"]
    assert "not the data of the run" not in identity["means"]
    assert by_name["slope of the last epochs"]["passed"] is None
    for each in found["checks"]:
        assert each["passed"] in (True, False, None) and each["means"] and each["name"] in printed
        assert each["passed"] is None or bool(each["what_to_do"]) == (each["passed"] is False)
        word = {True: ("passed",), False: ("failed",)}.get(each["passed"])
        assert each["verdict"] in (word or ("could not tell", "does not apply"))
    assert by_name["data given the context"]["verdict"] == "does not apply"
    assert set(found["left_out"]).isdisjoint(by_name) and found["left_out"]
    page = (run / "check.html").read_text()
    assert all(each["name"] in page for each in found["checks"])
    assert (
        not re.search(r"(src|href)=['\"]?http", page)
        and "could not tell" in page
        and "does not apply" in page
        and "Left out" in page
    )


def identity_of(run, name="binarisation and identity of the data"):
    assert main(["check", str(run), "--minutes", "0.0001", "--limit", "60"]) == 0
    found = json.loads((run / "check.json").read_text())
    return next(each for each in found["checks"] if each["name"] == name)


def test_a_score_of_other_than_the_test_data_is_not_honest(run, tmp_path):
    few = ["--num-samples", "5", "--limit", "30"]
    assert main(["evaluate", str(run), *few]) == 0
    honest = identity_of(run)
    assert honest["passed"] and "first 30 of 360" in honest["means"]
    for split in ("train", "all"):
        assert main(["evaluate", str(run), "--split", split, *few]) == 0
        found = identity_of(run)
        assert found["faults"] == ["the score is of training data"]
        assert f"digits, {split}, 30 data" in found["means"]
        assert "--split test" in found["what_to_do"]
    other = tmp_path / "other.npz"
    np.savez(other, x=np.random.default_rng(0).integers(0, 2, (100, 1, 8, 8)).astype("float32"))
    assert main(["evaluate", str(run), "--data", str(other), *few]) == 0
    assert identity_of(run)["faults"] == ["the score is of other data"]


def test_mistakes_end_in_one_line(run, capsys):
    assert fails(capsys, "check", run, "--minutes", "0").startswith("pyro-vae: minutes")
    for wrong in ("nan", "inf", "-inf"):
        line = fails(capsys, "check", run, f"--minutes={wrong}")
        assert f"minutes: got {wrong}, expected a finite number; pass one, as --minutes 1.0" in line
    assert "limit" in fails(capsys, "check", run, "--limit", "1")
