import copy
import functools
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import pyro
import pytest
import torch
from cases import CASES, PARTS, PROGRAMS, case
from common import small_vae
from pyro.infer import SVI, Trace_ELBO

import pyro_vae as pv
from pyro_vae.compilation import inductor
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import Work, is_worth_compiling
from pyro_vae.compilation.cpp import library
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.matmul import PRODUCT, can_run_our_products
from pyro_vae.compilation.optimizer import Update
from pyro_vae.compilation.passes import CannotCapture
from pyro_vae.objectives.kl_weight import weigh_latents
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
least_torch = pytest.mark.least_torch  # what touches torch's internals most
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler on this machine"
)


def digits(num=300):
    return pv.datasets.load("digits")[0][:num]


@pytest.fixture
def interpreted(monkeypatch):
    """The captured graph without a compiler: the same bits as eager."""
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)


def step_of(program, objective, compiled, names=None):
    """A step whose inputs are x, and a context or its entries of these names."""

    def loss(x, *given):
        context = dict(zip(names, given)) if names is not None else (given or (None,))[0]
        kl_weight = given[1] if names is None and len(given) > 1 else None
        model, guide = program.model, program.guide
        if kl_weight is not None:
            model, guide = (weigh_latents(fn, kl_weight) for fn in (model, guide))
        return objective.differentiable_loss(model, guide, x, context)

    parameters = [p for p in program.parameters() if p.requires_grad]
    return LossAndGradients(loss, parameters, lambda n: compiled)


def assert_same(eager, captured, *inputs, exactly=True):
    torch.manual_seed(7)
    expected = eager(*inputs)
    torch.manual_seed(7)
    got = captured(*inputs)
    assert captured.captured(*inputs) is not None, "nothing was captured"
    for e, g in zip((expected[0], *expected[1]), (got[0], *got[1])):
        if exactly:
            assert torch.equal(e, g)
        else:
            torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5 * max(1.0, e.abs().max().item()))


def assert_captured_is_eager(family, name, objective, dtype=torch.float32, exactly=True):
    """The same loss, gradients and buffers on the same random numbers, or the same refusal."""
    eager, (x, *context) = case(family, name)
    names = list(context[0]) if context and isinstance(context[0], dict) else None
    eager, x, bound = eager.to(dtype), x.to(dtype), getattr(pv.objectives, objective)()
    try:
        bound.loss(
            eager.model, eager.guide, x, *context
        )  # the first call finds the plates, with random numbers of its own
    except InvalidInput as refusal:
        assert objective != "ELBO", "which refuses nothing"
        pytest.skip(f"refused: {refusal}")
    captured = copy.deepcopy(eager)
    steps = step_of(eager, bound, False, names), step_of(captured, bound, True, names)
    inputs = context if names is None else context[0].values()
    assert_same(*steps, x, *inputs, exactly=exactly)
    # What the forward pass writes, it wrote once: the capture itself left no trace.
    for (key, value), other in zip(eager.state_dict().items(), captured.state_dict().values()):
        torch.testing.assert_close(
            other, value, **({"rtol": 0, "atol": 0} if exactly else {}), equal_nan=True, msg=key
        )


def test_every_class_of_programs_is_among_the_cases():
    known = {type(program).__name__ for program, _ in PROGRAMS.values()}
    of_several_sites = {"MultimodalVAE"}  # whose data are no tensor: programs/test_multimodal.py
    assert known | of_several_sites >= set(pv.programs.__all__)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("objective", pv.objectives.__all__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_captured_graph_equals_eager_to_the_bit(name, objective):
    assert_captured_is_eager("program", name, objective)


def curve(name, compiled):
    """The losses of 200 steps of Adam."""
    program, inputs = case("program", name)
    bound = pv.objectives.ELBO()
    bound.loss(program.model, program.guide, *inputs)
    step, parameters = step_of(program, bound, compiled), list(program.parameters())
    update, losses = Update(torch.optim.Adam(parameters, lr=1e-3, fused=True), parameters), []
    for i in range(200):
        torch.manual_seed(i)
        loss, gradients = step(*inputs)
        update(gradients)
        losses.append(loss)
    return torch.stack(losses)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", PROGRAMS)
def test_two_hundred_captured_steps_are_the_eager_ones_to_the_bit(name):
    torch.manual_seed(0)
    eager = curve(name, False)
    torch.manual_seed(0)
    assert torch.equal(curve(name, True), eager)


@least_torch
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_captured_graph_equals_eager_in_double_precision(name):
    assert_captured_is_eager("program", name, "ELBO", torch.float64)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("family, name", PARTS)
def test_the_captured_graph_of_every_part_equals_eager_to_the_bit(family, name):
    assert_captured_is_eager(family, name, "ELBO")


@pytest.mark.products
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("objective", pv.objectives.__all__)
@pytest.mark.parametrize("family, name", PARTS)
def test_every_part_and_objective_captured_equals_eager_to_the_bit(family, name, objective):
    assert_captured_is_eager(family, name, objective)


@needs_compiler
@pytest.mark.products
@pytest.mark.parametrize("objective", pv.objectives.__all__)
@pytest.mark.parametrize("family, name", CASES)
def test_every_program_and_objective_compiled_equals_eager(family, name, objective):
    assert_captured_is_eager(family, name, objective, exactly=False)


@needs_compiler
@pytest.mark.products
@pytest.mark.parametrize("family, name", CASES)
def test_every_program_compiled_follows_the_same_curve_for_200_steps(family, name):
    eager, data = case(family, name)
    compiled = copy.deepcopy(eager)
    data = data if len(data) > 1 else data[0]
    curves = [
        pv.fit(program, data, epochs=200, compile=way, learning_rate=1e-4, progress=False)[
            "objective"
        ]
        for program, way in ((eager, "off"), (compiled, "on"))
    ]
    assert len(curves[0]) == 200 and curves[1] == pytest.approx(curves[0], rel=1e-3)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", PROGRAMS)
def test_captured_scores_equal_eager_ones(name, monkeypatch):
    program, context = PROGRAMS[name]
    data = torch.bernoulli(torch.rand(6, 1, 8, 8)), *context
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 1)  # one draw at a time: many runs of one shape
    options = dict(num_samples=7)
    eager, captured = (
        pv.log_likelihood(program, data if context else data[0], compile=way, **options)
        for way in ("off", "on")
    )
    assert torch.equal(eager.values, captured.values) and torch.equal(eager.ess, captured.ess)


