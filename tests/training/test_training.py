import contextlib
import copy
import csv
import multiprocessing
import os
import signal
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import CASES, case
from common import share_graphs, small_vae
from filelock import FileLock
from torch import nn

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.compilation.capture import Captured
from pyro_vae.training.history import TrainingDiverged
from pyro_vae.validation import InvalidInput


def digits(num=300):
    return pv.datasets.load("digits")[0][:num]


def weights(program):
    return {name: value.clone() for name, value in program.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} differs"


OPTIONS = dict(
    batch_size=64,
    progress=False,
    warmup=3,
    clip_norm=5.0,
    schedule=pv.training.schedules.Constant(),
)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_caller_alone():
    state = torch.random.get_rng_state()
    runs = []
    for seed in (1, 1, 2):
        program = small_vae()
        pv.fit(program, digits(), epochs=3, seed=seed, **OPTIONS)
        runs.append(weights(program))
    assert torch.equal(state, torch.random.get_rng_state())
    assert_same(runs[0], runs[1])
    with pytest.raises(AssertionError):
        assert_same(runs[0], runs[2])


@pytest.mark.parametrize("compile", ["on", "off"])
def test_compiling_is_said_while_it_happens(monkeypatch, compile):
    said = []

    @contextlib.contextmanager
    def noted(*args, **kwargs):
        yield lambda steps, note="": said.append(note)

    monkeypatch.setattr("pyro_vae.training.run.progress_bar", noted)
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: said.append("compiled"))
    pv.fit(small_vae(), digits(64), epochs=1, batch_size=64, compile=compile, progress=True)
    expected = ["compiling the step ...", "compiled"] if compile == "on" else [""]
    assert said[:-1] == expected and "objective" in said[-1]


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("validated", [False, True])
def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, optimizer, validated):
    data = digits()
    extra = dict(
        OPTIONS,
        optimizer=optimizer,
        learning_rate=1e-3,
        validation=data[:50] if validated else None,
        patience=50 if validated else None,
    )
    whole, parts = small_vae(), small_vae()
    full = pv.fit(whole, data, epochs=7, out=tmp_path / "whole", **extra)
    pv.fit(parts, data, epochs=4, out=tmp_path / "parts", **extra)
    again = small_vae(seed=9)  # whatever it starts from, the checkpoint decides
    history = pv.fit(again, data, epochs=7, out=tmp_path / "parts", resume=True, **extra)
    assert_same(weights(whole), weights(again))
    assert (
        history["objective"] == full["objective"]
        and history["validation_elbo"] == full["validation_elbo"]
    )
    assert_same(weights(pv.load(tmp_path / "parts")), weights(pv.load(tmp_path / "whole")))
    rows = list(csv.DictReader((tmp_path / "parts" / "metrics.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 8))


def test_a_resumed_run_keeps_the_order_of_parameters_in_memory(tmp_path):
    """A file has none, and the fused update reads a parameter and its moments in that of memory."""

    def columns_first():
        program = small_vae()
        for layer in program.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t())
        return program

    whole, again = columns_first(), columns_first()
    pv.fit(whole, digits(), epochs=4, **OPTIONS)
    pv.fit(columns_first(), digits(), epochs=2, out=tmp_path, **OPTIONS)
    pv.fit(again, digits(), epochs=4, out=tmp_path, resume=True, **OPTIONS)
    assert_same(weights(whole), weights(again))


RUN = dict(epochs=120, batch_size=32, progress=False, clip_norm=5.0, warmup=3)
# Processes that are forked from one that has imported everything: no test waits for that more than
# once.
SPAWNER = multiprocessing.get_context("forkserver")
SPAWNER.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "pyro_vae"])


def train_in(folder):
    pv.fit(
        small_vae(),
        digits(),
        out=folder,
        resume=checkpoint.exists(folder, "training"),
        checkpoint_seconds=0.05,
        **RUN,
    )


