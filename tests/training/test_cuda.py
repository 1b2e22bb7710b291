"""Training and scoring on a GPU; on an emulated one (`emulated_cuda`) where there is none."""

import contextlib
import copy

import pyro
import pytest
import torch
from cases import CASES, PROGRAMS, RESULTS, case
from common import HAS_GPU, share_graphs, small_vae
from emulated_cuda import emulated_cuda

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.compilation.capture import Captured
from pyro_vae.distributions import NoDraws
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.training import several
from pyro_vae.training.steps import GradientSteps
from pyro_vae.validation import InvalidInput, map_tensors


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    if HAS_GPU:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        yield
    else:  # as slow as the host: a block is full, whatever the number of data
        monkeypatch.setitem(BLOCK_BYTES, "cuda", 2**20)
        with emulated_cuda(monkeypatch):
            yield


def digits(num=700):
    return pv.datasets.load("digits")[0][:num]


def fitted(compile, monkeypatch, steps_at_once=16, **options):
    monkeypatch.setattr(several, "STEPS_AT_ONCE", steps_at_once)
    program = small_vae()
    history = pv.fit(
        program,
        digits(),
        batch_size=32,
        epochs=4,
        device="cuda",
        compile=compile,
        progress=False,
        warmup=2,
        schedule=pv.training.schedules.Cosine(),
        **options,
    )
    return program, history


def test_a_compiled_run_follows_the_eager_one(monkeypatch):
    (a, eager), (b, compiled) = fitted("off", monkeypatch), fitted("on", monkeypatch)
    assert compiled["objective"] == pytest.approx(eager["objective"], rel=1e-3)
    for (name, p), q in zip(a.state_dict().items(), b.state_dict().values()):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-2, msg=name)


def test_steps_in_one_graph_are_the_steps_one_by_one(monkeypatch):
    (a, one), (b, many) = (
        fitted("on", monkeypatch, steps_at_once=10**9),
        fitted("on", monkeypatch, steps_at_once=5),
    )
    assert many["objective"] == pytest.approx(one["objective"], rel=1e-5)
    for (name, p), q in zip(a.state_dict().items(), b.state_dict().values()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("batch_size, num", [(21, 336), (32, 1000), (32, 32 * 31 + 5)])
def test_every_batch_of_an_epoch_counts_once(batch_size, num, monkeypatch):
    """Also rows at odd addresses, and a smaller batch in the place of a graph's last step."""
    runs = []
    for steps_at_once in (10**9, 16):
        monkeypatch.setattr(several, "STEPS_AT_ONCE", steps_at_once)
        program = small_vae()
        history = pv.fit(
            program,
            digits(num),
            batch_size=batch_size,
            epochs=3,
            device="cuda",
            compile="on",
            progress=False,
        )
        runs.append(history["objective"])
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 1.0}, {"autocast": True}, {"optimizer": torch.optim.SGD}], ids=str
)
def test_settings_hold_in_a_graph_of_steps(options, monkeypatch):
    (_, one), (_, many) = (fitted("on", monkeypatch, steps, **options) for steps in (10**9, 5))
    assert many["objective"] == pytest.approx(one["objective"], rel=1e-4)


# On a real device each is compiled: programs alone then, for the sake of time.
@pytest.mark.parametrize(
    "family, name", [("program", name) for name in PROGRAMS] if HAS_GPU else CASES
)
def test_every_part_trains_in_a_graph_of_steps(family, name, monkeypatch):
    """The buffers too are those of the steps one by one: running statistics, dropout, flows."""
    if name == "AutoregressiveCategorical" and not HAS_GPU:
        pytest.skip("the emulated device cannot undo what its first launch writes")
    program, data = case(family, name)
    data = tuple(
        map_tensors(lambda value: value.repeat(54, *[1] * (value.dim() - 1))[:160], part)
        for part in data
    )
    state = [*program.cuda().parameters(), *program.buffers()]
    start = [tensor.detach().clone() for tensor in state]
    ends, graphs, record = [], [], several.Replay.__init__
    monkeypatch.setattr(
        several.Replay,
        "__init__",
        lambda self, *what: (graphs.append(self), record(self, *what))[1],
    )
    share_graphs(monkeypatch)
    for steps_at_once in (10**9, 2):  # two single steps, then three graphs and a step between
        monkeypatch.setattr(several, "STEPS_AT_ONCE", steps_at_once)
        with torch.no_grad():
            for tensor, value in zip(state, start):
                tensor.copy_(value)
        pv.fit(
            program,
            data if len(data) > 1 else data[0],
            batch_size=32,
            epochs=2,
            device="cuda",
            compile="on",
            progress=False,
        )
        ends.append(copy.deepcopy(program.state_dict()))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4, msg=key)
    if (
        name != "LowRankNormal"
    ):  # whose factorisation is checked, for which it waits, in a graph of some versions of torch
        draws_categories = [
            ("program", "semi-supervised"),
            ("priors", "Categorical"),
            ("posteriors", "EnumeratedCategorical"),
            ("priors", "GaussianProcess"),  # whose factorisation is checked likewise
        ]
        assert bool(graphs) == ((family, name) not in draws_categories)


