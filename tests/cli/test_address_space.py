"""A limit on the address space (`ulimit -v`) is one line before native libraries end on it."""

import resource
import subprocess
import sys

import pytest

from pyro_vae.cli.address_space import NEEDED, check_address_space, needed
from pyro_vae.cli.help import COMMANDS
from pyro_vae.validation import InvalidInput


def run(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyro_vae", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("limit", [400_000_000, NEEDED - 1])
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_limit_below_what_the_libraries_map_is_one_line(command, limit):
    ended = run(limit, command, "nowhere")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"pyro-vae {command}" in ended.stderr
    assert f"{limit / 1e9:.1f} GB" in ended.stderr
    assert "ulimit -v" in ended.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [COMMANDS[0], "--help"]])
def test_what_needs_no_libraries_needs_little(arguments):
    assert run(400_000_000, *arguments).returncode == 0


def test_more_threads_need_more():
    assert needed(1) == needed(2) < needed(3) < needed(64)


def test_a_process_that_has_its_libraries_is_not_refused(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(resource, "getrlimit", lambda which: (10**9, 10**9))
        patched.setitem(sys.modules, "torch", sys)
        check_address_space("pyro-vae train")
        patched.delitem(sys.modules, "torch")
        with pytest.raises(InvalidInput, match=r"a limit of 1\.0 GB"):
            check_address_space("pyro-vae train")
