"""Help is there before torch is, and is that of the options."""

import itertools
import json
import subprocess
import sys

import pytest
from commands import fails

from pyro_vae.__main__ import SPINS, let_threads_sleep
from pyro_vae.cli import help, main, say_if_slow
from pyro_vae.cli.pages import pages

INSTANT = [
    [],
    ["--help"],
    ["--version"],
    ["trian"],
    *([name, "--help"] for name in help.COMMANDS),
    ["train", "-h", "all"],
]

RUN_ALL = """
import json, sys
import pyro_vae
from pyro_vae.__main__ import SPINS, let_threads_sleep, main
codes = []
for argv in json.loads(sys.argv[1]):
    sys.argv[1:] = argv
    codes.append(main())
heavy = {"torch", "pyro", "numpy", "jsonargparse", "rich", "yaml"} & sys.modules.keys()
print(json.dumps([codes, sorted(heavy)]))
"""


def test_help_the_version_and_a_wrong_command_import_nothing_heavy():
    command = [sys.executable, "-c", RUN_ALL, json.dumps(INSTANT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes, heavy = json.loads(done.stdout.splitlines()[-1])
    assert codes == [2 if argv == ["trian"] else 0 for argv in INSTANT] and heavy == []
    assert "did you mean 'train'?" in done.stderr and "usage: pyro-vae train" in done.stdout


def test_the_pages_are_those_of_the_options():
    """Written anew by `just docs` (python -m pyro_vae.cli.pages)."""
    kept = json.loads(help.PAGES.read_text())
    assert kept == json.loads(json.dumps({"key": help.key(), "pages": pages()}))


def test_every_option_of_training_is_in_a_section():
    sections = pages()["train"]["sections"]
    assert [option.written for option in sections["options"]] == ["RECIPE.yaml", "-h, --help"]
    assert list(sections) == ["options", "data", "model", "training", "output"]


def test_help_is_short_and_all_of_it_has_every_option(capsys):
    assert main(["train", "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["train", "--help", "all"]) == 0
    whole = capsys.readouterr().out
    assert "--clip-norm" in whole and "--clip-norm" not in short and "--help all" in short
    assert set(short.splitlines()) - set(whole.splitlines()) == {short.splitlines()[-1]}


def flags_in(text):
    return [line.split()[0] for line in text.splitlines() if line.startswith("  --")]


@pytest.mark.parametrize("rest", [["--help"], ["--help", "all"]], ids=" ".join)
def test_help_beside_other_options_is_made_from_the_options(capsys, rest):
    assert help.stored(["train", "--seed", "1", *rest]) is None
    assert main(["train", *rest]) == 0
    stored = capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", "--seed", "1", *rest])
    assert stop.value.code == 0 and "--epochs" in flags_in(stored)
    assert flags_in(capsys.readouterr().out) == flags_in(stored)


@pytest.mark.parametrize(
    ("is_set", "is_terminal", "is_kept"), [*itertools.product((False, True), repeat=3)]
)
def test_a_start_without_byte_code_is_said_at_a_terminal(
    capsys, monkeypatch, is_set, is_terminal, is_kept
):
    monkeypatch.setattr(sys, "dont_write_bytecode", is_set)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr("os.path.exists", lambda path: is_kept)
    say_if_slow()
    said = capsys.readouterr().err
    assert ("PYTHONDONTWRITEBYTECODE" in said) == (is_set and is_terminal and not is_kept)


def test_a_component_that_no_page_knows_is_in_help(monkeypatch):
    assert help.stored(["train", "--help"])
    monkeypatch.setattr(help, "_names_in", lambda path: ["Gumbel"])
    assert help.stored(["train", "--help"]) is None


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lr", "learning-rate"),
        ("--bs", "batch-size"),
        ("--epohcs", "epochs"),
        ("--learning-rte", "learning-rate"),
    ],
)
def test_a_wrong_flag_names_the_nearest(capsys, flag, meant):
    assert f"did you mean '--{meant}'?" in fails(capsys, "train", flag, "1")


@pytest.mark.parametrize(
    "given, left",
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(given, left, monkeypatch):
    environment = dict(given)
    monkeypatch.setattr("os.environ", environment)
    let_threads_sleep()
    assert environment == left
