"""Programs as Pyro's tutorials write them: Pyro's own loss; trained, scored, saved and loaded."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import pyro
import pyro_tutorials as tutorials
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.programs import as_program

LINEAR, STEPS = torch.eye(3), torch.arange(20)


@dataclass(frozen=True)
class Case:
    """A tutorial's class, data in its form, and what else `pv.Program` is told."""

    make: Callable
    x: Callable
    context: torch.Tensor | None = None
    options: dict = field(default_factory=dict)

    def build(self):
        """The module itself, or a program with an adapter where the pair has other arguments."""
        module = self.make()
        return pv.Program(module.model, module.guide, **self.options) if self.options else module


def binary(*shape):
    return lambda: torch.rand(20, *shape).round()


def counts(*shape):
    return lambda: torch.poisson(torch.full((20, *shape), 3.0)) + 1


CASES = {
    "vae": Case(tutorials.VAE, binary(4, 4)),
    "ss-vae": Case(tutorials.SSVAE, binary(16)),
    "ss-vae with labels": Case(tutorials.SSVAE, binary(16), LINEAR[STEPS % 3]),
    "cvae": Case(
        tutorials.CVAE,
        binary(12),
        torch.linspace(0, 1, 80).reshape(20, 4),
        {"arguments": lambda x, context: (context, x)},
    ),
    "dmm": Case(tutorials.DMM, binary(4, 3), STEPS % 4 + 1, {"arguments": tutorials.dmm_arguments}),
    "prodlda": Case(tutorials.ProdLDA, counts(6)),
    "scanvi": Case(tutorials.SCANVI, counts(5)),
    "scanvi with labels": Case(tutorials.SCANVI, counts(5), LINEAR[STEPS % 2, :2]),
}
ONE_BY_ONE = "ignore:.*one draw at a time:UserWarning"  # ProdLDA


def data_of(case):
    torch.manual_seed(0)
    x = case.x()
    return x if case.context is None else (x, case.context.to(x) if x.dim() < 3 else case.context)


