"""torchrun's errors as one line, or none where a process has said why it failed."""

import logging
from datetime import datetime

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pyro_vae.ranks import torchrun
from pyro_vae.validation import InvalidInput


@pytest.fixture
def failing(monkeypatch):
    """Lets the engine fail as it does where a process ends with a code."""

    def with_code(code):
        failure = ProcessFailure(1, 77, code, "<N/A>")
        failure.timestamp = int(datetime(2026, 1, 1).timestamp())
        error = ChildFailedError("pyro_vae", {1: failure})

        def run(arguments):
            raise error

        monkeypatch.setattr(torchrun, "run", run)

    return with_code


def test_what_a_process_has_said_is_not_repeated(failing, capsys):
    failing(2)
    assert torchrun.launch(["-m", "pyro_vae", "train"]) == 2
    assert capsys.readouterr() == ("", "")


def test_of_a_process_that_was_killed_there_is_one_line(failing):
    failing(-9)
    with pytest.raises(InvalidInput, match="process 1, which was killed by SIGKILL"):
        torchrun.launch(["-m", "pyro_vae", "train"])


def test_the_log_is_as_before(failing):
    failing(1)
    torchrun.launch(["-m", "pyro_vae", "train"])
    assert logging.root.manager.disable == logging.NOTSET
