"""explore RUN: what it serves is the run's, and the run's folder stays as it was."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest
from commands import FAST, fails

from pyro_vae.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--out", str(folder), *FAST]) == 0
    return folder


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted([folder, *folder.rglob("*")])
    }


def test_a_page_is_served_until_interrupted_and_the_run_stays_as_it_was(run):
    pytest.importorskip("bokeh")
    before = contents(run)
    few = ["--limit", "20", "--num-samples", "10", "--port", "0"]
    # A shell that starts tests in the background has their children ignore interrupts.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pyro_vae.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "explore", str(run), str(run), *few]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            said = served.stdout.readline()
            url = next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
            page = urllib.request.urlopen(url, timeout=60).read().decode()
            served.send_signal(signal.SIGINT)
            assert served.wait(60) == 0
        finally:
            served.kill()
    assert "run and run" in said and page.count("<h1>run</h1>") == 2
    assert "http://" not in page.replace("http://127.0.0.1", "").replace("http://www.w3.org", "")
    assert contents(run) == before


def test_a_mistake_is_one_line(run, tmp_path, capsys, monkeypatch):
    assert "one or two" in fails(capsys, "explore", run, run, run)
    assert "split" in fails(capsys, "explore", run, "--split", "valid")
    fails(capsys, "explore", tmp_path / "none")
    assert "port" in fails(
        capsys, "explore", run, "--port", 99999999, "--limit", 5, "--num-samples", 5
    )
    monkeypatch.setitem(sys.modules, "pyro_vae.explorer.server", None)
    assert 'pip install "pyro-vae[explore]"' in fails(capsys, "explore", run)


def test_a_run_that_names_foreign_code_is_refused(run, tmp_path, capsys):
    folder = tmp_path / "foreign"
    shutil.copytree(run, folder)
    description = json.loads((folder / "program.json").read_text())
    text = json.dumps(description).replace("pyro_vae.priors.StandardNormal", "foreign.Prior")
    (folder / "program.json").write_text(text)
    assert fails(capsys, "explore", folder)
    assert "foreign" not in sys.modules
