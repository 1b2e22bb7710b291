"""Commands say of a run whether its training came to its end."""

import json

import pytest
from commands import FEW, fails

from pyro_vae.cli import main
from pyro_vae.files.checksums import CHECKSUM

EVALUATE = ["--num-samples", "2", "--limit", "2"]


def trained(folder, *flags):
    return main(["train", "--data", "digits", "--out", str(folder), *FEW, *flags])


def warned(folder, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(folder), *EVALUATE]) == 0
    return "has 0 of its 2 epochs" in capsys.readouterr().err


def test_a_run_that_diverged_is_said_to_be_unfinished(tmp_path, capsys):
    assert trained(tmp_path / "run", "--epochs", "2", "--learning-rate", "1e25") == 2
    assert warned(tmp_path / "run", capsys)


def test_a_run_that_ended_says_nothing(tmp_path, capsys):
    assert trained(tmp_path / "run", "--epochs", "2") == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), *EVALUATE]) == 0
    assert "epochs" not in capsys.readouterr().err


def test_nor_does_one_that_its_patience_ended(tmp_path, capsys):
    flags = ["--validation", "100", "--patience", "1", "--learning-rate", "1e-30", "--epochs", "9"]
    assert trained(tmp_path / "run", *flags) == 0
    assert len(json.loads((tmp_path / "run/training.json").read_text())["history"]) < 9
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), *EVALUATE]) == 0
    assert "epochs" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed", [{"history": 3}, {"best": "none"}, {"settings": {"patience": "x"}}]
)
def test_a_damaged_account_of_the_training_is_refused_in_one_line(tmp_path, capsys, changed):
    assert trained(tmp_path / "run", "--epochs", "1") == 0
    path = tmp_path / "run/training.json"
    account = json.loads(path.read_text()) | changed
    account.pop(CHECKSUM)
    path.write_text(json.dumps(account))
    error = fails(capsys, "evaluate", str(tmp_path / "run"), *EVALUATE)
    assert "training.json" in error
