"""Threads of one process take turns: each gets the numbers that it would get alone."""

import threading
import warnings

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae import contracts


def in_threads(*jobs):
    """What the jobs return or raise, each in a thread of its own, all started at once."""
    found, ready = [None] * len(jobs), threading.Barrier(len(jobs))

    def work(i, job):
        ready.wait()
        try:
            found[i] = job()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=each) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def training(seed, folder=None):
    """A job that trains a program, which is made here: its weights are drawn by its own thread."""
    program, data = small_vae(seed=seed), pv.datasets.load("digits")[0][:60]
    options = dict(epochs=3, batch_size=20, seed=seed, out=folder, progress=False)

    def job():
        pv.fit(program, data, **options)
        return torch.cat([value.flatten() for value in program.state_dict().values()])

    return job


def scoring(seed):
    program, data = small_vae(seed=seed), pv.datasets.load("digits")[1][:30]
    return lambda: pv.elbo(program, data, 20, seed=seed).values


def loaded(folder):
    return [pv.load(folder) for _ in range(5)][-1].prior


def test_threads_train_and_score_as_one_after_the_other(tmp_path):
    pv.save(small_vae(), tmp_path)

    def jobs():
        return [*map(training, (0, 1)), *map(scoring, (2, 3, 4))]

    alone = [job() for job in jobs()]
    state = torch.get_rng_state()
    together = in_threads(*jobs(), lambda: loaded(tmp_path))
    assert not isinstance(together.pop(), Exception)
    for one, other in zip(alone, together):
        assert torch.equal(one, other), other
    assert torch.equal(torch.get_rng_state(), state)


def test_one_folder_is_claimed_by_one_thread(tmp_path):
    first, second = in_threads(*[training(seed, tmp_path) for seed in (0, 1)])
    refused = [each for each in (first, second) if isinstance(each, Exception)]
    assert len(refused) == 1
    assert "in which another process or thread is training" in str(refused[0]) or (
        "holds a run already" in str(refused[0])
    )


def test_a_thread_that_waits_says_for_what(monkeypatch):
    monkeypatch.setattr(contracts, "SOON", 0.01)
    holds, ends, warn = threading.Event(), threading.Event(), warnings.warn

    def warn_and_go_on(message, *args, **kwargs):
        if "another thread" in str(message):
            ends.set()
        warn(message, *args, **kwargs)

    monkeypatch.setattr(warnings, "warn", warn_and_go_on)

    def hold():
        with contracts.alone(), contracts.alone():  # a thread may enter again
            holds.set()
            ends.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(30)
    with pytest.warns(UserWarning, match="another thread"):
        scoring(0)()
    thread.join()
