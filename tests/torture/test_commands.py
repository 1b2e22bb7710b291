"""Commands that are killed, find the disk full, or meet one another: nothing is lost or half done.

What every folder must hold after that is stated once, in `Folder.check`. This is the long form,
``pytest -n 0 -s -m torture tests/torture``; the short one is `test_commits.py`.
"""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.torch
import torch
from torture.faults import Fault, forked

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli import main
from pyro_vae.cli.interrupts import ended_by_signals
from pyro_vae.evaluation.arviz_compat import arviz
from pyro_vae.evaluation.comparison import load_scores
from pyro_vae.report.page import report
from pyro_vae.report.run_files import read_file

pytestmark = [
    pytest.mark.torture,
    pytest.mark.filterwarnings("ignore:Creating legend"),  # takes long on a busy machine
]

SIZES = ["--latent", "2", "--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]
DATA = ["--data", "TABLE", "--missing", "true", "--compile", "off", "--batch-size", "400"]
TRAIN = ["train", *SIZES, *DATA, "--num-samples", "5", "--limit", "20"]
EVALUATE = ["evaluate", "RUN", "--num-samples", "6", "--limit", "15", "--seed", "1"]
INSPECT = ["inspect", "RUN", "--num-samples", "5", "--limit", "12", "--reference", "0"]
MEASURED = (
    ("anneal", ["--num-chains", "2", "--num-temperatures", "4", "--simulated", "2"]),
    ("decompose", ["--num-samples", "4"]),
    ("calibrate", ["--simulated", "10", "--num-samples", "5"]),
    ("gaps", ["--num-samples", "5", "--steps", "2"]),
    ("fidelity", ["--data", "WHOLE", "--points", "3", "--neighbours", "2"]),
)
COMMANDS = {
    "train": [*TRAIN, "--epochs", "3", "--out", "RUN", "--resume"],
    "evaluate": EVALUATE,
    "inspect": [*INSPECT, "--seed", "1"],
    "report": ["report", "RUN"],
    "sample": ["sample", "RUN", "--num", "4", "--seed", "1"],
    "compare": ["compare", "RUN", "OTHER", "--out", "RUN/compared.json"],
    "impute": ["impute", "RUN", "--num-draws", "4", "--seed", "1"],
    "check": ["check", "RUN", "--minutes", "0.02", "--limit", "12", "--seed", "1"],
    "export": ["export", "RUN", "--out", "RUN/exported"],
    "push": ["push", "RUN", "ann/run"],
    "explore": ["explore", "RUN", "--port", "0", "--limit", "12", "--num-samples", "5"],
    **{name: [name, "RUN", *words, "--limit", "12", "--seed", "1"] for name, words in MEASURED},
}


WRITE_NOTHING = ("push", "explore")  # into the run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two epochs with every kind of output, and the same after each command."""
    folder = tmp_path_factory.mktemp("made")
    for name, gap in (("table", ""), ("whole", "1")):
        rows = "".join(f"{i / 3},{gap if i % 7 == 0 else i % 5},k{i % 2}\n" for i in range(60))
        (folder / f"{name}.csv").write_text(f"a,b,c\n{rows}")
    run(folder / "old", [*TRAIN, "--epochs", "2", "--out", "RUN"])
    run(folder / "old", [*INSPECT, "--seed", "0"])
    for name in ("sample", "report", "impute"):
        run(folder / "old", COMMANDS[name][:2])
    for name in ("check", *(name for name, _ in MEASURED)):
        run(folder / "old", [*COMMANDS[name][:-1], "0"])
    run(folder / "old", COMMANDS["export"])
    shutil.copytree(folder / "old", folder / "other")
    run(folder / "old", [*COMMANDS["compare"], "--score", "elbo"], folder / "other")
    return folder


@pytest.fixture(scope="module", autouse=True)
def stand_ins():
    """A hub that takes what it is given, and a page that is never asked for."""
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("bokeh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "HfApi", lambda: Mock(spec=["create_repo", "upload_folder"]))
        patch.setattr("pyro_vae.explorer.server.Server.run", lambda self: self.bokeh.stop())
        yield


def run(folder, argv, other=None):
    assert main(words_of(argv, folder, other)) == 0


def words_of(argv, folder, other=None):
    """A command on a folder; the table lies beside the other run."""
    other = other or folder.parent / "other"
    tables = {"TABLE": other.parent / "table.csv", "WHOLE": other.parent / "whole.csv"}
    names = {"RUN": folder, "OTHER": other, **tables}
    for short, path in names.items():
        argv = [argv[0], *(word.replace(short, str(path)) for word in argv[1:])]
    return argv


@dataclass
class Folder:
    """A copy of a run, a command on it, and what may be found there after a fault."""

    made: Path
    scratch: Path
    command: str

    def __post_init__(self):
        self.run, self.other = self.scratch / "run", self.made / "other"
        self.old = self.made / "old"
        self.new = self.scratch / "new"
        shutil.copytree(self.old, self.new)
        self.allowed = [self._seen(self.old)]
        run(self.new, COMMANDS[self.command], self.other)
        self.allowed.append(self._seen(self.new))
        self.weights = pv.load(self.new).state_dict()

    def prepare(self):
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.old, self.run)

    def work(self):
        words = words_of(COMMANDS[self.command], self.run, self.other)
        return lambda: main(words)

    def check(self):
        """All outputs are there, each group of them that of before or that of after."""
        found = self._seen(self.run)
        for group, content in found.items():
            known = [each[group] for each in self.allowed]
            assert any(same(content, each) for each in known), f"{group} is half done or lost"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pyro_vae.report.markup.formula", lambda latex: "")  # takes longest
            assert report(self.run, pv.load(self.run)).endswith("</html>\n")

    def finish(self):
        """The command, run again, ends as if nothing had happened, and leaves nothing behind."""
        run(self.run, COMMANDS[self.command], self.other)
        again = self._seen(self.run)
        assert all(same(again[group], self.allowed[1][group]) for group in again)
        left = [
            path.name for path in self.run.rglob(".*") if path.name not in (".lock", ".commit.lock")
        ]
        assert not left and len(list(self.run.glob("*.safetensors"))) == 2
        weights = pv.load(self.run).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in self.weights.items())

    def _seen(self, folder):
        inner = folder / "inspection"
        captions = read_file(inner, "inspection.json")
        scores = load_scores(folder / "evaluation.npz")
        result = read_file(folder, "evaluation.json")
        for name, score in scores.items():  # the two files are of one evaluation
            assert score.mean == pytest.approx(result[name]["mean"], rel=1e-12)
        state, meta = checkpoint.read_state(folder, "training")
        arviz().from_netcdf(str(folder / "posterior.nc")).close()
        program = {name: value.numpy() for name, value in pv.load(folder).state_dict().items()}
        return {
            "evaluation": {"json": result, "npz": {k: v.values.numpy() for k, v in scores.items()}},
            "inspection": {
                "json": captions,
                **{name: content(inner, name) for name in captions["captions"]},
            },
            "training": {
                "epochs": len(meta["history"]),
                "state": {name: value.numpy() for name, value in state.items()},
                "program": program,
                "metrics": len(content(folder, "metrics.csv").splitlines()),
            },
            "figures": {
                name.name: content(folder / "figures", name.name)
                for name in (folder / "figures").glob("*.png")
            },
            "samples": content(folder, "samples.png"),
            "imputed": {
                name: content(folder, name) for name in ("imputed.csv", "imputed-entries.csv")
            },
            "compared": self._compared(folder),
            "check": {
                "whole": is_whole(content(folder, "check.html")),
                "seed": read_file(folder, "check.json")["seed"],
            },
            **{
                name: {
                    "json": read_file(folder, f"{name}.json"),
                    "png": content(folder, f"{name}.png"),
                }
                for name, _ in MEASURED
            },
            "exported": self._exported(folder / "exported"),
            "report": is_whole(content(folder, "report.html")),
            "recipe": "epochs" in read_file(folder, "recipe.yaml"),
        }

    def _exported(self, folder):
        """Each part is there and whole, and has the size of before: the weights are the same."""
        made = read_file(folder, "export.json")
        files = [part["file"] for part in made["parts"].values()]
        assert all(zipfile.ZipFile(io.BytesIO(content(folder, f))).testzip() is None for f in files)
        example = safetensors.torch.load(content(folder, "check.safetensors"))
        return {"parts": made, **{name: value.numpy() for name, value in example.items()}}

    def _compared(self, folder):
        text = content(folder, "compared.json")
        for path in (self.old, self.run, self.new):
            text = text.replace(str(path).encode(), b"RUN")
        return json.loads(text)


