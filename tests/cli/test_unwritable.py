"""A run that cannot be written to: found out before the work, and no work lost when it fills up."""

import errno
import os
from pathlib import Path

import pytest
from commands import FAST, fails

from pyro_vae import checkpoint
from pyro_vae.cli import main

FEW = ["--limit", "12"]
COMMANDS = {
    "anneal": ["--num-chains", "2", "--num-temperatures", "3", "--simulated", "2", *FEW],
    "calibrate": ["--simulated", "8", "--num-samples", "5", *FEW],
    "check": ["--minutes", "0.0001", *FEW],
    "decompose": ["--num-samples", "3", *FEW],
    "evaluate": ["--num-samples", "3", *FEW],
    "fidelity": ["--points", "6", "--neighbours", "2", *FEW],
    "gaps": ["--num-samples", "5", "--steps", "1", *FEW],
}
OTHERS = ("inspect", "report", "sample")
TOLD = {  # by a command that has done its work
    "anneal": "log p(x) by annealing",
    "calibrate": "p of uniform ranks",
    "check": "left out",
    "decompose": "active units",
    "evaluate": "log p(x)",
    "fidelity": "precision",
    "gaps": "amortisation",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unwritable") / "run"
    assert main(["train", "--out", str(folder), *FAST, "--compile", "off"]) == 0
    return folder


@pytest.fixture
def read_only(run, monkeypatch):
    """A file system that takes no file below the run; permissions do not count for root."""
    taken, opened = [], os.open

    def refuse(path, flags, *args, **options):
        within = run.resolve() in Path(os.fsdecode(path)).resolve().parents
        is_taken = any(name in os.fspath(path) for name in taken)
        if within and flags & os.O_CREAT and not is_taken:
            raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
        return opened(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    return taken


@pytest.mark.parametrize("command", [*COMMANDS, *OTHERS])
def test_it_is_found_out_before_the_work(run, read_only, capsys, command):
    before = sorted(run.rglob("*"))
    line = fails(capsys, command, run, *COMMANDS.get(command, []))
    assert line.startswith("pyro-vae: run: got ") and "Read-only" in line
    assert "--resume" not in line and "copy the run" in line
    assert ("--out" in line) == (command == "sample")
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_found_is_printed_where_the_disk_is_then_full(
    run, read_only, capsys, command, quick_chains
):
    read_only.append(".probe.")
    assert main([command, str(run), *COMMANDS[command]]) == 2
    out, err = capsys.readouterr()
    assert TOLD[command] in out and f"{command}.json" not in out
    last = err.splitlines()[-1]
    assert last.startswith("pyro-vae: run: got ") and "what was there before is whole" in last


def test_a_place_beside_the_run_is_named_as_such(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for command in (["export"], ["sample"]):
        place = tmp_path / "file" / "x.png"
        line = fails(capsys, *command, run, "--out", place)
        assert line.startswith("pyro-vae: out: got ") and "--resume" not in line
    checkpoint.check_writable(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert "--resume goes on" in fails(capsys, "train", "--out", tmp_path / "file" / "r", *FAST)