@pytest.mark.usefixtures("interpreted")
def test_a_captured_score_names_datum_and_site_of_a_weight_that_is_none():
    program = small_vae()
    x = torch.bernoulli(torch.rand(4, 1, 8, 8))
    with torch.no_grad():
        program.likelihood.network(torch.zeros(1, 2))
        next(p for p in program.likelihood.parameters() if p.shape[-1:] == (64,)).fill_(torch.nan)
    errors = []
    for way in ("off", "on"):
        with pytest.raises(InvalidInput, match="datum 0, first at site 'x'") as error:
            pv.log_likelihood(program, x, 3, compile=way)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


@needs_compiler
def test_compiled_scores_are_eager_ones_on_the_same_draws():
    x = torch.bernoulli(torch.rand(5, 1, 8, 8))
    eager, compiled = (pv.elbo(small_vae(), x, 10, compile=way) for way in ("off", "on"))
    torch.testing.assert_close(compiled.values, eager.values, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("interpreted")
def test_sampling_is_fresh_each_step_and_under_the_seed():
    step = step_of(small_vae(), pv.objectives.ELBO(), True)
    x = torch.zeros(6, 1, 8, 8)
    torch.manual_seed(1)
    a, b = step(x)[0], step(x)[0]
    torch.manual_seed(1)
    assert torch.equal(step(x)[0], a) and not torch.equal(a, b)


@least_torch
@pytest.mark.usefixtures("interpreted")
def test_the_annealing_weight_is_an_input_and_parameters_are_read_anew():
    program, x = small_vae(), torch.zeros(6, 1, 8, 8)
    step, eager = (
        step_of(program, pv.objectives.ELBO(), True),
        step_of(program, pv.objectives.ELBO(), False),
    )
    for weight in (0.1, 0.9):
        assert_same(eager, step, x, None, torch.tensor(weight))
        with torch.no_grad():
            next(program.parameters()).add_(0.1)
    assert len(step.graphs) == 1


@pytest.mark.usefixtures("interpreted")
def test_frozen_parameters_and_partial_batches():
    program = small_vae()
    program.likelihood.requires_grad_(False)
    step, eager = (
        step_of(program, pv.objectives.ELBO(), True),
        step_of(program, pv.objectives.ELBO(), False),
    )
    for size in (6, 4, 1):
        assert_same(eager, step, torch.zeros(size, 1, 8, 8))
    assert len(step.graphs) == 3


@least_torch
@needs_compiler
@pytest.mark.parametrize("number", [1, 3, 40])
def test_a_library_has_each_source_as_a_function(number):
    source = """#include <cmath>
    namespace {{ constexpr int64_t FACTOR = {}; }}
    extern "C" void kernel(const double* x, double* out, int64_t n) {{
        for (int64_t i = 0; i < n; i++) out[i] = FACTOR * std::abs(x[i]);
    }}"""
    functions = library([source.format(i) for i in range(number)])
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for i, function in enumerate(functions):
        function(x, out := torch.zeros_like(x), 2)
        assert out.tolist() == [i, 2 * i]
    with pytest.raises(RuntimeError, match="number of arguments"):
        functions[0](x, out)


@least_torch
@needs_compiler
def test_a_library_takes_sequences_of_tensors():
    (first,) = library(
        [
            """#include <vector>
    extern "C" void kernel(const std::vector<float*>& all, float* out) {
        for (size_t i = 0; i < all.size(); i++) out[i] = *all[i];
    }"""
        ]
    )
    tensors = [torch.tensor([3.0, 1.0]), torch.tensor(2.0)]
    for sequence in (tensors, tuple(tensors)):
        first(sequence, out := torch.zeros(2))
        assert out.tolist() == [3, 2]
    with pytest.raises(RuntimeError, match="a list or tuple of tensors"):
        first(iter(tensors), out)


def _products_for_caches(*sizes: int | None) -> list[Callable[..., None]]:
    """Our product as it is on machines whose second cache has these bytes; None: on this one."""
    source = PRODUCT.read_text()
    asked = "sysconf(_SC_LEVEL2_CACHE_SIZE)"
    assert asked in source
    return library([source.replace(asked, str(size or asked)) for size in sizes])


@least_torch
@needs_compiler
@pytest.mark.parametrize(
    "m, k, n",
    [
        (1, 1, 1),
        (17, 33, 19),
        (3, 2100, 100),
        (50, 1500, 70),
        (130, 1, 5),
        (400, 300, 2),
        (128, 64, 128),
        (300, 40, 200),
    ],
)
def test_our_product_is_the_product_in_every_layout(m, k, n):
    if (
        torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not torch.backends.mkldnn.is_available()
    ):
        pytest.skip("the processor has no AVX-512")
    kernel, *others = _products_for_caches(None, 1 << 18, 1 << 22)
    a, b = (
        torch.randn(m, k + 3),
        torch.randn(k, n + 5),
    )  # rows that are further apart than they are long
    for a_transposed in (0, 1):
        for b_transposed in (0, 1):
            first, second = (
                x.t().contiguous() if transposed else x
                for x, transposed in ((a, a_transposed), (b, b_transposed))
            )
            strides = (first.stride(0), second.stride(0))
            out = torch.full((m, n), torch.nan)
            kernel(first, second, out, m, n, k, *strides, a_transposed, b_transposed)
            exact = a[:, :k].double() @ b[:, :n].double()
            assert torch.allclose(out.double(), exact, atol=1e-5 * k**0.5, rtol=1e-5)
            for other in others:  # blocks of another size are the same sums
                again = torch.full((m, n), torch.nan)
                other(first, second, again, m, n, k, *strides, a_transposed, b_transposed)
                assert torch.equal(again, out)


@least_torch
@needs_compiler
def test_products_of_any_layout_are_compiled():
    net = torch.nn.Sequential(
        torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 7, bias=False)
    )
    one, square = torch.nn.Parameter(torch.randn(1)), torch.nn.Parameter(torch.randn(7, 7))

    def loss(x):
        h = net(x)
        strided, repeated = (
            h[:, ::2] @ square[::2],
            one.expand(9, 7) @ square.t() + h[:1].expand(9, 7) @ square,
        )
        return (h.square().sum(1, keepdim=True) * (strided + repeated)).sum() + torch.addmm(
            h, h, square, beta=2
        ).sin().sum()

    parameters = [*net.parameters(), one, square]
    eager, compiled = (
        LossAndGradients(loss, parameters, lambda n, way=way: way) for way in (False, True)
    )
    assert_same(eager, compiled, torch.randn(9, 20), exactly=False)


