"""Several compiled steps in one call are the single ones, to the bit."""

import copy
import shutil
from functools import partial

import pytest
import torch
from cases import CASES, case
from common import small_vae

import pyro_vae as pv
from pyro_vae.compilation import recording
from pyro_vae.training import several
from pyro_vae.validation import map_tensors

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture
def recordings(monkeypatch):
    """What was recorded so far."""
    made, init = [], recording.Recording.__init__
    monkeypatch.setattr(
        recording.Recording,
        "__init__",
        lambda self, *args: (made.append(self), init(self, *args))[1],
    )
    return made


def fitted(monkeypatch, at_once, program, data, **options):
    monkeypatch.setattr(several, "STEPS_AT_ONCE", at_once)
    torch.manual_seed(3)
    history = pv.fit(program, data, compile="on", device="cpu", progress=False, **options)
    return history, program.state_dict()


def assert_same_bits(a, b):
    (one, first), (other, second) = a, b
    for name in ("objective", "validation_elbo"):
        assert one[name] == other[name]
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def rows(num):
    return pv.datasets.load("digits")[0][:num]


OPTIONS = {
    "batch_size": 32,
    "epochs": 3,
    "clip_norm": 0.5,
    "average": 0.9,
    "warmup": 2,
    "schedule": pv.training.schedules.Cosine(),
}


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adam, pytest.param(torch.optim.SGD, marks=pytest.mark.products)],
)
def test_steps_in_one_call_are_single_ones(monkeypatch, recordings, optimizer):
    """A batch that is not whole, and an optimiser without a function of ours, take single steps."""
    options = {**OPTIONS, "optimizer": partial(optimizer, fused=True), "validation": rows(40)}
    single = fitted(monkeypatch, 1, small_vae(), rows(32 * 20 + 5), **options)
    assert not recordings
    many = fitted(monkeypatch, 16, small_vae(), rows(32 * 20 + 5), **options)
    assert_same_bits(single, many)
    assert [made.is_sound for made in recordings] == [True] * (optimizer is torch.optim.Adam)


@pytest.mark.products  # each compiles
def test_an_interrupt_within_a_call_leaves_the_epoch_before(monkeypatch, recordings, tmp_path):
    """The run continues to the same bits, with a recording of its own."""
    data, options = rows(32 * 20), {**OPTIONS, "epochs": 4}
    whole = fitted(monkeypatch, 16, small_vae(), data, **options)
    repeated, calls = recording.Recording._repeated, []

    def interrupted(self, inputs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return repeated(self, inputs)

    monkeypatch.setattr(recording.Recording, "_repeated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(monkeypatch, 16, small_vae(), data, out=tmp_path / "run", **options)
    monkeypatch.setattr(recording.Recording, "_repeated", repeated)
    history, state = fitted(
        monkeypatch, 16, small_vae(), data, out=tmp_path / "run", resume=True, **options
    )
    assert_same_bits(whole, (history, state))
    assert [made.is_sound for made in recordings] == [True] * 3


def test_a_signal_ends_a_call_between_two_steps(recordings):
    """A step's own error too comes out as it is, and nothing after it is done."""
    loop, call, _ = recording.library([recording.LOOP, recording.PYTHON, recording.COPY])
    taken, number = [], torch.zeros((), dtype=torch.int64)

    def step():
        taken.append(number.item())
        if len(taken) == 3:
            raise KeyboardInterrupt

    words = torch.tensor(recording.words_of(call, id(step)))
    with pytest.raises(KeyboardInterrupt):
        loop(words, len(words), 10, number)
    assert taken == [0, 1, 2]


@pytest.mark.products  # each compiles
def test_what_differs_from_single_steps_is_not_repeated(monkeypatch, recordings):
    """A step in whose recording an operation is missing goes on as single steps."""
    data = rows(32 * 20)
    single = fitted(monkeypatch, 1, small_vae(), data, **OPTIONS)
    add = recording.Recorder.add

    def without_products(self, function, *arguments):
        if len(arguments) != 10:
            add(self, function, *arguments)

    monkeypatch.setattr(recording.Recorder, "add", without_products)
    many = fitted(monkeypatch, 16, small_vae(), data, **OPTIONS)
    assert [made.is_sound for made in recordings] == [False]
    assert_same_bits(single, many)


@pytest.mark.products  # each compiles
def test_a_step_that_needs_much_memory_is_not_recorded(monkeypatch, recordings):
    data = rows(32 * 20)
    single = fitted(monkeypatch, 1, small_vae(), data, **OPTIONS)
    for most in (100, 28_000):  # too few for the parameters, and for the intermediate tensors
        monkeypatch.setattr(recording, "MOST_BYTES", most)
        assert_same_bits(single, fitted(monkeypatch, 16, small_vae(), data, **OPTIONS))
    assert [made.is_sound for made in recordings] == [False, False]
    assert all(made.words is None for made in recordings)


@pytest.mark.products
@pytest.mark.parametrize("family, name", CASES)
def test_every_case_takes_the_same_steps_in_one_call(family, name, monkeypatch, recordings):
    start, data = case(family, name)
    data = tuple(
        map_tensors(lambda value: value.repeat(54, *[1] * (value.dim() - 1))[:320], part)
        for part in data
    )
    data = data if len(data) > 1 else data[0]
    ends = [
        fitted(monkeypatch, at_once, copy.deepcopy(start), data, batch_size=16, epochs=2)
        for at_once in (1, 16)
    ]
    assert_same_bits(*ends)
    print("SOUND", family, name, [made.is_sound for made in recordings])