def content(folder, name):
    return checkpoint.read_current(folder, name, Path.read_bytes)


def is_whole(page):
    return page.endswith(b"</html>\n")


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    return a == b


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_a_random_time(made, tmp_path, command, by):
    """One line and its exit code, and nothing is lost or half done."""
    folder, draws, ended_by = Folder(made, tmp_path, command), random.Random(1), []

    def work():
        signal.signal(by, signal.SIG_DFL)  # a job of a shell may start with it ignored
        with ended_by_signals():
            return folder.work()()

    folder.prepare()
    start = time.monotonic()
    forked(work, Fault(folder.run), tmp_path).check(0)
    whole = time.monotonic() - start
    for _ in range(int(os.environ.get("TORTURE_INTERRUPTS", "10"))):
        folder.prepare()
        ended = forked(work, Fault(folder.run), tmp_path, draws.uniform(0.01, whole), by)
        ended.check(128 + by, 0)
        said = [line for line in ended.words.splitlines() if "pyro-vae: " in line]
        assert ended.code == 0 or len([line for line in said if "warning" not in line]) == 1
        ended_by.append(ended.code)
        folder.check()
    folder.finish()
    print(f"{command}: {sum(map(bool, ended_by))} of {len(ended_by)} ended by {by.name}")


def tortured(folder, tmp_path, kind, operations, finish_every=1):
    """A fault at each of these operations; returns how often the command was killed by it."""
    killed = 0
    for i, at in enumerate(operations):
        folder.prepare()
        ended = forked(folder.work(), Fault(folder.run, kind, at), tmp_path)
        ended.check(*((-signal.SIGKILL, 0) if kind == "kill" else (0, 2)))
        killed += ended.code == -signal.SIGKILL
        folder.check()
        if i % finish_every == 0:
            folder.finish()
    return killed