@needs_compiler
@pytest.mark.parametrize(
    "name, objective",
    [
        ("batch norm", "IWAE"),
        pytest.param("semi-supervised", "EnumeratedELBO", marks=least_torch),
    ],
)
def test_the_compiled_graph_equals_eager_on_the_same_random_numbers(name, objective):
    assert_captured_is_eager("program", name, objective, exactly=False)


@needs_compiler
def test_a_compiled_run_follows_the_same_curve_and_resumes_to_the_bit(tmp_path, monkeypatch):
    data, options = digits(128), dict(batch_size=64, progress=False, warmup=20, clip_norm=5.0)
    eager = pv.fit(small_vae(), data, epochs=100, compile="off", **options)
    updates, compile_update = [], Update.compile
    monkeypatch.setattr(
        Update, "compile", lambda self: (compile_update(self), updates.append(self))
    )
    whole = small_vae()
    compiled = pv.fit(whole, data, epochs=100, compile="on", **options, out=tmp_path / "whole")
    assert [update.compiled is not None for update in updates] == [True]
    assert compiled["objective"] == pytest.approx(eager["objective"], rel=1e-4)
    pv.fit(small_vae(), data, epochs=40, compile="on", **options, out=tmp_path / "parts")
    parts = small_vae()
    pv.fit(
        parts, data, epochs=100, resume=True, **options, out=tmp_path / "parts"
    )  # as it was started: compiled
    assert all(
        torch.equal(value, parts.state_dict()[key]) for key, value in whole.state_dict().items()
    )