@pytest.mark.parametrize(
    "function, fits",
    [
        (lambda x: x * torch.rand_like(x), True),
        (
            lambda x: x * torch.rand(()),
            False,
        ),  # a draw of the host, which would be the same in each launch
        (lambda x: x + torch.arange(3.0).to(x.device), False),
        (lambda x: torch.distributions.OneHotCategorical(x.softmax(-1)).sample(), False),
    ],
)
def test_only_what_stays_on_the_device_fits_a_graph(function, fits):
    assert Captured(function, [torch.ones(2, 3, device="cuda")]).fits_cuda_graph == fits


def test_what_draws_categories_trains_without_a_graph_of_steps():
    program, (labels,) = (
        copy.deepcopy(PROGRAMS["semi-supervised"][0]),
        PROGRAMS["semi-supervised"][1],
    )
    data = (digits(320).x, labels.repeat(54)[:320])
    assert (
        len(
            pv.fit(
                program, data, batch_size=16, epochs=2, device="cuda", compile="on", progress=False
            )
        )
        == 2
    )


def test_a_run_with_graphs_is_the_same_twice_and_draws_anew_in_each_launch(monkeypatch):
    (_, a), (_, b), (_, c) = (
        fitted("on", monkeypatch, 5, seed=seed, learning_rate=1e-12) for seed in (1, 1, 2)
    )
    assert a["objective"] == b["objective"] != c["objective"]
    assert (
        len(set(a["objective"])) == 4
    )  # the weights hardly move, so what differs is what was drawn


