"""Odd names, seeds, outputs and interrupts: one line, whatever the place."""

import os
import subprocess
import sys

import numpy as np
import pytest
from commands import FAST, fails
from rich.table import Table

from pyro_vae import cli, datasets
from pyro_vae.cli import main
from pyro_vae.cli.terminal import console_of
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.tables import in_words
from pyro_vae.runtime.progress import say


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    x = np.random.default_rng(0).normal(size=100).astype("f4")
    np.savez(folder / "data.npz", x=x)
    out = folder / "[red]b\udcffd[/]:fire:"
    data = ["--data", str(folder / "data.npz"), "--likelihood", "Normal"]
    assert main(["train", *data, "--out", str(out), *FAST]) == 0
    return out


def test_names_are_printed_as_they_are(run, capsys):
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out
    assert "[red]b" in out and "[/]:fire:" in out


ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b5m\u202etxt.exe"


def test_no_text_moves_the_cursor_or_turns_a_name(tmp_path, capsys):
    table = Table(title=ESCAPES)
    table.add_column(ESCAPES)
    table.add_row(ESCAPES)
    for shown in (ESCAPES, table):
        console_of().print(shown, soft_wrap=True)
    say(ESCAPES)
    cli.one_line_warning(ESCAPES, UserWarning, "", 0)
    assert main(["evaluate", f"{tmp_path}/{ESCAPES}"]) == 2
    data = tmp_path / "x.csv"
    data.write_text(f"a,{ESCAPES}\n" + "1,2\n3,x\n" * 9)
    assert main(["train", "--data", str(data), "--likelihood", "Normal"]) == 2
    seen = "".join(capsys.readouterr())
    assert seen.count(r"\x1b[2J\x1b]0;title\x07\x9b5m\u202etxt.exe") >= 6
    assert not set(ESCAPES) & set(seen) & set("\x1b\x07\x9b\u202e")


def test_what_is_said_of_data_moves_no_cursor(caplog):
    columns = Columns((Column(ESCAPES, "real"),))
    datasets.sources.say(ESCAPES, [in_words(columns)])
    assert ESCAPES not in caplog.text and caplog.text.count("u202etx") == 2


def test_names_of_columns_and_labels_are_no_formulas_in_figures(tmp_path, real_figures):
    rows = "".join(f"{i % 7 / 3},{i % 5},{('$$a$$', '$x_{$', 'b')[i % 3]}\n" for i in range(30))
    (tmp_path / "x.csv").write_text("$\\frac{$," + "a name " * 3000 + f",$y$\n{rows}")
    run = str(tmp_path / "run")
    given = ["--data", str(tmp_path / "x.csv"), "--target", "$y$", "--out", run]
    assert main(["train", *given, *FAST]) == 0
    assert main(["sample", run, "--num", "4"]) == 0


def test_a_vector_of_data_is_inspected(run, real_figures):
    few = ["--num-samples", "5", "--limit", "20", "--reference", "0"]
    assert main(["inspect", str(run), *few]) == 0


def test_data_whose_name_is_no_text_are_trained_on_and_scored(run, tmp_path, capsys):
    path = tmp_path / "\udcff[b].npz"
    path.write_bytes((run.parents[1] / "data.npz").read_bytes())
    out = tmp_path / "run"
    assert (
        main(["train", "--data", str(path), "--likelihood", "Normal", "--out", str(out), *FAST])
        == 0
    )
    assert main(["evaluate", str(out), "--num-samples", "5"]) == 0
    assert "not the data of this run" not in capsys.readouterr().err
    assert main(["report", str(out)]) == 0


@pytest.mark.parametrize(
    "argv, lower",
    [
        (["train", *FAST, "--latent", str(10**13)], "lower latent"),
        (["train", *FAST, "--encoder.hidden", f"[{10**13}]"], "the widths of the networks"),
        (["sample", "RUN", "--num", str(10**12)], "lower num (--num)"),
        (["evaluate", "RUN", "--num-samples", str(10**13)], "lower"),
    ],
)
def test_sizes_beyond_any_memory_are_one_line(run, tmp_path, capsys, argv, lower):
    words = [str(run) if word == "RUN" else word for word in argv]
    out = ["--out", str(tmp_path / "run")] if argv[0] == "train" else []
    assert lower in fails(capsys, *words, *out)