@least_torch
def test_data_dependent_control_flow_runs_eagerly_and_names_the_line():
    class Branches(torch.nn.Module):
        out_shape = (2,)

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 2)

        def forward(self, x, context=None):
            h = self.layer(x.flatten(1))
            if h.sum() > 0:  # the fault
                h = 2 * h
            return h

    program = small_vae()
    program.posterior = pv.posteriors.DiagonalNormal(2, Branches())
    with pytest.warns(
        UserWarning,
        match=r"not compiled.*control flow.*test_compilation\.py:\d+ \(if h\.sum\(\) > 0",
    ):
        history = pv.fit(program, digits(64), epochs=2, compile="on", progress=False)
    assert len(history) == 2


@least_torch
def test_a_shape_that_depends_on_data_is_refused():
    with pytest.raises(CannotCapture, match="shape"):
        Captured(lambda x: x[x > 0].sum(), [torch.randn(5)])
    mask = torch.tensor([True, False, True])  # a constant may select: that shape never changes
    captured = Captured(lambda x: x[:, mask].sum(), [torch.ones(5, 3)])
    assert captured(torch.full((5, 3), 2.0))[0] == 20


class Average(torch.nn.Module):
    """An encoder with a running mean that is a new tensor each time."""

    out_shape = (8,)

    def __init__(self):
        super().__init__()
        self.inner = MLP((1, 8, 8), [8])
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x, context=None):
        h = self.inner(x)
        if self.training:  # as batch normalisation does: in evaluation a datum is on its own
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h + self.mean


def test_a_buffer_that_is_given_a_new_tensor_is_not_frozen_in_a_graph():
    program = small_vae()
    program.posterior = pv.posteriors.DiagonalNormal(2, Average())
    other = copy.deepcopy(program)
    pv.fit(other, digits(96), batch_size=32, epochs=2, compile="off", progress=False)
    with pytest.warns(
        UserWarning, match="eagerly: buffer 'posterior.network.mean' is given a new tensor"
    ):
        pv.fit(program, digits(96), batch_size=32, epochs=2, compile="on", progress=False)
    for key, value in program.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_compiled_svi_runs_such_a_program_eagerly_too():
    program = small_vae()
    program.posterior = pv.posteriors.DiagonalNormal(2, Average())
    other = copy.deepcopy(program)
    svi, reference = (
        way(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), pv.objectives.ELBO())
        for way, vae in ((pv.CompiledSVI, program), (Eager, other))
    )
    with pytest.warns(UserWarning, match="mean' is given a new tensor"):
        for i in range(3):
            for way in (svi, reference):
                torch.manual_seed(i)
                way.step(torch.full((8, 1, 8, 8), 0.5))
    assert torch.equal(program.posterior.network.mean, other.posterior.network.mean)


class Eager:
    """What `CompiledSVI` does, by hand."""

    def __init__(self, model, guide, optim, loss):
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss

    def step(self, x):
        self.optim.zero_grad()
        self.loss.differentiable_loss(self.model, self.guide, x).backward()
        self.optim.step()


@least_torch
def test_a_capture_and_a_look_at_the_work_leave_buffers_as_they_were():
    network = Average()
    step = LossAndGradients(
        lambda x: network(x).sum() * (2 if network.mean.sum() > 0 else 1),
        list(network.parameters()),
        lambda n: True,
        network,
    )
    before = network.mean
    step.work(torch.ones(3, 1, 8, 8))
    assert network.mean is before
    with pytest.warns(UserWarning, match="control flow depends"):
        step.captured(torch.ones(3, 1, 8, 8))
    assert network.mean is before


@pytest.mark.usefixtures("interpreted")
def test_what_is_written_through_views_is_put_back():
    count, weight = torch.zeros(3), torch.nn.Parameter(torch.ones(3))

    def loss(x):
        with torch.no_grad():
            count[0].add_(1)
            count[0].add_(1)
            count.mul_(0.5)
        return (count * weight * x).sum()

    step = LossAndGradients(loss, [weight], lambda n: True)
    step.work(torch.ones(3))
    step.captured(torch.ones(3))
    assert count.tolist() == [0, 0, 0]


@pytest.mark.usefixtures("interpreted")
def test_a_parameter_that_is_only_summed_has_a_gradient_in_a_graph():
    """Eagerly that is one number, repeated without memory of its own."""
    weight, bias = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.zeros(4))

    def loss(x):
        return (weight * x).sum() + bias.sum()

    eager, captured = (
        LossAndGradients(loss, [weight, bias], lambda n, way=way: way) for way in (False, True)
    )
    assert captured.work(torch.ones(3)).operations > 0
    assert_same(eager, captured, torch.ones(3))