def start_training(folder):
    process = SPAWNER.Process(target=train_in, args=(folder,))
    process.start()
    return process


def test_killed_anywhere_and_resumed_it_ends_with_the_same_weights(tmp_path):
    whole = small_vae()
    pv.fit(whole, digits(), **RUN)
    kills = 0
    for delay in (0.3, 0.05):
        process = start_training(tmp_path / "run")
        deadline = time.monotonic() + 60
        before = progress(tmp_path / "run")
        while (
            progress(tmp_path / "run") == before
            and process.is_alive()
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        time.sleep(delay)
        kills += process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert kills, "the run was too fast to be killed"
    process = start_training(tmp_path / "run")
    process.join()
    assert process.exitcode == 0
    assert_same(weights(pv.load(tmp_path / "run")), weights(whole))


def progress(folder):
    try:
        return (folder / "training.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_resuming_with_other_settings_is_refused(tmp_path):
    pv.fit(small_vae(), digits(), epochs=1, out=tmp_path, **OPTIONS)
    for change, name in [
        ({"batch_size": 32}, "batch_size"),
        ({"clip_norm": 1.0}, "clip_norm"),
        ({"skip_norm": 1.0}, "skip_norm"),
        ({"average": 0.9}, "average"),
        ({"seed": 3}, "seed"),
    ]:
        with pytest.raises(InvalidInput, match=f"^{name}: got"):
            pv.fit(small_vae(), digits(), epochs=2, out=tmp_path, resume=True, **(OPTIONS | change))
    with pytest.raises(InvalidInput, match="data: got"):
        pv.fit(small_vae(), digits(299), epochs=2, out=tmp_path, resume=True, **OPTIONS)
    with pytest.raises(InvalidInput, match="program: got other components"):
        pv.fit(small_vae(hidden=17), digits(), epochs=2, out=tmp_path, resume=True, **OPTIONS)


def test_resuming_what_was_never_saved_starts_it_and_says_so(tmp_path, capsys):
    whole = small_vae()
    pv.fit(whole, digits(50), epochs=2, out=tmp_path / "whole", **OPTIONS)
    late, options = small_vae(), OPTIONS | {"progress": True}
    pv.fit(late, digits(50), epochs=2, out=tmp_path / "new", resume=True, **options)
    assert "holds no training yet, so it starts from the beginning" in capsys.readouterr().err
    assert_same(weights(late), weights(whole))


@pytest.mark.parametrize("resume", [False, True])
def test_half_a_first_checkpoint_is_taken_over(tmp_path, resume):
    """As version 0.1.0 left it, which wrote the program before the training's state."""
    pv.fit(small_vae(seed=5), digits(50), epochs=1, out=tmp_path, **OPTIONS)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "training.json").unlink()
    (tmp_path / "metrics.csv").unlink()
    whole, late = small_vae(), small_vae()
    pv.fit(whole, digits(50), epochs=2, **OPTIONS)
    pv.fit(late, digits(50), epochs=2, out=tmp_path, resume=resume, **OPTIONS)
    assert_same(weights(pv.load(tmp_path)), weights(whole))


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("whose", ["saved by hand", "its training was deleted", "metrics"])
def test_no_file_that_is_not_a_training_s_is_taken_over(tmp_path, whose, resume):
    if whose == "saved by hand":
        pv.save(small_vae(), tmp_path)
    elif whose == "metrics":
        (tmp_path / "metrics.csv").write_text("mine\n1\n")
    else:
        pv.fit(small_vae(), digits(50), epochs=1, out=tmp_path, **OPTIONS)
        (tmp_path / "training.json").unlink()
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    with pytest.raises(InvalidInput, match="no training to continue"):
        pv.fit(small_vae(), digits(50), epochs=1, out=tmp_path, resume=resume, **OPTIONS)
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_run_folder_in_use_is_refused(tmp_path):
    pv.fit(small_vae(), digits(), epochs=1, out=tmp_path / "a", **OPTIONS)
    kept = weights(pv.load(tmp_path / "a"))
    with pytest.raises(InvalidInput, match="holds a run already"):
        pv.fit(small_vae(seed=4), digits(), epochs=1, out=tmp_path / "a", **OPTIONS)
    assert_same(weights(pv.load(tmp_path / "a")), kept)
    (tmp_path / "b").mkdir()
    with FileLock(tmp_path / "b" / ".lock"), pytest.raises(InvalidInput, match="another process"):
        pv.fit(small_vae(), digits(), epochs=1, out=tmp_path / "b", **OPTIONS)


def test_every_batch_counts_every_datum_once():
    """At learning rate 0, an epoch's objective is the ELBO, whatever the last batch's size."""
    program, x = small_vae().double(), digits(70).x.double()
    history = pv.fit(program, x, epochs=400, batch_size=32, optimizer=still, progress=False)
    objective = torch.tensor(history["objective"])
    expected = pv.elbo(program, x, num_samples=2000)
    assert abs(objective.mean() - expected.mean) < 4 * objective.std() / 20


def still(parameters, lr):
    return torch.optim.SGD(parameters, lr=0.0)


def test_warm_up_and_schedule_follow_their_plan():
    data = digits(100)
    history = pv.fit(
        small_vae(),
        data,
        epochs=6,
        batch_size=50,
        warmup=4,
        schedule=pv.training.schedules.Exponential(0.01),
        progress=False,
    )
    assert history["kl_weight"] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert history["learning_rate"] == pytest.approx(
        [1e-3 * 0.01 ** ((2 * e + 1) / 12) for e in range(6)]
    )


def test_the_gradients_global_norm_is_clipped():
    norms = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
            return super().step(closure)

    pv.fit(
        small_vae(),
        digits(64),
        epochs=1,
        batch_size=16,
        optimizer=Spy,
        clip_norm=0.5,
        progress=False,
    )
    assert len(norms) == 4 and max(norms) == pytest.approx(0.5, rel=1e-4)


def test_early_stopping_keeps_the_best_weights(tmp_path):
    data = digits(60)
    program = small_vae()
    history = pv.fit(
        program,
        data[:40],
        epochs=400,
        learning_rate=0.05,
        batch_size=40,
        validation=data[40:],
        patience=5,
        progress=False,
        out=tmp_path,
    )
    scores = history["validation_elbo"]
    best = max(range(len(scores)), key=scores.__getitem__)
    assert len(history) == best + 1 + 5 < 400
    assert pv.elbo(program, data[40:], 1, seed=0).mean == pytest.approx(scores[best], rel=1e-6)
    assert_same(weights(program), weights(pv.load(tmp_path)))


def test_frozen_parameters_stay():
    program = small_vae()
    program.likelihood.requires_grad_(False)
    before = weights(program)
    pv.fit(program, digits(100), epochs=2, progress=False)
    after = weights(program)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("likelihood"), name


def test_dynamic_binarisation_is_drawn_anew_and_scores_are_not():
    data = digits(50)
    index = torch.arange(50)
    assert not torch.equal(data.batch(index)[0], data.batch(index)[0])
    assert torch.equal(data.x, digits(50).x)


class Explodes(torch.nn.Module):
    """A likelihood whose value or gradient breaks after seven steps of Adam."""

    event_shape = (1, 8, 8)

    def __init__(self, kind):
        super().__init__()
        self.kind, self.raw = kind, torch.nn.Parameter(torch.zeros(()))

    def forward(self, z, *, context=None):
        scale = torch.ones(())
        if self.raw.abs() > 0.0065:
            scale = (self.raw * 0).sqrt() + 1 if self.kind == "gradient" else self.raw * torch.nan
        loc = 0 * z.sum(-1)[..., None, None, None].expand(*z.shape[:-1], 1, 8, 8)
        return torch.distributions.Independent(
            torch.distributions.Normal(loc + self.raw, scale, validate_args=False), 3
        )


@pytest.mark.parametrize(
    "kind, where", [("value", "site 'x' of the model"), ("gradient", "parameter 'likelihood.raw'")]
)
def test_a_nan_stops_with_the_step_the_site_and_the_cause_and_keeps_the_checkpoint(
    tmp_path, kind, where
):
    program = small_vae()
    program.likelihood = Explodes(kind)
    x = 9 + torch.randn(40, 1, 8, 8)
    with pytest.raises(TrainingDiverged) as error:
        pv.fit(
            program, x, epochs=20, batch_size=10, progress=False, out=tmp_path, checkpoint_seconds=0
        )
    assert (
        where in str(error.value)
        and "learning_rate" in str(error.value)
        and "\n" not in str(error.value)
    )
    assert error.value.step == 7
    tensors, meta = checkpoint.read_state(tmp_path, "training")
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert len(meta["history"]) == 1 and str(tmp_path) in str(error.value)
    kept = {
        name.removeprefix("program."): value
        for name, value in tensors.items()
        if name.startswith("program.")
    }
    assert_same(weights(program), kept)  # the program itself is back where it was, too


class Peaked(nn.Module):
    """A Beta density around a mode, as a first likelihood of one's own may be."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.head = (3,), nn.Linear(2, 3)

    def forward(self, z, context=None):
        mode = self.head(z).sigmoid()
        return dist.Beta(1 + 10 * mode, 11 - 10 * mode).to_event(1)


def test_data_at_the_edge_of_a_support_are_named_as_the_cause():
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        Peaked(),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    x = torch.rand(20, 3).round(decimals=1)
    x[0] = torch.tensor([0.0, 0.5, 1.0])
    with pytest.raises(TrainingDiverged, match=r"'x' of the model; it has values at the edge"):
        pv.fit(vae, x, epochs=1, progress=False)
    pv.fit(vae, 0.98 * x + 0.01, epochs=1, progress=False)


def test_a_full_disk_during_training_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    pv.fit(small_vae(), digits(100), epochs=2, out=tmp_path, **OPTIONS)
    kept = weights(pv.load(tmp_path))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(checkpoint.CheckpointError, match="No space left"):
        pv.fit(small_vae(), digits(100), epochs=4, out=tmp_path, resume=True, **OPTIONS)
    monkeypatch.undo()
    assert_same(weights(pv.load(tmp_path)), kept)
    assert (
        len(pv.fit(small_vae(), digits(100), epochs=4, out=tmp_path, resume=True, **OPTIONS)) == 4
    )


def test_an_interrupted_run_saves_the_last_whole_epoch(tmp_path):
    calls = []

    class Interrupted(torch.optim.SGD):
        def step(self, closure=None):
            calls.append(1)
            if len(calls) == 8:
                raise KeyboardInterrupt
            return super().step(closure)

    with pytest.raises(KeyboardInterrupt):
        pv.fit(
            small_vae(),
            digits(100),
            epochs=9,
            batch_size=32,
            optimizer=Interrupted,
            progress=False,
            out=tmp_path,
        )
    assert len(checkpoint.read_state(tmp_path, "training")[1]["history"]) == 1


def test_the_run_folder_holds_metrics_and_tensorboard_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 4):  # the second run goes on where the first one ends
        history = pv.fit(
            small_vae(), digits(100), epochs=epochs, out=tmp_path, resume=epochs == 4,
            callbacks=[pv.training.TensorBoard()], **OPTIONS
        )  # fmt: skip
    assert (tmp_path / "metrics.csv").read_text().startswith("epoch,step,seconds,objective,")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("objective")] == history["step"]
    assert [event.value for event in events.Scalars("objective")] == pytest.approx(
        history["objective"], rel=1e-6
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"patience": 3}, "validation"),
        ({"device": "tpu"}, "device"),
        ({"resume": True}, "run folder"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"skip_norm": 0.0}, "skip_norm"),
        ({"average": 1.0}, "average"),
        ({"seed": -1}, "seed"),
        ({"patience": 0}, "patience"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InvalidInput, match=message):
        pv.fit(small_vae(), digits(20), progress=False, **change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_cuda():
    with pytest.raises(InvalidInput, match="no usable CUDA GPU"):
        pv.fit(small_vae(), digits(20), device="cuda")


def test_a_program_without_parameters_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, 8, 8), 1.0).to_event(3))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(3))

    with pytest.raises(InvalidInput, match="no trainable parameters"):
        pv.fit(pv.Program(model, guide, event_shape=(1, 8, 8)), digits(20), progress=False)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": pv.objectives.ELBO(num_particles=4)},
        {"optimizer": torch.optim.NAdam},
        {"optimizer": torch.optim.Rprop},
        {"schedule": pv.training.schedules.Cosine(), "epochs": 4},
    ],
    ids=["particles", "NAdam", "Rprop", "cosine"],
)
def test_resuming_keeps_everything_that_an_objective_and_an_optimiser_keep(tmp_path, options):
    epochs = options.pop("epochs", 4)
    whole, parts = small_vae(), small_vae()
    pv.fit(whole, digits(100), epochs=epochs, batch_size=40, progress=False, **options)
    calls = []

    def stop_in_the_third_epoch(*args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return batch(*args)

    data = digits(100)
    batch = data.batch
    data.to = lambda *args: data
    data.batch = stop_in_the_third_epoch
    with pytest.raises(KeyboardInterrupt):
        pv.fit(parts, data, epochs=epochs, batch_size=40, progress=False, out=tmp_path, **options)
    again = small_vae(seed=3)
    assert (
        len(
            pv.fit(
                again,
                digits(100),
                epochs=epochs,
                batch_size=40,
                progress=False,
                out=tmp_path,
                resume=True,
                **options,
            )
        )
        == 4
    )
    assert_same(weights(whole), weights(again))


def test_resuming_with_other_parameters_frozen_is_refused(tmp_path):
    program = small_vae()
    program.posterior.requires_grad_(False)
    pv.fit(program, digits(50), epochs=1, progress=False, out=tmp_path)
    with pytest.raises(InvalidInput, match="trainable: got"):
        pv.fit(small_vae(), digits(50), epochs=2, progress=False, out=tmp_path, resume=True)


def test_training_modes_and_gradients_are_left_as_they_were():
    program = small_vae().eval()
    pv.fit(program, digits(50), epochs=1, progress=False)
    assert not program.training and all(p.grad is None for p in program.parameters())


def test_the_loss_per_datum_has_nothing_of_the_scale_of_the_data_plate():
    def losses(size):
        vae = small_vae(seed=3)

        def model(x):
            with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
                z = pyro.sample("z", vae.prior())
                pyro.sample("x", vae.likelihood(z), obs=x)

        def guide(x):
            with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
                pyro.sample("z", vae.posterior(x))

        program = pv.Program(model, guide)
        return pv.fit(program, digits(50), batch_size=20, epochs=2, progress=False)["objective"]

    assert losses(1000) == pytest.approx(losses(None), rel=1e-6)


def test_functions_without_their_modules_are_refused():
    vae = small_vae()
    other = torch.nn.Linear(1, 1)
    with pytest.raises(InvalidInput, match=r"parameters of 'model\.__self__', which"):
        strange = pv.Program(vae.model, vae.guide, modules=other, event_shape=(1, 8, 8))
        pv.fit(strange, digits(50), progress=False)
    vae.requires_grad_(False)
    with pytest.raises(InvalidInput, match="depends on no parameter"):
        strange = pv.Program(vae.model, vae.guide, modules=other, event_shape=(1, 8, 8))
        pv.fit(strange, digits(50), progress=False)


def test_a_lambda_cannot_be_compared_on_resume(tmp_path):
    with pytest.raises(InvalidInput, match="lambda"):
        pv.fit(small_vae(), digits(50), progress=False, schedule=lambda done: 1.0, out=tmp_path)


@pytest.mark.parametrize("compile", ["off", "on"])
@pytest.mark.parametrize("family, name", [*CASES, ("own", "einsum")])
def test_the_fused_update_is_that_of_a_loop(family, name, compile, monkeypatch):
    """Whatever a gradient's layout in memory: the kernel reads it as it reads the parameter."""
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)
    program, data = case("program", "vae") if family == "own" else case(family, name)
    if family == "own":
        program.likelihood.network = Transposing(program.likelihood.network)
    state = [*program.parameters(), *program.buffers()]
    start = [tensor.detach().clone() for tensor in state]
    ends = []
    share_graphs(monkeypatch)
    for options in ({}, {"optimizer": torch.optim.Adam}):
        with torch.no_grad():
            for tensor, value in zip(state, start):
                tensor.copy_(value)
        given = data if len(data) > 1 else data[0]
        pv.fit(program, given, epochs=2, compile=compile, progress=False, **options)
        ends.append(copy.deepcopy(program.state_dict()))
    for (key, value), expected in zip(ends[0].items(), ends[1].values()):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, equal_nan=True, msg=key)