def arguments_of(case, data):
    x, context = (data, None) if isinstance(data, torch.Tensor) else data
    adapt = case.options.get("arguments")
    if adapt is not None:
        return adapt(x, context)
    return (x,) if context is None else (x, context)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (pv.objectives.ELBO, Trace_ELBO),
        (
            pv.objectives.EnumeratedELBO,
            lambda **options: TraceEnum_ELBO(strict_enumeration_warning=False, **options),
        ),
    ],
    ids=["Trace_ELBO", "TraceEnum_ELBO"],
)
@pytest.mark.filterwarnings("ignore:[^|]*you need to use TraceEnum_ELBO:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_pyros_own(float64, name, ours, theirs):
    case = CASES[name]
    data, program = data_of(case), case.build()
    pair = as_program(program)
    x, context = (data, None) if isinstance(data, torch.Tensor) else data
    pair.prepare(x, context)
    objective = ours()
    objective.max_plate_nesting = 1
    torch.manual_seed(1)
    loss = objective.loss(pair.model, pair.guide, x, context)
    assert not list(pyro.get_param_store().keys())
    with pyro.get_param_store().scope():
        torch.manual_seed(1)
        expected = theirs(max_plate_nesting=1).loss(
            pair.model_fn, pair.guide_fn, *arguments_of(case, data)
        )
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings(ONE_BY_ONE)
@pytest.mark.parametrize("name", CASES)
def test_it_trains_scores_and_loads_to_the_same_scores(name, tmp_path):
    case = CASES[name]
    data, program = data_of(case), case.build()
    before = {key: value.clone() for key, value in program.state_dict().items()}
    history = pv.fit(program, data, epochs=2, batch_size=8, progress=False)
    assert len(history) == 2
    unused = ("bnmu", "bn.", "baseline", "encoder_y") if case.context is not None else ("bn",)
    after = program.state_dict()
    left = [key for key, value in before.items() if torch.equal(value, after[key])]
    assert all(any(word in key for word in unused) for key in left), left
    score = pv.elbo(program, data, 3)
    forgets = pytest.warns(UserWarning, match="self.hidden_dim = hidden_dim")
    with forgets if name == "vae" else contextlib.nullcontext():
        pv.save(program, tmp_path)
    loaded = pv.load(tmp_path, program=case.build())
    assert torch.equal(pv.elbo(loaded, data, 3).values, score.values)
    assert (pv.log_likelihood(program, data, 8).values >= score.values.min() - 50).all()
    assert pv.reconstruct(program, data).shape == case.x().shape
    if name != "prodlda":  # whose total is read off x
        context = None if case.context is None else data[1][:3]
        assert pv.generate(loaded, 3, context=context).shape == (3, *case.x().shape[1:])
    assert not list(pyro.get_param_store().keys())


@pytest.mark.filterwarnings(ONE_BY_ONE)
def test_a_module_that_keeps_its_arguments_is_loaded_without_it(tmp_path):
    for name in ("ss-vae", "scanvi", "prodlda"):
        case = CASES[name]
        data, program = data_of(case), case.build()
        pv.fit(program, data, epochs=1, progress=False, out=tmp_path / name)
        loaded = pv.load(tmp_path / name)
        assert type(loaded) is case.make
        assert torch.equal(pv.elbo(loaded, data, 2).values, pv.elbo(program, data, 2).values)


def test_one_that_does_not_is_told_the_line_to_write_before_it_is_trained(tmp_path):
    vae = tutorials.VAE()
    with pytest.warns(UserWarning, match=r"self\.hidden_dim = hidden_dim"):
        pv.fit(vae, data_of(CASES["vae"]), epochs=1, progress=False, out=tmp_path)
    with pytest.raises(pv.validation.InvalidInput, match=r"self\.hidden_dim = hidden_dim") as error:
        pv.load(tmp_path)
    assert "program=" in str(error.value)


def test_a_run_is_resumed(tmp_path):
    data = data_of(CASES["scanvi"])
    torch.manual_seed(0)
    whole = tutorials.SCANVI()
    torch.manual_seed(0)
    part = tutorials.SCANVI()
    options = dict(batch_size=8, progress=False)
    pv.fit(whole, data, epochs=4, **options)
    pv.fit(part, data, epochs=2, out=tmp_path, **options)
    pv.fit(part, data, epochs=4, out=tmp_path, resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(part.state_dict()[name], value), name


def test_prodlda_says_that_it_runs_one_draw_at_a_time():
    data, program = data_of(CASES["prodlda"]), tutorials.ProdLDA()
    with pytest.warns(UserWarning, match="one draw at a time, eagerly"):
        several = pv.elbo(program, data, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        single = torch.stack([pv.elbo(program, data, 1, seed=s).values for s in range(40)])
    spread = single.std(0) * (2 / 40) ** 0.5
    assert ((several.values - single.mean(0)).abs() < 5 * spread).all()


def test_functions_with_a_partial(float64):
    model, guide = tutorials.functions()
    program, x = pv.Program(model, guide), torch.randn(30, 3)
    history = pv.fit(program, x, epochs=30, learning_rate=0.01, progress=False)
    assert history["objective"][-1] > history["objective"][0]
    assert program.store.get_parameter("sigma").item() != pytest.approx(torch.tensor(0.7).log())
    assert pv.generate(program, 2).shape == (2, 3)


def test_the_compiled_step_leaves_nothing_in_pyros_store(monkeypatch):
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)  # interpreted
    vae, x = tutorials.VAE(), data_of(CASES["vae"])
    optim = torch.optim.Adam(vae.parameters(), lr=1e-2)
    svi = pv.CompiledSVI(vae.model, vae.guide, optim, Trace_ELBO())
    first = svi.evaluate_loss(x)
    for _ in range(3):
        svi.step(x)
    assert svi.evaluate_loss(x) != first and not list(pyro.get_param_store().keys())
    other = tutorials.SCANVI()
    optim = torch.optim.Adam(other.parameters())
    with pytest.raises(pv.validation.InvalidInput, match=r"inverse_dispersion.*prepare\(x\)"):
        pv.CompiledSVI(other.model, other.guide, optim, Trace_ELBO()).step(torch.ones(4, 5))