def test_without_a_compiler_the_graph_is_interpreted_with_one_warning(monkeypatch):
    def no_compiler(graph, inputs, **options):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("pyro_vae.compilation.inductor.inductor", no_compiler)
    program, other = small_vae(), small_vae()
    with pytest.warns(UserWarning, match="interpreted instead.*No working C") as seen:
        pv.fit(program, digits(64), batch_size=32, epochs=3, compile="on", progress=False)
    assert len(seen) == 1
    pv.fit(other, digits(64), batch_size=32, epochs=3, compile="off", progress=False)
    assert all(
        torch.equal(value, other.state_dict()[key]) for key, value in program.state_dict().items()
    )


# without our own C++, without Inductor

EXTRAS = ["inductor", "cpp", "matmul"]  # the files of the package that may be deleted


def numbers(compile):
    """The history, weights and scores of a short run, and the losses of `CompiledSVI`."""
    program, data = small_vae(), digits(96)
    history = pv.fit(
        program, data, epochs=4, batch_size=32, clip_norm=5.0, compile=compile, progress=False
    )
    scores = [pv.elbo(program, data, 3, compile=compile), pv.log_likelihood(program, data, 9)]
    svi = pv.CompiledSVI(
        program.model,
        program.guide,
        torch.optim.Adam(program.parameters(), fused=True),
        pv.objectives.ELBO(),
    )
    torch.manual_seed(0)
    losses = [svi.step(data.x[:32]) for _ in range(3)]
    weights = torch.nn.utils.parameters_to_vector(program.parameters()).detach()
    return [*history["objective"], *(score.mean for score in scores), *losses], weights


@pytest.mark.filterwarnings("ignore:the captured graph could not be compiled")
@pytest.mark.parametrize("missing", [*([name] for name in EXTRAS), EXTRAS], ids="-".join)
def test_the_library_works_without_the_files_of_the_compiler(missing, monkeypatch):
    """Graphs are interpreted then, so that numbers are the eager ones."""
    package = "pyro_vae.compilation"
    for name in EXTRAS:  # those that need a missing one are imported anew
        monkeypatch.delitem(sys.modules, f"{package}.{name}", raising=False)
    for name in missing:
        monkeypatch.setitem(sys.modules, f"{package}.{name}", None)
    found, weights = numbers("on")
    expected, reference = numbers("off")
    assert found == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights, reference, rtol=1e-5, atol=1e-6)


def curve_of_a_net(compiled):
    """The losses of 20 steps of Adam, with whatever C++ is used."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    step = LossAndGradients(
        lambda x: net(x).square().sum(), list(net.parameters()), lambda n: compiled
    )
    update = Update(torch.optim.Adam(net.parameters(), lr=0.01, fused=True), step.parameters)
    if compiled:
        update.compile()
    x, losses = torch.randn(9, 5), []
    for _ in range(20):
        loss, gradients = step(x)
        update(gradients)
        losses.append(loss)
    assert not compiled or step.captured(x).is_compiled
    return torch.stack(losses), update


@needs_compiler
def test_a_switch_turns_our_own_code_off_and_numbers_stay(monkeypatch):
    used, products = [], inductor.our_products
    monkeypatch.setattr(inductor, "our_products", lambda: used.append("product") or products())
    eager, _ = curve_of_a_net(False)
    ours, update = curve_of_a_net(True)
    assert update.compiled is not None and bool(used) == can_run_our_products()
    monkeypatch.setenv("PYRO_VAE_CPP", "off")
    monkeypatch.setattr(inductor, "library", lambda sources: used.append("library"))
    used.clear()
    theirs, update = curve_of_a_net(True)
    assert update.compiled is None and not used
    torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs, eager, rtol=1e-5, atol=1e-5)


def test_the_switch_refuses_another_word(monkeypatch):
    monkeypatch.setenv("PYRO_VAE_CPP", "no")
    with pytest.raises(InvalidInput, match="PYRO_VAE_CPP: got 'no', expected one of on, off"):
        pv.fit(small_vae(), digits(32), epochs=1, compile="on", progress=False)


def test_some_tests_run_on_the_least_torch_that_the_ranges_allow():
    root = Path(__file__).parents[2]
    names = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("torch", "torchvision"):
        (least,) = [line.removeprefix(f"{name}>=") for line in names if line.startswith(f"{name}>")]
        assert f"'{name}=={least}.*'" in (root / ".ci" / "run").read_text()


# the decision


def decision(tmp_path, monkeypatch, **options):
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)
    monkeypatch.setattr(
        "pyro_vae.training.steps.GradientSteps.run",
        lambda self, epoch, stop=None: torch.zeros(self.per_epoch),
    )
    monkeypatch.setattr("pyro_vae.training.validation.validation_elbo", lambda *a, **k: None)
    pv.fit(small_vae(), digits(300), out=tmp_path, progress=False, **options)
    return pv.checkpoint.read_state(tmp_path, "training")[1]["compiled_sizes"]


def test_short_runs_stay_eager_and_long_ones_are_compiled(tmp_path, monkeypatch):
    assert decision(tmp_path / "a", monkeypatch, epochs=10) == []
    assert decision(tmp_path / "b", monkeypatch, epochs=600, batch_size=8) == [
        8
    ]  # the last batch is too rare
    assert decision(tmp_path / "c", monkeypatch, epochs=3, compile="on", batch_size=128) == [
        128,
        44,
    ]
    assert decision(tmp_path / "d", monkeypatch, epochs=600, batch_size=8, compile="off") == []


def test_the_rule_grows_with_work_and_steps():
    def is_worth(operations, multiplications, steps):
        return is_worth_compiling(
            operations, Work(operations, multiplications).saved_by_compiling, steps
        )

    assert not any(is_worth(n, 10**6, steps) for n in (10, 200, 6000) for steps in (10, 1000))
    assert all(is_worth(n, 0, 100_000) for n in (200, 6000)) and is_worth(200, 2 * 10**8, 10_000)
    costs = [
        [is_worth(n, m, steps) for steps in (10**i for i in range(8))]
        for n in (10, 100, 1000)
        for m in (0, 10**8)
    ]
    assert all(row == sorted(row) for row in costs)


def test_work_is_counted():
    weight = torch.nn.Parameter(torch.ones(5, 7))
    step = LossAndGradients(lambda x: (x @ weight).sum(), [weight])
    work = step.work(torch.ones(3, 5))
    assert (
        work.multiplications == 2 * 3 * 5 * 7 and 3 < work.operations < 12
    )  # the product, and the weight's gradient


# updates and SVI


class AdamFromOne(torch.optim.Adam):
    """An Adam that only starts otherwise, with second moments of one."""

    def __init__(self, params, lr, **settings):
        super().__init__(params, lr, **settings)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.ones_like(parameter),
            }


class AdamByHalves(torch.optim.Adam):
    """An Adam with a step of its own."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = parameter.grad / 2
        return super().step(closure)