class Transposing(torch.nn.Module):
    """A layer more, whose weight's gradient comes with its dimensions in the other order."""

    def __init__(self, network):
        super().__init__()
        self.network, self.out_shape = network, network.out_shape
        self.weight = torch.nn.Parameter(torch.eye(2, 2) + 0.1 * torch.arange(4.0).reshape(2, 2))

    def forward(self, z):
        return self.network(torch.einsum("...i,oi->...o", z, self.weight))


def test_a_distribution_that_refuses_what_diverged_is_a_diverged_run():
    program, (x, labels) = case("program", "semi-supervised")
    before = copy.deepcopy(program.state_dict())
    with pytest.raises(TrainingDiverged, match="parameter"):
        pv.fit(
            program,
            (x.repeat(9, 1, 1, 1), labels.repeat(9)),
            batch_size=6,
            epochs=3,
            learning_rate=1e12,
            progress=False,
        )
    assert all(torch.equal(value, before[key]) for key, value in program.state_dict().items())


def test_validation_data_are_checked_before_training():
    with pytest.raises(InvalidInput):
        pv.fit(
            small_vae(),
            torch.zeros(40, 1, 8, 8),
            validation=torch.zeros(4, 1, 7, 7),
            epochs=10**9,
            progress=False,
        )


@pytest.mark.parametrize(
    "optimizer, said",
    [
        (lambda parameters, lr: torch.optim.SGD(parameters, lr=-1), "refuses .*learning rate"),
        (torch.optim.LBFGS, "needs the loss several times"),
        pytest.param(
            getattr(torch.optim, "Muon", None),
            "refuses .*2D",
            marks=pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="an older torch"),
        ),
    ],
)
def test_an_optimiser_that_cannot_be_used_is_refused(optimizer, said):
    with pytest.raises(InvalidInput, match=f"optimizer: got .*{said}"):
        pv.fit(small_vae(), torch.rand(8, 1, 8, 8).round(), optimizer=optimizer, progress=False)


def test_a_run_is_not_resumed_for_fewer_epochs_than_it_has(tmp_path):
    def fit(epochs, resume=True):
        again = dict(OPTIONS, out=tmp_path, resume=resume, compile="off")
        return pv.fit(small_vae(), digits(50), epochs=epochs, **again)

    fit(3, resume=False)
    with pytest.raises(InvalidInput, match="epochs: got 2, expected 3 or more"):
        fit(2)
    assert [len(fit(epochs)) for epochs in (3, 4)] == [3, 4]
