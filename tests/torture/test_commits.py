"""Killed at, or out of space at, every file operation of a commit: the old files or the new."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from common import small_vae
from torture.faults import Fault, forked

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.checkpoint.commit import JOURNAL
from pyro_vae.validation import InvalidInput

OLD = {"a.json": b"old a", "b.npz": b"old b" * 1000, "c.png": b"old c"}
NEW = {"a.json": b"new a", "b.npz": b"new b" * 2000, "c.png": b"new c"}


def committed(folder, files):
    try:
        checkpoint.commit(folder, files)
    except checkpoint.CheckpointError as error:
        print(error)
        return 2
    return 0


def every_operation(work, folder, scratch, kind, prepare, check, step=1):
    """Run ``work`` with a fault at its operations in turn; returns how many of them there are."""
    prepare()
    whole = forked(work, Fault(folder), scratch)
    whole.check(0)
    for at in range(0, whole.operations, step):
        prepare()
        ended = forked(work, Fault(folder, kind, at), scratch)
        ended.check(*((-signal.SIGKILL,) if kind == "kill" else (0, 2)))
        check(at)
    return whole.operations


def seen(folder):
    return {name: checkpoint.read_current(folder, name, Path.read_bytes) for name in OLD}


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_commit_is_seen_whole_or_not_at_all(tmp_path, kind):
    folder, found = tmp_path / "run", []

    def prepare():
        checkpoint.commit(folder, OLD)
        assert {path.name for path in folder.iterdir()} == {*OLD, ".commit.lock"}, "leftovers"

    def check(at):
        found.append(seen(folder))
        assert found[-1] in (OLD, NEW), at

    operations = every_operation(
        lambda: committed(folder, NEW), folder, tmp_path, kind, prepare, check
    )
    prepare()
    assert operations > 10 and OLD in found and (kind == "full" or NEW in found)


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_saved_program_is_the_old_or_the_new(tmp_path, kind):
    folder, old, new = tmp_path / "run", small_vae(seed=1), small_vae(seed=2)

    def saved():
        try:
            pv.save(new, folder)
        except checkpoint.CheckpointError as error:
            print(error)
            return 2
        return 0

    def prepare():
        pv.save(old, folder)
        assert len(list(folder.iterdir())) == 3, "weights, program.json and the lock"

    def check(at):
        got = pv.load(folder).state_dict()
        assert any(
            all(torch.equal(got[name], value) for name, value in each.state_dict().items())
            for each in (old, new)
        ), at

    assert every_operation(saved, folder, tmp_path, kind, prepare, check, step=3) > 8
    prepare()


def test_a_read_only_folder_is_one_line(tmp_path):
    checkpoint.commit(tmp_path / "run", OLD)
    ended = forked(
        lambda: committed(tmp_path / "run", NEW), Fault(tmp_path / "run", "readonly"), tmp_path
    )
    ended.check(2)
    assert "Read-only file system" in ended.words and seen(tmp_path / "run") == OLD


@pytest.mark.parametrize("name", ["../a", "/etc/a", "sub/a", "..", "", ".", "a\0"])
def test_a_journal_of_a_stranger_names_nothing_outside(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "a").write_text("mine")
    token = "0123456789abcdef"
    (tmp_path / ".a.0123456789abcdef.tmp").write_text("theirs")
    (tmp_path / "run" / JOURNAL).write_text(
        f'{{"token": "{token}", "files": [{name!r}]}}'.replace("'", '"')
    )
    checkpoint.commit(tmp_path / "run", OLD)
    assert seen(tmp_path / "run") == OLD and (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("journal", ["", "[1]", "{}", '{"token": 3, "files": 4}', "[" * 10**5])
def test_a_damaged_journal_is_no_journal(tmp_path, journal):
    checkpoint.commit(tmp_path, OLD)
    (tmp_path / JOURNAL).write_text(journal)
    assert seen(tmp_path) == OLD
    checkpoint.commit(tmp_path, NEW)
    assert seen(tmp_path) == NEW


def test_no_link_is_followed(tmp_path):
    folder, mine = tmp_path / "run", tmp_path / "mine"
    folder.mkdir()
    mine.write_text("mine")
    for name in ("a.json", "b.npz", "program.json", "metrics.csv"):
        (folder / name).symlink_to(mine)
    checkpoint.commit(folder, {"a.json": b"x", "b.npz": b"y"})
    checkpoint.write_text(folder / "metrics.csv", "z")
    pv.save(small_vae(), folder)
    assert mine.read_text() == "mine" and not (folder / "a.json").is_symlink()
    (folder / "log").symlink_to(mine)
    with pytest.raises(OSError):
        checkpoint.append_bytes(folder / "log", b"x")
    (folder / "figures").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="a symbolic link"):
        checkpoint.subfolder(folder, "figures")
    assert mine.read_text() == "mine"


def test_a_record_that_does_not_fit_is_not_half_there(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoint.append_bytes(folder / "log", b"first")

    def append():
        try:
            checkpoint.append_bytes(folder / "log", b"second")
        except OSError as error:
            print(error.strerror)
            return 2
        return 0

    forked(append, Fault(folder, "full", 1), tmp_path).check(2)
    assert (folder / "log").read_bytes() == b"first"


FIT = dict(epochs=2, batch_size=20, progress=False, checkpoint_seconds=0.0)


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_training_that_a_fault_ended_ends_with_the_same_weights(tmp_path, kind):
    """At some of its operations; from its first on, so that a first checkpoint is half done too."""
    data, folder = pv.datasets.load("digits")[0][:40], tmp_path / "run"

    def fitted(resume=False):
        program = small_vae()
        try:
            pv.fit(program, data, out=folder, resume=resume, **FIT)
        except checkpoint.CheckpointError as error:
            print(error)
            return 2
        return 0

    assert fitted() == 0  # here, so that no child imports anything
    whole = pv.load(folder).state_dict()
    shutil.rmtree(folder)
    operations = forked(fitted, Fault(folder), tmp_path).operations
    for at in range(0, operations, max(1, operations // 4)):
        shutil.rmtree(folder)
        ended = forked(fitted, Fault(folder, kind, at), tmp_path)
        ended.check(*((-signal.SIGKILL,) if kind == "kill" else (0, 2)))
        resume = checkpoint.exists(folder, "training")
        forked(lambda resume=resume: fitted(resume), Fault(folder), tmp_path).check(0)
        got = pv.load(folder).state_dict()
        assert all(torch.equal(got[name], value) for name, value in whole.items())
        assert not list(folder.glob("*.tmp")) and len(list(folder.glob("*.safetensors"))) == 2