class AdamThatWraps(torch.optim.Adam):
    @functools.wraps(torch.optim.Adam.step)
    def step(self, closure=None):
        return super().step(closure)


def wrapped(step):
    @functools.wraps(step)
    def twice(*given):
        step(*given)
        return step(*given)

    return twice


class AdamThatIsDecorated(torch.optim.Adam):
    step = wrapped(torch.optim.Adam.step)


@least_torch
def test_the_kernel_is_that_of_every_adam_whose_step_is_torchs():
    def kernel(kind):
        parameters = [torch.nn.Parameter(torch.ones(2))]
        return Update(kind(parameters, 0.01, fused=True), parameters).kernel

    assert kernel(torch.optim.Adam) is kernel(AdamFromOne) is torch._fused_adam_
    assert kernel(torch.optim.AdamW) is torch._fused_adamw_
    assert kernel(AdamByHalves) is None
    assert kernel(AdamThatWraps) is kernel(AdamThatIsDecorated) is None


@least_torch
@pytest.mark.parametrize("when", ["pre", "post"])
def test_hooks_of_an_optimiser_are_called(when):
    parameters, calls = [torch.nn.Parameter(torch.ones(2))], []
    optimizer = torch.optim.Adam(parameters, 0.01, fused=True)
    register = getattr(optimizer, f"register_step_{when}_hook")
    register(lambda *given: calls.append(1))
    Update(optimizer, parameters)([torch.ones(2)])
    assert calls == [1]


@least_torch
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, 0.01, fused=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, fused=True),
        lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
        lambda p: AdamFromOne(p, 0.01, fused=True),
        lambda p: AdamByHalves(p, 0.01, fused=True),
        lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    ],
)
def test_an_update_is_the_optimisers_own(make):
    parameters, copies = (
        [torch.nn.Parameter(torch.linspace(0, 1, n)) for n in (3, 5)] for _ in range(2)
    )
    optimizer, reference = make(parameters), make(copies)
    update = Update(optimizer, parameters)
    for i in range(6):
        if i == 3:  # another state, from elsewhere
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            assert not update.kernel_has_run
        gradients = [torch.cos(i + p.detach()) for p in parameters]
        update(gradients)
        for p, g in zip(copies, gradients):
            p.grad = g
        reference.step()
    for a, b in zip(parameters, copies):
        torch.testing.assert_close(a, b)
    for a, b in zip(
        optimizer.state_dict()["state"].values(), reference.state_dict()["state"].values()
    ):
        assert a.keys() == b.keys() and all(
            torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a if a[k] is not None
        )


