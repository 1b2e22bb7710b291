"""Missing entries filled in, with draws and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.dataset import Data, Dataset, as_dataset
from pyro_vae.datasets.forms import only_tensor
from pyro_vae.datasets.shown import facts_html
from pyro_vae.datasets.standard import context_frame
from pyro_vae.distributions import are_names, entries_of
from pyro_vae.programs import as_program
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.checks import checked_data, traces_at
from pyro_vae.runtime.memory import chunks
from pyro_vae.runtime.noise import block_seed
from pyro_vae.runtime.observed import observed_of
from pyro_vae.runtime.predictive import reconstruct
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.validation import InvalidInput, as_number, check_count, check_seed, flattened

if TYPE_CHECKING:
    import pandas

__all__ = ["Imputation", "impute"]

AT_ONCE = 2**22  # entries that are drawn at once


@dataclass(frozen=True, repr=False)
class Imputation:
    r"""Data with their missing entries filled in.

    Args:
        x: the completed data (N, \*event): medians of the draws, of categories the most frequent.
        places: where the M missing entries are (M, 1 + event dimensions).
        draws: draws of each of them (S, M).
        low: lower ends (M,) of their intervals.
        high: upper ends.
        columns: of a table, its columns; ``x`` and the draws are in the units of the data set,
            `frame` and `entries` in the columns' own.
        given: the columns of the context, as a table.
        observed: the table as it was read, with its gaps.
    """

    x: Tensor
    places: Tensor
    draws: Tensor
    low: Tensor
    high: Tensor
    columns: Columns | None = None
    given: pandas.DataFrame | None = None
    observed: pandas.DataFrame | None = None

    def __repr__(self) -> str:
        return f"Imputation({self})"

    def __str__(self) -> str:
        return (
            f"{len(self.places):,} missing entries of {len(self.x):,} data filled in, "
            f"{len(self.draws):,} draws of each"
        )

    def _repr_html_(self) -> str:
        facts = {"data": f"{len(self.x):,}", "missing entries": f"{len(self.places):,}"}
        return facts_html("imputation", facts | {"draws of each": f"{len(self.draws):,}"})

    def frame(self) -> pandas.DataFrame:
        """The completed table, in the columns' own units; those of the context come last.

        What was observed is as it was read, to the last digit.
        """
        import pandas

        if self.columns is not None:
            frame = self.columns.frame(self.x)
            if self.observed is not None:
                frame = self.observed.where(self.observed.notna(), frame)
            return frame if self.given is None else pandas.concat([frame, self.given], axis=1)
        return pandas.DataFrame(flattened(self.x).cpu().numpy())

    def entries(self) -> pandas.DataFrame:
        """A row for each missing entry: its place, value, interval and draws."""
        import pandas

        values = [self.x[tuple(self.places.T)], self.low, self.high, *self.draws]
        names = ["value", "low", "high", *(f"draw_{i}" for i in range(1, len(self.draws) + 1))]
        columns = self.columns
        table: dict[str, object] = {"row": self.places[:, 0].tolist()}
        if columns is None:
            table |= {f"index_{i}": part.tolist() for i, part in enumerate(self.places.T[1:])}
            return pandas.DataFrame(table | {n: v.tolist() for n, v in zip(names, values)})
        where = self.places[:, 1].tolist()
        table["column"] = [columns[place].name for place in where]
        for name, value in zip(names, values):
            table[name] = [columns[place].shown(each) for place, each in zip(where, value.tolist())]
        return pandas.DataFrame(table)


def impute(
    program: ProgramLike,
    data: Data,
    num_draws: int = 100,
    *,
    probability: float = 0.9,
    seed: int = 0,
    progress: bool = False,
) -> Imputation:
    r"""Fill in missing entries: draws of p(x_mis | z), z ~ q(z | x_obs).

    What was observed stays. The draws are of the posterior predictive density as far as q is the
    posterior (multiple imputation). Each has a draw of its own of global latents, which all its
    entries share.

    Args:
        program: any program that was trained on data with missing entries.
        data: data with NaN where an entry is missing; a table keeps its names and units.
        num_draws: draws S of each entry.
        probability: of the intervals, between quantiles of the draws.
        seed: seed of the draws.
        progress: show a bar.

    Raises:
        InvalidInput: if nothing is missing, or the probability is none.

    Source: Mattei and Frellsen (2019), MIWAE; Rubin (1987), Multiple Imputation for Nonresponse in
    Surveys.

    Example:
        >>> table = pv.VAE(
        ...     pv.priors.StandardNormal(1),
        ...     pv.likelihoods.Missing(pv.likelihoods.Normal(2, pv.networks.MLP(1, [8]))),
        ...     pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(2, pv.networks.MLP(4, [8]))))
        >>> x = torch.tensor([[0.5, torch.nan], [1.0, 2.0]])
        >>> filled = pv.impute(table, pv.datasets.Dataset(x, missing=True), num_draws=20)
        >>> filled.draws.shape, filled.x[1].tolist(), bool(filled.low <= filled.x[0, 1])
        (torch.Size([20, 1]), [1.0, 2.0], True)
    """
    check_count("num_draws", num_draws)
    check_seed(seed)
    if not 0 < as_number(probability) < 1:
        raise InvalidInput(
            "probability", got=str(probability), expected="one within (0, 1)", fix="pass 0.9"
        )
    dataset = as_dataset(data)
    x = dataset.tensor
    places = torch.isnan(x).nonzero().cpu()
    if not len(places):
        raise InvalidInput(
            "data",
            got=f"{dataset.name}, without missing entries",
            expected="NaN where an entry is to be filled in",
            fix="check that gaps were read as missing",
        )
    rows, inverse = places[:, 0].unique(return_inverse=True)
    few = dataset[rows]
    few.missing = True
    made, program = [], as_program(program)
    # Data that are drawn at once share their global latents, and every draw needs its own.
    shares = at_globals(program, few, seed) is not program
    size = 1 if shares else max(1, AT_ONCE // max(1, few.tensor.numel()))
    with progress_bar("draws", total=num_draws, shown=progress) as advance:
        for chunk in chunks(num_draws, size):
            count = chunk.stop - chunk.start
            completed = _completions(program, few, count, block_seed(seed, chunk.start))
            made.append(completed[:, inverse, *places.T[1:]].to(x.dtype))
            advance(count)
    draws = torch.cat(made)
    ends = [(1 - probability) / 2, 0.5, (1 + probability) / 2]
    low, middle, high = torch.from_numpy(np.quantile(draws.numpy(), ends, axis=0)).to(x.dtype)
    columns = dataset.columns
    named = _are_names(program, few).expand(x.shape[1:])[tuple(places.T[1:])]
    middle = torch.where(named, draws.mode(dim=0).values, middle)
    if columns is not None:
        whole = torch.tensor([column.is_whole for column in columns])[places[:, 1]]
        low, middle, high = (
            torch.where(whole, value.round(), value) for value in (low, middle, high)
        )
    completed = x.cpu().clone()
    completed[tuple(places.T)] = middle
    if columns is None:
        return Imputation(completed, places, draws, low, high)
    given, observed = context_frame(dataset), dataset.frame()
    return Imputation(completed, places, draws, low, high, columns, given, observed)


def _are_names(program: ProgramLike, data: Dataset) -> Tensor:
    """Which entries of a datum are categories, whose numbers stand for names."""
    if data.columns is not None:
        return torch.tensor([bool(column.categories) for column in data.columns])
    x, context = checked_data(program, data)
    law = observed_of(traces_at(program, x, context)[1])["fn"]
    return are_names(entries_of(law))


def _completions(program: ProgramLike, data: Dataset, num_draws: int, seed: int) -> Tensor:
    r"""The data completed (S, N, \*event): each datum is there S times, with draws of its own."""
    many = data[torch.arange(len(data)).repeat(num_draws)]
    made = only_tensor(reconstruct(program, many, seed=seed))
    return made.cpu().unflatten(0, (num_draws, len(data)))
