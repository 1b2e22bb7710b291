r"""Calibration of a guide: do intervals of q(z | x) hold as often as they say?

For latents drawn from the prior and data drawn given them, the latents are a draw from the exact
posterior; under a calibrated guide they rank uniformly among its draws. It is a check of the guide
against the model, on the model's own data; a guide that is calibrated on average can still be wrong
for each datum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors, sites_of
from pyro_vae.datasets.dataset import Data
from pyro_vae.datasets.shown import facts_html, p_words, result_html, result_words
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.latents import in_rows, out_of_rows
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.simulation import Template
from pyro_vae.validation import InvalidInput, check_count, counted

__all__ = ["Calibration", "Uniformity", "calibrate"]

WORST = 5  # columns that a notebook shows


@dataclass(frozen=True, repr=False)
class Uniformity:
    """Chi-square tests of uniform ranks.

    Args:
        statistic: one for each column (D,).
        p_value: one for each column (D,).
    """

    statistic: Tensor
    p_value: Tensor

    __repr__, _repr_html_ = result_words, result_html

    @property
    def smallest(self) -> float:
        """One p-value for all columns together: Bonferroni's bound.

        It is the smallest p-value times the number of columns, at most 1.
        """
        return min(1.0, self.p_value.min().item() * len(self.p_value))


@dataclass(frozen=True, repr=False)
class Calibration:
    """Ranks of simulated latents among the guide's draws.

    Args:
        ranks: how many of the draws lie below the simulated value, integers 0 ... L (N, D); ties
            are broken at random.
        density_ranks: how many of the draws have a higher density under the guide (N,).
        names: what each column of ``ranks`` is: the site's name and the dimension's index.
        num_samples: draws L for each simulated datum.
        seed: the seed of data and draws.
    """

    ranks: Tensor
    density_ranks: Tensor
    names: list[str]
    num_samples: int
    seed: int

    def __str__(self) -> str:
        count, columns = self.ranks.shape
        return (
            f"ranks of {counted(count, 'simulated datum', 'simulated data')} among "
            f"{self.num_samples} draws; a p-value of "
            f"{self.test_uniform().smallest:.2g} that all {columns} columns are uniform"
        )

    def __repr__(self) -> str:
        return f"Calibration({self})"

    def _repr_html_(self) -> str:
        tests = self.test_uniform()
        facts = {
            "simulated data": f"{len(self.ranks):,}",
            "draws of q for each": f"{self.num_samples:,}",
            "p-value, all columns together": p_words(tests.smallest),
        }
        worst = tests.p_value.argsort()[:WORST].tolist()
        facts |= {self.names[i]: f"p {p_words(tests.p_value[i].item(), '= ')}" for i in worst}
        return facts_html("calibration: are the ranks uniform?", facts)

    def test_uniform(self, bins: int = 10) -> Uniformity:
        """Test each column of the ranks by chi-square, in bins as equal as possible.

        A U-shape of the ranks is a guide too narrow, a hump one too wide, a slope a bias.
        """
        check_count("bins", bins, minimum=2)
        edges = torch.arange(self.num_samples + 1) * bins // (self.num_samples + 1)
        shares = torch.bincount(edges, minlength=bins).double()
        expected = shares * len(self.ranks) / (self.num_samples + 1)
        columns = [torch.bincount(edges[column], minlength=bins) for column in self.ranks.T]
        counts = torch.stack(columns).double()
        statistic = ((counts - expected).square() / expected.clamp(min=1e-300)).sum(1)
        freedom = torch.full_like(statistic, (int((expected > 0).sum()) - 1) / 2)
        return Uniformity(statistic, torch.special.gammaincc(freedom, statistic / 2))

    def coverage(self, levels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compare how often central intervals hold the simulated value with their levels.

        Args:
            levels: nominal levels in (0, 1); by default 5%, 10%, ..., 95%.

        Returns:
            Levels (M,), coverage (M, D), and coverage of the regions of highest density (M,). A
            level's interval holds the ranks nearest to the middle, and the level returned is the
            share of ranks that it holds, so that a calibrated guide covers exactly that often.
        """
        levels = torch.linspace(0.05, 0.95, 19) if levels is None else levels
        count = self.num_samples + 1
        held = (levels * count).round().clamp(1, count)
        distance = (2 * torch.arange(count) - self.num_samples).abs()
        order = torch.empty(count, dtype=torch.long)
        order[distance.argsort(stable=True)] = torch.arange(count)
        central = (order[self.ranks][None] < held[:, None, None]).double().mean(1)
        highest = (self.density_ranks[None] < held[:, None]).double().mean(1)
        return held / count, central, highest