@least_torch
@needs_compiler
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "sizes", [[(3,), (), (0,), (70, 90)], [(600, 300), (5000,)]], ids=["serial", "threads"]
)
def test_the_compiled_update_is_the_optimisers_own(sizes, kind, decay):
    parameters, copies = (
        [
            torch.nn.Parameter(torch.linspace(-1, 1, torch.Size(size).numel()).reshape(size))
            for size in sizes
        ]
        for _ in range(2)
    )
    optimizer, reference = (
        kind(p, 0.01, fused=True, weight_decay=decay, betas=(0.8, 0.99), eps=1e-3)
        for p in (parameters, copies)
    )
    update, expected = Update(optimizer, parameters), Update(reference, copies)
    update.compile()
    assert update.compiled is not None
    for i in range(30):
        optimizer.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.01 / (1 + i)
        gradients = [torch.cos(i + 3 * p.detach()) for p in parameters]
        update(gradients)
        expected(gradients)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        torch.testing.assert_close(
            [optimizer.state[p][name] for p in parameters],
            [reference.state[p][name] for p in copies],
        )
    torch.testing.assert_close(parameters, copies)


@least_torch
@needs_compiler
def test_a_compiled_update_follows_a_state_that_is_loaded():
    parameters, copies = ([torch.nn.Parameter(torch.linspace(-1, 1, 7))] for _ in range(2))
    optimizer, reference = (torch.optim.Adam(p, 0.01, fused=True) for p in (parameters, copies))
    update = Update(optimizer, parameters)
    update.compile()
    for i in range(9):
        if i in (3, 6):
            state = reference.state_dict()
            state["param_groups"][0]["maximize"] = i == 6
            for one in (optimizer, reference):
                one.load_state_dict(copy.deepcopy(state))
        copies[0].grad = torch.cos(i + 3 * parameters[0].detach())
        update([copies[0].grad.clone()])
        reference.step()
        assert update.kernel_has_run == (i < 6)
        torch.testing.assert_close(parameters, copies)


@needs_compiler
def test_a_compiled_update_refuses_another_number_of_gradients():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    update = Update(torch.optim.Adam(parameters, fused=True), parameters)
    update.compile()
    update([torch.ones(2), torch.ones(2)])
    with pytest.raises(RuntimeError, match="as many of each"):
        update([torch.ones(2)])


@needs_compiler
def test_an_update_that_the_kernel_does_not_know_stays_the_optimisers():
    for parameter, options in (
        (torch.zeros(3, dtype=torch.float64), {}),
        (torch.zeros(3, 4).t(), {}),
        (torch.zeros(3), {"amsgrad": True}),
    ):
        parameters = [torch.nn.Parameter(parameter)]
        update = Update(torch.optim.Adam(parameters, fused=True, **options), parameters)
        update.compile()
        assert update.compiled is None


