"""Memory for weights is had before safetensors asks for it."""

import pytest
from common import small_vae

import pyro_vae as pv
from pyro_vae.checkpoint import states
from pyro_vae.runtime.memory import enough_memory, is_out_of_memory
from pyro_vae.validation import InvalidInput


def test_memory_that_is_not_there_is_an_error_and_no_end_of_the_process(tmp_path, monkeypatch):
    """The Rust of safetensors ends the process, or raises what is no `Exception`."""
    with pytest.raises(RuntimeError) as error:
        states.check_room(2**55)
    assert is_out_of_memory(error.value)
    pv.save(small_vae(), tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    real, asked = states.check_room, []
    monkeypatch.setattr(states, "check_room", lambda size: (asked.append(size), real(2**55)))
    for work in (lambda: pv.save(small_vae(), tmp_path), lambda: pv.load(tmp_path)):
        with (
            pytest.raises(InvalidInput, match="GiB more than the host has free"),
            enough_memory("a program", "lower latent"),
        ):
            work()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    weights = sum(value.nbytes for value in small_vae().state_dict().values())
    assert len(asked) == 2 and min(asked) >= weights
