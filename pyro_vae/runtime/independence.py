r"""Check that a datum's log-weight does not depend on other data or other draws.

A score is a number of one datum. A module that mixes the data of a batch, such as
``normalize(dim=0)`` or BatchNorm on batch statistics, makes it a number of the batch. One that
takes no leading dimension of draws, or gives it another meaning, makes it a number of K.

Latents are drawn once and their values are replayed, so that all comparisons are at one z. The
other data are replaced by copies of the one, not left out: shapes stay the same, so that products
are rounded alike and a program that keeps the law differs by exactly 0. Each of the few data takes
its turn, whichever is the largest of all or below the median. At the other places its copies must
have its score too. Only the last datum is left alone, so that the number of data is noticed. Where
places or shapes differ, a change that the data's last digits make as well is one of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vae.contracts import ProgramLike, Site, StochasticFunction, Tensors
from pyro_vae.distributions import image_of, is_one_way, is_point_mass, source_of
from pyro_vae.programs import particles
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Values
from pyro_vae.runtime.traces import Plates, paired_traces, terms_of, weights_of
from pyro_vae.validation import InvalidInput, count_of, map_tensors, rows_of, tensors_of

__all__ = ["DrawsMixed", "check_independence"]

MOST_DATA = 3
DRAWS = 2
ROUNDING = 16  # times eps and the sum of all absolute log-probabilities
ROUNDING_OF_ONE = 4096  # the same where shapes differ, so that products are rounded differently
LAST_DIGITS = 8  # times eps, by which data are moved to see what their rounding does
ROUNDINGS = 4  # times what that does


class DrawsMixed(InvalidInput):
    """A program that cannot be run for several draws at once."""


class Given(Messenger):
    """Put values at the sites of a guide; a point mass follows from its sources instead.

    So does a draw of a flow that runs one way, whose value here is its base's.
    """

    def __init__(self, values: Values):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            fn, value = msg["fn"], self.values[msg["name"]]
            msg["value"] = image_of(fn, value) if is_one_way(fn, value) else value
            msg["done"] = True  # type: ignore[typeddict-unknown-key]


@dataclass(frozen=True)
class Look:
    """A program at a few data, run repeatedly at latents that were drawn once.

    Args:
        program: any program, in evaluation mode.
        guide: its guide, a function of the data and of the draws at its sites.
        x: data (n, ...).
        context: context (n, ...) or ``None``.
        plates: the program's plates.
    """

    program: ProgramLike
    guide: StochasticFunction
    x: Tensors
    context: Tensors | None
    plates: Plates

    def run(self, rows: list[int], values: Values | None = None, draws: int = 0) -> Run:
        """Run guide and model on some of the data, in a plate of draws if there are any."""
        guide = self.guide if values is None else Given(values)(self.guide)
        model: StochasticFunction = self.program.model
        if draws:
            dim = self.plates.particle_dim
            guide, model = particles(guide, draws, dim), particles(model, draws, dim)
        traces = paired_traces(model, guide, rows_of(self.x, rows), rows_of(self.context, rows))
        shape = (max(1, draws), len(rows))
        weights = weights_of(*traces, self.plates, shape).double()
        size = sum(
            term.double().abs()
            for trace in traces
            for term in terms_of(trace, self.plates, shape).values()
        )
        sources = {
            name: _at_source(site)
            for name, site in latent_sites(traces[0]).items()
            if not is_point_mass(site["fn"])
        }
        return Run(weights, torch.as_tensor(size), sources)

    def values_at(self, sources: dict[str, Site], rows: list[int]) -> Values:
        """The values of a run without a plate of draws, for some of its data."""
        index = torch.tensor(rows)
        found = {}
        for name, site in sources.items():
            axis = self.plates.data_dim - len(site["fn"].event_shape)
            value = site["value"]
            local = any(frame.name == "data" for frame in site["cond_indep_stack"])
            found[name] = value.index_select(axis, index.to(value.device)) if local else value
        return found

    def one_of(self, drawn: dict[str, Site], draw: int, like: dict[str, Site]) -> Values:
        """The values of one of several draws, in the shapes of a run without a plate of draws."""
        found = {}
        for name, site in drawn.items():
            axis = self.plates.particle_dim - len(site["fn"].event_shape)
            found[name] = site["value"].select(axis, draw).reshape(like[name]["value"].shape)
        return found


def _at_source(site: Site) -> Site:
    """A site with what its value is the image of, where the value alone has no density."""
    source = source_of(site["fn"], site["value"])
    if not is_one_way(site["fn"], site["value"]):
        return site
    site = site.copy()
    site["value"] = source
    return site


@dataclass(frozen=True)
class Run:
    """Log-weights (K, n) of one run, the sizes that they are made of, and the latents drawn."""

    weights: Tensor
    size: Tensor
    sources: dict[str, Site]


def check_independence(look: Look, *, has_noise: bool, drawn: Run | None = None) -> None:
    """Raise `InvalidInput` if a datum's log-weight depends on other data or on leading draws.

    Args:
        look: the program at a few data.
        has_noise: whether the guide draws random numbers of its own. They depend on shapes, so only
            comparisons that keep the shapes are made.
        drawn: a run whose latents the first run takes, too: the density of a fresh draw may be
            another by the error of a solver, as that of a continuous flow is.
    """
    everyone = list(range(count_of(look.x)))
    at = None if drawn is None else look.values_at(drawn.sources, everyone)
    whole = look.run(everyone, at)
    unit = max(
        torch.finfo(part.dtype).eps if part.is_floating_point() else 1e-7
        for part in tensors_of(look.x).values()
    )
    sizes = torch.where(torch.isfinite(whole.weights), whole.size, 0)
    scale = unit * max(1.0, sizes.max().item())

    @cache
    def last_digits() -> float:
        """What rounding does inside: large data, and small scales, make much of it."""
        moved = _moved(look.x, 1 + LAST_DIGITS * unit)
        at = look.values_at(whole.sources, everyone)
        change = _change(whole.weights, replace(look, x=moved).run(everyone, at).weights)
        return ROUNDINGS * change if math.isfinite(change) else 0.0

    def is_rounding(change: float) -> bool:
        return change <= ROUNDING_OF_ONE * scale or change <= last_digits()

    last = len(everyone) - 1
    # The last datum is compared with itself alone, where that can be done.
    for i in everyone[: last + has_noise] if last else ():
        rows = [i] * len(everyone)
        again = look.run(rows, look.values_at(whole.sources, rows)).weights
        change = _change(whole.weights[0, i], again[0, i])
        if not change <= ROUNDING * scale:
            raise _mixes(look, whole, i, change)
        change = _change(whole.weights[0, i], again[0])
        if not has_noise and not is_rounding(change):
            raise _refusal("its place in its batch, or on data of another batch", change)
    if has_noise:
        if not look.plates.one_draw:
            with _runs_for_draws():
                look.run(everyone, draws=DRAWS)
        return
    if last:
        alone = look.run([last], look.values_at(whole.sources, [last])).weights
        change = _change(whole.weights[0, last], alone[0, 0])
        if not is_rounding(change):
            raise _refusal("the number of data in its batch, or on its place", change)
    if not look.plates.one_draw:
        _check_draws(look, whole, everyone, is_rounding)


def _change(before: Tensor, after: Tensor) -> float:
    """How far log-weights are from what they were; of those that were NaN, scoring tells."""
    is_same = (before == after) | before.isnan()
    return torch.where(is_same, 0, after - before).abs().max().item()


def _moved(x: Tensors, factor: float) -> Tensors:
    return map_tensors(lambda part: part * factor if part.is_floating_point() else part, x)


def _check_draws(
    look: Look, whole: Run, rows: list[int], is_rounding: Callable[[float], bool]
) -> None:
    with _runs_for_draws():
        many = look.run(rows, draws=DRAWS)
        for k in range(DRAWS):  # the first may know the last alone, or the last the first
            values = look.one_of(many.sources, k, whole.sources)
            change = _change(look.run(rows, values).weights[0], many.weights[k])
            if not is_rounding(change):
                raise _refusal("the other draws of its latents", change, kind=DrawsMixed)


@contextmanager
def _runs_for_draws() -> Iterator[None]:
    """Turn what torch and Pyro raise on draws in front of the data into the refusal of them."""
    try:
        yield
    except InvalidInput:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise DrawsMixed(
            "program",
            got=f"a program that does not run with {DRAWS} draws in front of the data "
            f"({str(error).splitlines()[0]})",
            expected="model and guide that take leading dimensions (K, N, ...)",
            fix="give the network an attribute out_shape and pass it to a component of this "
            "library, which runs it on (K * N, ...)",
        ) from error


def _mixes(look: Look, whole: Run, datum: int, change: float) -> InvalidInput:
    """The refusal of a program that mixes data, with the module that does so."""
    own = list(range(whole.weights.shape[1]))
    runs = []
    for rows in (own, [datum] * len(own)):
        with _recorded(look.program) as calls:
            again = look.run(rows, look.values_at(whole.sources, rows)).weights
        runs.append(calls)
        if rows == own and not torch.equal(again.nan_to_num(), whole.weights.nan_to_num()):
            return _varies(change)
    for (name, given, made), (_, given_again, made_again) in zip(*runs):
        if _same(given, given_again, datum, len(own)) and not _same(
            made, made_again, datum, len(own)
        ):
            return _refusal("the other data in its batch", change, name)
    return _refusal("the other data in its batch", change)


def _varies(change: float) -> InvalidInput:
    """The refusal of a program that gives one draw two log-weights in two runs."""
    return InvalidInput(
        "program",
        got=f"a log-weight of one datum that is another in each run (by {change:.3g} nats)",
        expected="a model and a guide that are functions of the data and the latents",
        fix="draw random numbers at sites, by pyro.sample, in a guide also by torch's default "
        "generator; let no module keep anything for its next call in evaluation mode",
    )


def _refusal(
    on: str, change: float, module: str = "", kind: type[InvalidInput] = InvalidInput
) -> InvalidInput:
    where = f", first in module {module!r}" if module else ""
    return kind(
        "program",
        got=f"a log-weight of one datum that depends on {on} (by {change:.3g} nats){where}",
        expected="a score of each datum that is its own",
        fix="let every module act on each datum alone: over the last dimensions, never over those "
        "of data or draws (dim=-1; BatchNorm with running statistics)",
    )


Call = tuple[str, list[Tensor], list[Tensor]]


@contextmanager
def _recorded(program: ProgramLike) -> Iterator[list[Call]]:
    """Record what goes into and comes out of every module, innermost first."""
    calls: list[Call] = []

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, given: object, made: object) -> None:
            calls.append((name, _tensors(given), _tensors(made)))

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in program.named_modules()
        if name
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _same(ours: list[Tensor], theirs: list[Tensor], datum: int, count: int) -> bool:
    """Whether the rows of a datum agree, in whatever dimension the data lie."""
    for a, b in zip(ours, theirs):
        axes = [axis for axis in range(a.dim()) if a.shape[axis] == count]
        if a.shape != b.shape or not axes:
            continue
        if not torch.equal(a.select(axes[0], datum), b.select(axes[0], datum)):
            return False
    return True
