"""Callbacks between epochs, interrupts, and what a resumed run makes of both."""

import sys

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.training import Callback, EarlyStopping, LogLikelihood
from pyro_vae.validation import InvalidInput

X = (torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
TRAIN, HELD_OUT = X[:100], X[100:]


def fit(program, epochs=4, **options):
    return pv.fit(program, TRAIN, epochs=epochs, batch_size=32, compile="off", progress=False,
                  **options)  # fmt: skip


def same(first, second) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


class Diary(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def start(self, training):
        self.lines.append(f"start after {training.epoch}")

    def epoch(self, training):
        self.lines.append(f"epoch {training.epoch}")

    def log(self, training, scalars, step):
        self.lines.append(f"log {', '.join(scalars)} at {step}")

    def checkpoint(self, training):
        self.lines.append("checkpoint")

    def end(self, training):
        self.lines.append(training.ended)


class Noisy(Callback):
    """Draws random numbers and changes the program's mode, as callbacks may."""

    def epoch(self, training):
        torch.rand(5)
        training.program.eval()


class InterruptAt(Callback):
    def __init__(self, epoch):
        self.at = epoch

    def epoch(self, training):
        if training.epoch == self.at:
            raise KeyboardInterrupt


def test_a_callback_is_called_in_order(tmp_path):
    diary = Diary()
    fit(small_vae(), 2, callbacks=[diary], out=tmp_path, checkpoint_seconds=0.0)
    curves = "objective, learning_rate, kl_weight"
    assert diary.lines == [
        "checkpoint",  # of the first weights: a folder that cannot be written to is found out
        "start after 0",
        f"log {curves} at 4", "epoch 1", "checkpoint",
        f"log {curves} at 8", "epoch 2", "checkpoint",
        "checkpoint", "finished",
    ]  # fmt: skip
    again = Diary()
    fit(small_vae(), 3, callbacks=[again], out=tmp_path, resume=True)
    assert again.lines == [
        "start after 2", f"log {curves} at 12", "epoch 3", "checkpoint", "finished",
    ]  # fmt: skip


def test_callbacks_change_no_number_of_the_training():
    bare, watched = small_vae(), small_vae()
    score = LogLikelihood(HELD_OUT, num_samples=10)
    plain, seen = fit(bare), fit(watched, callbacks=[Noisy(), score, Diary()])
    assert same(bare, watched) and plain["objective"] == seen["objective"]
    curve = seen.logged["log_likelihood"]
    assert [epoch for epoch, _ in curve] == [1, 2, 3, 4]
    assert curve[-1][1] == pv.log_likelihood(watched, HELD_OUT, 10).mean


def test_a_callback_can_stop_and_log():
    class Stop(Callback):
        def epoch(self, training):
            training.log(twice=2.0 * training.epoch)
            if training.epoch == 2:
                training.stop("it has had enough")

    diary = Diary()
    history = fit(small_vae(), 9, callbacks=[Stop(), diary])
    assert len(history) == 2 and history.logged["twice"] == [(1, 2.0), (2, 4.0)]
    assert "log twice at 8" in diary.lines and diary.lines[-1] == "stopped"


def test_early_stopping_ends_with_the_weights_of_the_best_log_p():
    vae, stop = small_vae(), EarlyStopping(HELD_OUT, patience=2, num_samples=10)
    history = fit(vae, 60, learning_rate=0.1, callbacks=[stop])
    curve = history.logged["log_likelihood"]
    best, score = max(curve, key=lambda pair: pair[1])
    assert len(history) == best + 2 < 60
    assert pv.log_likelihood(vae, HELD_OUT, 10).mean == score


def test_early_stopping_is_refused_beside_validation_data():
    with pytest.raises(InvalidInput, match="only one of them can judge"):
        fit(small_vae(), callbacks=[EarlyStopping(HELD_OUT)], validation=HELD_OUT)


@pytest.mark.parametrize("wrong", [Diary, object(), print])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(InvalidInput, match=r"^callbacks: got "):
        fit(small_vae(), callbacks=[wrong])


@pytest.mark.parametrize("options", [{}, {"validation": HELD_OUT}], ids=["log p", "ELBO"])
def test_a_run_interrupted_in_a_callback_resumes_to_the_bit(tmp_path, options):
    def callbacks():
        if options:
            return [Noisy(), LogLikelihood(HELD_OUT, every=2, num_samples=10)]
        return [EarlyStopping(HELD_OUT, patience=3, num_samples=10)]

    whole, again = small_vae(), small_vae(seed=5)
    expected = fit(whole, 6, learning_rate=0.05, callbacks=callbacks(), **options)
    with pytest.raises(KeyboardInterrupt):
        stop = [*callbacks(), InterruptAt(3)]
        fit(small_vae(), 6, learning_rate=0.05, callbacks=stop, out=tmp_path, **options)
    saved = checkpoint.read_state(tmp_path, "training")[1]
    assert len(saved["history"]) == 2  # the third epoch is trained again, with its callbacks
    assert all(epoch <= 2 for curve in saved["logged"].values() for epoch, _ in curve)
    found = fit(
        again, 6, learning_rate=0.05, callbacks=callbacks(), out=tmp_path, resume=True, **options
    )
    assert same(whole, again)
    assert found.logged == expected.logged and found["objective"] == expected["objective"]


def test_at_a_prompt_an_interrupt_returns_what_was_learnt(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    two, vae, diary = small_vae(), small_vae(), Diary()
    fit(two, 2)
    history = fit(vae, 9, callbacks=[diary, InterruptAt(3)], out=tmp_path / "run")
    assert history.interrupted and len(history) == 2 and "interrupted" in repr(history)
    assert same(vae, two) and diary.lines[-1] == "interrupted"
    said = capsys.readouterr().err
    assert "interrupted after 2 of 9 epochs: the program has the weights of epoch 2" in said
    assert "resume=True (--resume)" in said and str(tmp_path / "run") in said
    rest = fit(small_vae(seed=3), 4, out=tmp_path / "run", resume=True)
    assert len(rest) == 4 and not rest.interrupted
    fit(small_vae(), 9, callbacks=[InterruptAt(1)])
    assert "has its first weights; train with out= (--out)" in capsys.readouterr().err


def test_a_callback_that_fails_leaves_the_last_checkpoint(tmp_path):
    class Fails(Callback):
        def epoch(self, training):
            if training.epoch == 3:
                raise OSError(28, "No space left on device")

    diary, whole, again = Diary(), small_vae(), small_vae(seed=2)
    with pytest.raises(OSError, match="No space"):
        fit(small_vae(), callbacks=[Fails(), diary], out=tmp_path, checkpoint_seconds=0.0)
    assert diary.lines[-1] == "failed"
    fit(whole)
    fit(again, out=tmp_path, resume=True)
    assert same(whole, again)


def test_a_history_shows_itself_and_draws_every_epoch():
    history = fit(small_vae(), 12, callbacks=[LogLikelihood(HELD_OUT, 3, num_samples=5)],
                  validation=HELD_OUT)  # fmt: skip
    page = history._repr_html_()
    assert "training, 12 epochs" in page and "log likelihood" in page and "nan" not in page
    from matplotlib.figure import Figure

    ax = history.plot(Figure().add_subplot())
    low, high = ax.get_ylim()
    assert low < min(history["objective"]) and max(history["objective"]) < high
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "training objective",
        "validation ELBO",
        "log p(x), held out",
    ]
    assert [len(line.get_xdata()) for line in ax.get_lines()] == [12, 12, 4]
    assert "nan" not in pv.training.History()._repr_html_()
