"""How commands are started in several processes; the processes themselves are in tests/torture."""

import os

import pytest
from commands import fails

from pyro_vae.cli import main
from pyro_vae.ranks import torchrun


@pytest.fixture
def launched(monkeypatch):
    """What is given to torchrun, which starts nothing and fails in the end."""
    found = []

    def launch(options):
        assert os.environ["PYTHONSAFEPATH"] == "1"  # no module of the working folder is theirs
        found.append(options)
        return 3

    monkeypatch.setattr(torchrun, "launch", launch)
    return found


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_processes_get_the_command_without_what_starts_them(launched, command):
    words = ["run", "--limit", "9"] if command == "evaluate" else ["--limit", "9", "--resume"]
    with pytest.raises(SystemExit) as ended:
        main([command, "--processes=3", *words, "--max-restarts", "2"])
    (options,) = launched
    assert ended.value.code == 3 and options == [
        "--standalone", "--nproc-per-node", "3", "--max-restarts", "2", "-m", "pyro_vae",
        command, *words,
    ]  # fmt: skip
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--processes", "two"], "processes: got 'two', expected an integer"),
        (["--processes", "0"], "processes: got 0"),
        (["--processes", "2", "--max-restarts", "-1"], "max_restarts: got -1"),
    ],
)
def test_a_number_of_processes_that_cannot_be_is_one_line(capsys, given, said):
    assert said in fails(capsys, "train", *given)


def test_processes_start_no_processes(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "in each process of torchrun" in fails(capsys, "train", "--processes", "2")


def test_an_evaluation_on_an_unknown_engine_is_one_line(capsys):
    assert "did you mean 'ray'?" in fails(capsys, "evaluate", "run", "--engine", "rai")
