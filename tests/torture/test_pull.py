"""A pull that is killed or finds the disk full: no run yet, or the whole run; again, it ends well.

The long form: ``pytest -n 0 -s -m torture tests/torture/test_pull.py``.
"""

import shutil
import signal

import pytest
import torch
from sharing.test_hub import Stored, hub, run  # noqa: F401  # fixtures
from torture.faults import Fault, forked

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli import main
from pyro_vae.sharing import push

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_pull_that_a_fault_ended_is_done_by_the_next(hub, run, tmp_path, kind):  # noqa: F811
    stored, _ = hub
    figures = run / "figures"
    figures.mkdir()
    (figures / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = push(run, "ann/run", hub=Stored(stored))
    target, ours = tmp_path / "theirs", pv.load(run).state_dict()

    def pulled():
        return main(["pull", "ann/run", "--out", str(target)])

    assert pulled() == 0
    shutil.rmtree(target)
    whole = forked(pulled, Fault(target), tmp_path)
    whole.check(0)
    shutil.rmtree(target)
    for at in range(whole.operations):
        ended = forked(pulled, Fault(target, kind, at), tmp_path)
        ended.check(*((-signal.SIGKILL, 0) if kind == "kill" else (0, 2)))
        if checkpoint.exists(target, "program"):
            assert torch.equal(
                *(next(iter(s.values())) for s in (ours, pv.load(target).state_dict()))
            )
        forked(pulled, Fault(target), tmp_path).check(0)
        got = pv.load(target).state_dict()
        assert all(torch.equal(got[name], value) for name, value in ours.items())
        left = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
        assert left == {*names, ".commit.lock", "figures/.commit.lock"}
        shutil.rmtree(target)
    print(f"pull, {kind}: {whole.operations} operations")