def test_compiled_svi_follows_pyros():
    x = digits(64).x.cuda()
    a, b = small_vae().cuda(), small_vae().cuda()
    pyro.clear_param_store()

    def guide(x):
        pyro.module("vae", a)
        return a.guide(x)

    svi = pyro.infer.SVI(a.model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
    ours = pv.CompiledSVI(
        b.model,
        b.guide,
        torch.optim.Adam(b.parameters(), lr=1e-3, fused=True),
        pyro.infer.Trace_ELBO(),
    )
    curves = []
    for step in (svi.step, ours.step):
        torch.manual_seed(5)
        curves.append([step(x) for _ in range(30)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    pyro.clear_param_store()


def test_a_replayed_epoch_never_waits_for_the_device(monkeypatch):
    run = GradientSteps.run
    seen = []

    def watched(self, epoch, stop=None):
        if epoch < 2 or self.several.replay is None:  # compiled and recorded by then
            return run(self, epoch, stop)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with monkeypatch.context() as inner:
                torch.cuda.set_sync_debug_mode("default")
                prepared = list(self.loads(epoch))  # order and rates are sent to the device once
                torch.cuda.set_sync_debug_mode("error")
                inner.setattr(self, "loads", lambda epoch: (few for few in prepared))
                return run(self, epoch, stop)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            seen.append(epoch)

    monkeypatch.setattr(GradientSteps, "run", watched)
    fitted("on", monkeypatch)
    assert seen == [2, 3]


def test_scores_are_those_of_the_same_draws():
    program = small_vae().cuda()
    eager, compiled = (
        pv.elbo(program, digits(20), 100, compile=way).values for way in ("off", "on")
    )
    torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-4)


def test_a_binarised_batch_is_the_same_on_every_device():
    keys = torch.tensor([5, -7], dtype=torch.int32)
    data, index = digits(50), torch.arange(50)
    assert torch.equal(
        data.batch(index, keys)[0], data.to("cuda").batch(index.cuda(), keys.cuda())[0].cpu()
    )


def test_resuming_goes_on_where_it_stopped(tmp_path):
    options = dict(batch_size=32, device="cuda", compile="on", progress=False)
    whole, parts = small_vae(), small_vae()
    pv.fit(whole, digits(), epochs=4, out=tmp_path / "a", **options)
    pv.fit(parts, digits(), epochs=2, out=tmp_path / "b", **options)
    pv.fit(parts, digits(), epochs=4, out=tmp_path / "b", resume=True, **options)
    for (name, p), q in zip(whole.state_dict().items(), parts.state_dict().values()):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "optimizer", [torch.optim.Adam, torch.optim.SGD], ids=lambda cls: cls.__name__
)
def test_an_optimiser_of_loops_resumes_too(optimizer, tmp_path):
    """It counts its steps on the host, where a kernel counts them on the device."""
    options = dict(batch_size=32, device="cuda", optimizer=optimizer, progress=False)
    whole, parts = small_vae(), small_vae()
    pv.fit(whole, digits(64), epochs=2, out=tmp_path / "a", **options)
    pv.fit(parts, digits(64), epochs=1, out=tmp_path / "b", **options)
    pv.fit(parts, digits(64), epochs=2, out=tmp_path / "b", resume=True, **options)
    for (name, p), q in zip(whole.state_dict().items(), parts.state_dict().values()):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("family, name", CASES)
def test_every_part_trains_scores_and_generates(family, name):
    program, (x, *context) = case(family, name)
    data = (x, *context) if context else x
    pv.fit(program, data, epochs=2, device="cuda", progress=False)
    assert all(p.is_cuda for p in [*program.parameters(), *program.buffers()])
    assert pv.reconstruct(program, data).is_cuda
    with contextlib.suppress(NoBound):  # of a point, on any device
        assert all(
            score.values.is_cuda
            for score in (pv.elbo(program, data, 3), pv.log_likelihood(program, data, 3))
        )
    with contextlib.suppress(NoDraws):
        assert pv.generate(program, len(x), context=context[0] if context else None).is_cuda


@pytest.mark.parametrize("objective", pv.objectives.__all__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_objective_trains(name, objective):
    program, (x, *context) = case("program", name)
    data = (x, *context) if context else x
    try:
        history = pv.fit(
            program,
            data,
            epochs=1,
            objective=getattr(pv.objectives, objective)(),
            device="cuda",
            progress=False,
        )
    except InvalidInput as refusal:
        assert objective != "ELBO"
        pytest.skip(f"refused: {refusal}")
    assert len(history) == 1


@pytest.mark.parametrize("name", RESULTS)
def test_every_measurement_is_the_hosts(name):
    host = small_vae()
    there, here = (RESULTS[name](program) for program in (copy.deepcopy(host).cuda(), host))
    assert pv.evaluation.to_dict(there).keys() == pv.evaluation.to_dict(here).keys()
    assert (
        len(pv.evaluation.to_inference_data({"result": there, "x": digits(3).x}).scores.attrs) > 0
    )


@pytest.mark.filterwarnings("ignore::pyro_vae.diagnostics.inference_data.UnreliableDraws")
@pytest.mark.parametrize(
    "draws",
    [
        pv.diagnostics.FromGuide(),
        pv.diagnostics.Resampled(),
        pv.diagnostics.NUTS(num_chains=2, warmup=5),
    ],
    ids=lambda draws: type(draws).__name__,
)
def test_every_kind_of_draws_comes_to_the_host(draws):
    found = pv.to_inference_data(small_vae().cuda(), digits(2), 10, sampler=draws)
    assert found.posterior["z"].shape[-2:] == (2, 2)


def test_the_command_line_from_training_to_the_report(tmp_path, capsys):
    run, table = str(tmp_path / "run"), ["--num-samples", "10", "--limit", "20"]
    sizes = ["--latent", "2", "--encoder.hidden", "[16]", "--decoder.hidden", "[16]"]
    for command in (
        [
            "train",
            "--out",
            run,
            "--device",
            "cuda",
            "--epochs",
            "2",
            "--context",
            "labels",
            "--validation",
            "100",
            *sizes,
            *table,
        ],
        ["train", "--out", run, "--device", "cuda", "--epochs", "3", "--resume", *table],
        ["evaluate", run, "--device", "cuda", *table],
        [
            "evaluate",
            run,
            "--device",
            "cuda",
            "--proposal",
            "Refined",
            "--proposal.steps",
            "2",
            *table,
        ],
        ["inspect", run, "--device", "cuda", "--reference", "0", *table, "--limit", "60"],
        ["sample", run, "--device", "cuda", "--num", "10", "--out", str(tmp_path / "x.npz")],
        ["report", run],
    ):
        assert main(command) == 0, capsys.readouterr().err