def test_a_cache_of_compiled_code_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/cache")
    said = fails(capsys, "train", *FAST, "--compile", "on", "--out", tmp_path / "run")
    assert "/dev/null/cache" in said and "Not a directory" in said


@pytest.mark.parametrize("seed", [-1, 2**70])
@pytest.mark.parametrize("command", ["evaluate", "inspect", "sample"])
def test_a_seed_is_checked_by_every_command(run, capsys, command, seed):
    assert fails(capsys, command, run, "--seed", seed).startswith("pyro-vae: seed: got")


@pytest.mark.parametrize("command", ["evaluate", "report", "sample", "inspect"])
def test_a_name_that_is_too_long_is_one_line(capsys, command):
    fails(capsys, command, "a" * 5000)


def test_other_data_than_the_runs_are_said(run, capsys):
    command = ["evaluate", str(run), "--num-samples", "10"]
    assert main(command) == 0
    assert "not the data of this run" not in capsys.readouterr().err
    path = run.parents[1] / "data.npz"  # the name has a slash
    before = path.read_bytes()
    np.savez(path, x=np.load(path)["x"] + 1)
    assert main(command) == 0
    assert "'data' is not the data of this run" in capsys.readouterr().err
    path.write_bytes(before)


def test_a_full_output_is_one_line(run):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pyro_vae", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    script = '"$0" -m pyro_vae --version >/dev/full 2>/dev/full'
    assert subprocess.run(["sh", "-c", script, sys.executable], check=False).returncode == 2
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "pyro-vae: output: got No space left on device, expected a file that can be read or "
        "written; check the path, the permissions and the space that is left"
    ]


def test_work_goes_on_where_nobody_can_read_its_notes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, pyro_vae.cli, pyro_vae.__main__ as start\n"
        "def work():\n"
        "    print('a bar ' * 9999, file=sys.stderr, flush=True)\n"
        "    print('done')\n"
        "    return 0\n"
        "pyro_vae.cli.main = work\n"
        "sys.exit(start.main())\n"
    )
    script = '"$0" "$1" 2>/dev/full'
    command = ["sh", "-c", script, sys.executable, str(program)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "done\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path, closed):
    said = tmp_path / "said"
    script = f'"$0" -m pyro_vae --version >"$1" 2>&1 {closed}; echo $? >"$1".code'
    subprocess.run(["sh", "-c", script, sys.executable, str(said)], check=True)
    assert (tmp_path / "said.code").read_text() == "0\n" and "Trace" not in said.read_text()


def test_an_interrupt_while_libraries_are_imported_is_one_line():
    """A module that is interrupted stands for the seconds that the imports take."""
    code = (
        "import sys; sys.modules['pyro_vae.cli'] = None\n"
        "import builtins, pyro_vae.__main__ as start; real = builtins.__import__\n"
        "def stop(name, *args, **kwargs):\n"
        "    if name == 'pyro_vae.cli': raise KeyboardInterrupt\n"
        "    return real(name, *args, **kwargs)\n"
        "builtins.__import__ = stop; sys.exit(start.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "pyro-vae: interrupted before anything was done\n"


@pytest.mark.parametrize(
    "error", [ImportError("libx.so: failed to map segment from shared object"), MemoryError()]
)
def test_no_memory_for_libraries_is_one_line(monkeypatch, capsys, error):
    def fail(name):
        raise error

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    assert main(["report", "x"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "less than the libraries of pyro-vae report take" in said[0]


def test_an_interrupted_command_is_one_line(monkeypatch, capsys):
    def stop(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_vae.cli.report.run", stop)  # which imports it, too
    assert main(["report", "x"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_line_of_too_many_words_is_refused_before_training(tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("a b c\n" * 20 + "word " * 10_000 + "\n")
    said = fails(capsys, "train", "--data", path, "--out", tmp_path / "run", *FAST)
    assert "line 21 has 10,000 words" in said


def test_a_pipe_among_images_is_not_opened(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.png")
    said = fails(capsys, "train", "--data", tmp_path, "--out", tmp_path / "run", *FAST)
    assert "a pipe, a device or a socket" in said