def count(folder, tmp_path):
    folder.prepare()
    ended = forked(folder.work(), Fault(folder.run), tmp_path)
    ended.check(0)
    return ended.operations


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_fault_at_every_operation(made, tmp_path, command, kind):
    folder = Folder(made, tmp_path, command)
    operations = count(folder, tmp_path)
    killed = tortured(folder, tmp_path, kind, range(operations), finish_every=5)
    print(f"{command}, {kind}: {operations} operations, {killed} kills")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_at_a_random_time(made, tmp_path, command):
    folder, draws = Folder(made, tmp_path, command), random.Random(0)
    folder.prepare()
    start = time.monotonic()
    forked(folder.work(), Fault(folder.run), tmp_path).check(0)
    whole, kills = time.monotonic() - start, 0
    for i in range(int(os.environ.get("TORTURE_KILLS", "30"))):
        folder.prepare()
        ended = forked(folder.work(), Fault(folder.run), tmp_path, draws.uniform(0, whole))
        ended.check(-signal.SIGKILL, 0)
        kills += ended.code != 0
        folder.check()
        if i % 5 == 0:
            folder.finish()
    print(f"{command}: {kills} kills at random times")


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_fault_at_every_operation_of_a_first_training(made, tmp_path, kind):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    argv = words_of([*TRAIN, "--epochs", "2", "--out"], folder, made / "other")
    assert main([*argv, str(whole)]) == 0
    expected = pv.load(whole).state_dict()
    operations = forked(lambda: main([*argv, str(folder)]), Fault(folder), tmp_path).operations
    for at in range(operations):
        shutil.rmtree(folder, ignore_errors=True)
        ended = forked(lambda: main([*argv, str(folder)]), Fault(folder, kind, at), tmp_path)
        ended.check(*((-signal.SIGKILL, 0) if kind == "kill" else (0, 2)))
        is_run = checkpoint.exists(folder, "training")
        again = [*argv, str(folder), *(["--resume"] if is_run or at % 2 else [])]
        ended = forked(partial(main, again), Fault(folder), tmp_path)
        ended.check(0)
        got = pv.load(folder).state_dict()
        assert all(torch.equal(got[name], value) for name, value in expected.items())
        assert not list(folder.rglob("*.tmp"))
    print(f"first training, {kind}: {operations} operations")


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_file_system_of_its_own(made, tmp_path, command):
    """A disk that is really full, and one that is really read-only."""
    folder = Folder(made, tmp_path, command)
    place = tmp_path / "disk"
    place.mkdir()
    used = sum(path.stat().st_size + 4096 for path in folder.old.rglob("*"))
    for spare in (0, 8, 32, 64, 128, 256):
        size = (used // 1024 + spare) * 1024
        made_it = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place])
        if made_it.returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            folder.run = place / "run"
            shutil.copytree(folder.old, folder.run, dirs_exist_ok=True)
            forked(folder.work(), Fault(tmp_path / "none"), tmp_path).check(0, 2)
            folder.check()
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            ended = forked(folder.work(), Fault(tmp_path / "none"), tmp_path)
            ended.check(0 if command in WRITE_NOTHING else 2)
            folder.check()
        finally:
            subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_at_once(made, tmp_path, command):
    folder = Folder(made, tmp_path, command)
    for _ in range(5):
        folder.prepare()
        ends = {}

        def second(name, ends=ends):
            (tmp_path / name).mkdir(exist_ok=True)
            ends[name] = forked(folder.work(), Fault(folder.run), tmp_path / name)

        threads = [threading.Thread(target=second, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for ended in ends.values():
            ended.check(0, 2)
        assert 0 in {ended.code for ended in ends.values()}
        folder.check()
        folder.finish()