@pytest.mark.usefixtures("interpreted")
def test_compiled_svi_is_a_drop_in_for_svi():
    x = torch.bernoulli(torch.rand(20, 1, 8, 8))
    a, b = small_vae(), small_vae()
    pyro.clear_param_store()

    def guide(x):
        pyro.module("vae", a)
        return a.guide(x)

    svi = SVI(a.model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    ours = pv.CompiledSVI(b.model, b.guide, torch.optim.Adam(b.parameters(), lr=1e-2), Trace_ELBO())
    curves = []
    for step in (svi.step, ours.step):
        torch.manual_seed(5)
        curves.append([step(x) for _ in range(200)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    torch.manual_seed(5)
    first = svi.evaluate_loss(x)
    torch.manual_seed(5)
    assert ours.evaluate_loss(x) == pytest.approx(first, rel=1e-3)
    pyro.clear_param_store()


@pytest.mark.usefixtures("interpreted")
def test_compiled_svi_takes_any_arguments():
    layer = torch.nn.Linear(3, 2)

    def model(x, flip, *, bonus=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample(
                "x",
                pyro.distributions.Normal(
                    (-z if flip else z).sum(-1) + (0.0 if bonus is None else bonus), 1.0
                ),
                obs=x[:, 0],
            )

    def guide(x, flip, *, bonus=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(layer(x), 1.0).to_event(1))

    svi = pv.CompiledSVI(
        model, guide, torch.optim.SGD(layer.parameters(), lr=0.0), pv.objectives.ELBO()
    )
    x = torch.randn(5, 3)
    for flip in (True, False, True, False):
        for kwargs in ({}, {"bonus": torch.tensor(1.0)}, {"bonus": torch.tensor(2.0)}):
            torch.manual_seed(3)
            assert svi.step(x, flip, **kwargs) == pytest.approx(
                svi_loss(model, guide, x, flip, **kwargs), rel=1e-5
            )


def svi_loss(*args, **kwargs):
    torch.manual_seed(3)
    return Trace_ELBO().loss(*args, **kwargs)


def test_compiled_svi_refuses_what_it_cannot_serve():
    vae = small_vae()
    with pytest.raises(InvalidInput, match="torch optimiser"):
        pv.CompiledSVI(vae.model, vae.guide, pyro.optim.Adam({}), Trace_ELBO())
    with pytest.raises(InvalidInput, match="loss: got TraceGraph_ELBO"):
        pv.CompiledSVI(
            vae.model, vae.guide, torch.optim.Adam(vae.parameters()), pyro.infer.TraceGraph_ELBO()
        )


@pytest.mark.usefixtures("interpreted")
def test_half_precision_layers_train(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = pv.fit(
            small_vae(),
            digits(128),
            batch_size=64,
            epochs=30,
            autocast=True,
            compile="on",
            progress=False,
        )
        reference = pv.fit(small_vae(), digits(128), batch_size=64, epochs=30, progress=False)
    assert history["objective"][-1] == pytest.approx(reference["objective"][-1], rel=0.02)
    assert history["objective"][-1] != reference["objective"][-1]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("arguments", [(), (torch.tensor(2.0),), (3.0, torch.ones(4))], ids=str)
def test_compiled_svi_takes_any_arguments_and_leaves_what_is_frozen(arguments):
    a, b = (
        torch.nn.Parameter(torch.zeros(())),
        torch.nn.Parameter(torch.ones(()), requires_grad=False),
    )

    def model(*given):
        pyro.sample("z", pyro.distributions.Normal(b, 1.0))

    def guide(*given):
        pyro.sample("z", pyro.distributions.Normal(a, 1.0))

    svi = pv.CompiledSVI(model, guide, torch.optim.Adam([a, b], lr=0.1), Trace_ELBO())
    for _ in range(3):
        svi.step(*arguments)
    assert a != 0 and b == 1


@least_torch
@needs_compiler
@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "interpreted"])
def test_compiled_svi_follows_parameters_to_other_memory(compiles, monkeypatch):
    if not compiles:
        monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)
    vae, other = small_vae(), small_vae()
    svi, reference = (
        way(
            program.model,
            program.guide,
            torch.optim.Adam(program.parameters(), lr=0.01, fused=True),
            pv.objectives.ELBO(),
        )
        for way, program in ((pv.CompiledSVI, vae), (Eager, other))
    )
    x = torch.full((8, 1, 8, 8), 0.5)
    for i in range(9):
        if i == 3:
            for program in (vae, other):
                torch.nn.utils.vector_to_parameters(
                    2 * torch.nn.utils.parameters_to_vector(program.parameters()),
                    program.parameters(),
                )
        if i == 6:
            for program, way in ((vae, svi), (other, reference)):
                program.double()
                way.optim.load_state_dict(way.optim.state_dict())  # in the parameters' dtype
            x = x.double()
        for way in (svi, reference):
            torch.manual_seed(i)
            way.step(x)
        assert (svi.update.compiled is not None) == (compiles and i < 6)
    for a, b in zip(vae.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@least_torch
def test_fused_adamw_has_its_kernel():
    parameters = [torch.nn.Parameter(torch.ones(3))]
    assert (
        Update(torch.optim.AdamW(parameters, fused=True), parameters).kernel is torch._fused_adamw_
    )
    assert Update(torch.optim.Adam(parameters, fused=True), parameters).kernel is torch._fused_adam_


# what is in a program beside torch's own operations


@torch.library.custom_op("pyro_vae_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


class Odd(torch.nn.Module):
    """A network with something that torch compiles, traces or measures apart."""

    out_shape = (16,)

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = pv.networks.MLP((1, 8, 8), [16]), kind
        self.tanh = torch.nn.Tanh()
        if kind == "compiled":
            self.tanh = torch.compile(self.tanh, backend="eager")

    def forward(self, x):
        h = self.net(x)
        if self.kind == "custom":
            h = twice(h.detach())
        if self.kind == "sparse":
            h = torch.sparse.mm(2 * torch.eye(16).to_sparse(), h.reshape(-1, 16).T).T.reshape(
                h.shape
            )
        return self.tanh(h)


@least_torch
@pytest.mark.parametrize("kind", ["compiled", "custom", "sparse"])
@pytest.mark.filterwarnings("ignore:this program is not compiled")
@pytest.mark.filterwarnings("ignore:Pareto k", "ignore:The .grad attribute")
def test_a_program_with_odd_parts_is_trained_and_scored(kind, monkeypatch):
    monkeypatch.setattr(Captured, "compile", lambda self, _: setattr(self, "is_compiled", True))
    digits = pv.datasets.load("digits")[0]

    def numbers(compile):
        torch.manual_seed(0)
        vae = small_vae()
        vae.posterior.network = Odd(kind)
        history = pv.fit(vae, digits[:64], epochs=2, compile=compile, progress=False)
        score = pv.log_likelihood(vae, digits[:20], 50, compile=compile)
        return [*history["objective"], score.mean]

    assert numbers("on") == pytest.approx(numbers("off"), rel=1e-5)