@in_fixed_blocks
def calibrate(
    program: ProgramLike,
    num_data: int = 1000,
    num_samples: int = 99,
    *,
    context: Tensors | None = None,
    like: Data | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    r"""Calibrate a program's guide by simulation: rank true latents among its draws.

    .. math:: z \sim p(z), \quad x \sim p(x \mid z), \quad z_1 \ldots z_L \sim q(z \mid x), \quad
              r_d = \#\{l : z_{l d} < z_d\}

    Each r is uniform on 0 ... L if q(z | x) is the exact posterior. The rank of log q(z | x) among
    the draws' gives the coverage of regions of highest density, all dimensions together.

    Args:
        program: any program whose event shape is known and whose guide has no auxiliary sites.
        num_data: how many data to simulate, all at once, so that each depends on their number; not
            used with a context, which has one entry for each.
        num_samples: draws L from the guide for each.
        context: context (N, ...) for a conditional program.
        like: real data instead, taken in turn: the simulated ones have their contexts, their totals
            where these are not modelled, and miss what they miss.
        seed: seed of data and draws; the caller's random state is left as it was.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable settings.

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian Inference
    Algorithms with Simulation-Based Calibration; Hermans et al. (2022) for expected coverage.

    Example:
        >>> pv.diagnostics.calibrate(vae, 20, 9).ranks.shape
        torch.Size([20, 2])
    """
    check_count("num_data", num_data)
    check_count("num_samples", num_samples)
    template = Template.of(program, num_data, context, like)
    ranks, density_ranks = [], []
    bar = progress_bar("calibration", total=template.num, shown=progress)
    with evaluating(program, seed), validation_enabled(False), bar as advance:
        trace, x = template.draw(program)
        given = Conditioned.of(program, x, template.context)
        given.check_no_auxiliary()
        blocks = Blocks.of(given, lambda part: partial(part.draw, part.guide), num_samples)
        one = given[:1]
        simulated = {name: sites_of(trace)[name]["value"] for name in one.draw(one.guide, 1)}
        truths = {name: in_rows(value[None], given.plates) for name, value in simulated.items()}
        for part, few in blocks.over(given, seed):
            rows, count = blocks.rows(few), few.stop - few.start
            each = [part.draw(part.guide, draws) for draws in blocks.draws]
            draws = {name: torch.cat([some[name] for some in each]) for name in each[0]}
            if any(torch.isnan(drawn).any() for drawn in draws.values()):
                raise InvalidInput(
                    "like",
                    got="none" if like is None else "data",
                    expected="simulated data from which the guide draws numbers; it draws NaN",
                    fix="pass real data as like=, whose unmeasured entries are then taken",
                )
            truth = {name: true[:, rows] for name, true in truths.items()}
            at = {name: out_of_rows(true, given.plates) for name, true in truth.items()}
            own, _ = part.log_density(part.guide, at)
            # As it drew: a guide's own random numbers may depend on how many draws there are.
            others = torch.cat([part.log_density(part.guide, some)[0] for some in each])
            density_ranks.append(_ranks(-others, -own)[:count])
            by_site = [
                _ranks(in_rows(drawn, given.plates), truth[name]) for name, drawn in draws.items()
            ]
            together = [site.reshape(len(part), -1) for site in by_site]
            ranks.append(torch.cat(together, dim=1)[:count])
            advance(count)
    names = [f"{name}[{i}]" for name in draws for i in range(truths[name][0, 0].numel())]
    return Calibration(
        torch.cat(ranks).cpu(), torch.cat(density_ranks).cpu(), names, num_samples, seed
    )


def _ranks(draws: Tensor, value: Tensor) -> Tensor:
    """Count the draws (L, n, ...) that lie below the value (1, n, ...).

    Ties are broken at random.
    """
    ties = (draws == value).sum(0)
    return (draws < value).sum(0) + (torch.rand(ties.shape, device=ties.device) * (ties + 1)).long()
