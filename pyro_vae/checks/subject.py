"""What is checked, and what several checks need of it: each is made once, on first use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors, known_by
from pyro_vae.datasets.columns import Column
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.diagnostics.calibration import Calibration, calibrate
from pyro_vae.distributions import stated_support, words_of
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.evaluation.importance_score import RESTRICTED, ImportanceScore
from pyro_vae.evaluation.proposals import Proposal
from pyro_vae.evaluation.scores import Score
from pyro_vae.programs import is_unconditional
from pyro_vae.programs.contexts import marks_of
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import to_real
from pyro_vae.runtime.simulation import simulate
from pyro_vae.training.history import History, Row
from pyro_vae.validation import InvalidInput, flattened, tensors_of

__all__ = [
    "CannotTell",
    "Claims",
    "DoesNotApply",
    "Entries",
    "Scored",
    "Subject",
    "rows_of_entries",
    "seeded_rows",
]

T = TypeVar("T")

MOST = 500  # data that the checks look at
RANKS = 99  # draws among which a latent is ranked
REPLICATES = 4  # simulated data for each real one
SIMULATED = 1000  # data whose latents are ranked


class CannotTell(Exception):
    """Why a check cannot be made, and what to change so that it can.

    Args:
        means: why, in one sentence without its full stop.
        change: what to change: more data, more draws, more minutes, another proposal.
    """

    def __init__(self, means: str, change: str):
        super().__init__(means)
        self.change = change


class DoesNotApply(CannotTell):
    """Why a check cannot be asked of such a program, in one sentence; nothing changes that."""

    def __init__(self, means: str):
        super().__init__(means, "")


@dataclass(frozen=True)
class Scored:
    """The data of a score that is reported, as ``evaluation.json`` has them.

    Args:
        sha256: their SHA-256.
        num_data: how many they are, the first of a split.
        name: of the data set.
        split: train, test, or all.
    """

    sha256: str
    num_data: int
    name: str = "data"
    split: str = "test"

    def are(self, data: Dataset) -> bool:
        """Whether they are these data, or the first of them."""
        if self.num_data > len(data):
            return False
        first = data if self.num_data == len(data) else data[: self.num_data]
        return first.sha256 == self.sha256


@dataclass(frozen=True)
class Claims:
    """What a run says of itself, which the checks hold against the data.

    Args:
        binarize: how its data were binarised.
        sha256: the SHA-256 of its test data.
        num_samples: the draws K of the log p(x) that it reports.
        scored: the data of that log p(x).
        whole: the test data that were scored or might have been, where those that are looked at
            are only some of them.
        proposal: what they were drawn from; the guide, if none is given.
    """

    binarize: str | None = None
    sha256: str | None = None
    num_samples: int | None = None
    scored: Scored | None = None
    whole: Dataset | None = None
    proposal: Proposal | None = None


@dataclass(frozen=True)
class Entries:
    """Real and simulated data of one part of x as rows of entries.

    Args:
        name: of the part.
        places: of the entries (D,) among those of the part, without those that are bounds.
        columns: what each entry is called: its column, or its place.
        real: the data (N, D), NaN where an entry is missing.
        simulated: draws of the model (R, N, D), each under the context of its datum, and missing
            where the datum is.
    """

    name: str
    places: Tensor
    columns: Sequence[str]
    real: Tensor
    simulated: Tensor

    @property
    def is_discrete(self) -> Tensor:
        """Which entries the model draws as whole numbers (D,)."""
        flat = self.simulated.flatten(0, 1)
        return ((flat == flat.round()) | flat.isnan()).all(0)

    @property
    def is_binary(self) -> Tensor:
        """Which entries the model draws as 0 or 1 (D,)."""
        flat = self.simulated.flatten(0, 1)
        return ((flat == 0) | (flat == 1) | flat.isnan()).all(0)


@dataclass(frozen=True)
class Subject:
    """A program with its data, and what it is said of them.

    Args:
        program: the program.
        test: the data that it is judged by.
        train: the data that it was trained on, if known.
        history: of its training, if known.
        claims: what its run says of itself.
        seed: of all draws.
    """

    program: ProgramLike
    test: Dataset
    train: Dataset | None = None
    history: History | Sequence[Row] | None = None
    claims: Claims = field(default_factory=Claims)
    seed: int = 0
    _made: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    def once(self, make: Callable[[Subject], T]) -> T:
        """What a function makes of the subject, made once for all checks that need it."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(T, self._made[make])

    @cached_property
    def few(self) -> Dataset:
        """The data that are looked at: at random, where there are many."""
        return seeded_rows(self.test, MOST, self.seed)

    @cached_property
    def local(self) -> ProgramLike:
        """The program at one draw of its global latents; itself if it has none."""
        return at_globals(self.program, self.few, self.seed)

    @property
    def context(self) -> Tensors | None:
        """The context of the data; ``None`` for a program that takes no notice of it."""
        return None if is_unconditional(self.program) else self.few.context

    @property
    def told(self) -> dict[str, Tensor]:
        """The context by name, without what is part of what was seen of x, such as a bound."""
        seen = {name for name, one in known_by(self.program).items() if one.tells_x}
        return {name: v for name, v in tensors_of(self.context).items() if name not in seen}

    @property
    def num_samples(self) -> int:
        """The draws K of the log p(x) that is reported."""
        return self.claims.num_samples or 1000

    def calibration(self, part: float = 1.0) -> Calibration:
        """Ranks of simulated latents among draws of the guide, made once.

        Args:
            part: of the most data that are simulated, like the real data in turn.
        """
        if "calibration" not in self._made:
            count = math.ceil(part * SIMULATED)
            found = calibrate(self.local, count, RANKS, like=self.few, seed=self.seed)
            self._made["calibration"] = found
        return cast(Calibration, self._made["calibration"])

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The ELBO and log p(x) of the data, from K draws."""
        return evaluate(self.local, self.few, self.num_samples, seed=self.seed)

    @property
    def log_p(self) -> ImportanceScore:
        """The log p(x) of the data, from K draws."""
        score = self.scores["log_likelihood"]
        assert isinstance(score, ImportanceScore)
        return score

    def simulate(self, seed: int) -> Tensors:
        """Data drawn from the model, one like each real datum in all but its values."""
        return simulate(self.program, self.few, seed)

    @cached_property
    def entries(self) -> list[Entries]:
        """Real and simulated data by part of x, as rows of entries.

        Raises:
            DoesNotApply: where some of each entry's data are bounds, which no draw is like.
        """
        draws = [tensors_of(self.simulate(self.seed + 1 + i)) for i in range(REPLICATES)]
        parts = []
        for name, x in tensors_of(self.few.x).items():
            (places,) = torch.where(self._are_values(x))
            real = flattened(x).double().cpu()[:, places]
            drawn = torch.stack([flattened(each[name]).double().cpu() for each in draws])
            drawn = drawn[..., places]
            columns = [self.column(name or "x", i) for i in places.tolist()]
            if columns:
                parts.append(Entries(name or "x", places, columns, real, drawn))
        if not parts:
            raise DoesNotApply("some data of every entry are bounds, and no draw is like a bound")
        return parts

    def _are_values(self, x: Tensor) -> Tensor:
        """Which entries of a part of x (D,) are values in all data, none of them a bound."""
        are, context = torch.ones(x[0].numel(), dtype=torch.bool), tensors_of(self.few.context)
        for name, mark in marks_of(self.program).items():
            known = context[name]
            if known.dim() == 1:
                known = known.reshape(-1, *(1,) * (x.dim() - 1))
            if known.dim() == x.dim():
                are &= flattened((known == mark) | x.isnan()).all(0).cpu()
        return are

    def need_history(self) -> Sequence[Row]:
        """The rows of the training's history.

        Raises:
            CannotTell: where there is none.
        """
        rows = self.history.rows if isinstance(self.history, History) else self.history
        if not rows:
            raise CannotTell(
                "the history of the training is not known",
                "Pass history=, what pyro_vae.fit returned; of a run, check its own folder.",
            )
        return rows

    def need_train(self) -> Dataset:
        """The data that the program was trained on.

        Raises:
            CannotTell: where they are not known.
        """
        if self.train is None:
            raise CannotTell(
                "the data that the program was trained on are not known",
                "Pass train=; of a run, check it on its own data, without --data.",
            )
        return self.train

    def need_real_latents(self, *, or_discrete: bool = False) -> None:
        """Make sure that each latent has a smooth map to real numbers, in which it can move.

        Args:
            or_discrete: whether a discrete one will do, too.

        Raises:
            DoesNotApply: where one is discrete, or lies on a sphere.
        """
        with conditioned(self.local, self.few[:1], self.seed, scored=False) as given:
            for name, site in latent_sites(given.trace(given.model, 1)).items():
                support = stated_support(site["fn"])
                if or_discrete and support.is_discrete:
                    continue
                try:
                    to_real(name, site["fn"])
                except InvalidInput:
                    raise DoesNotApply(
                        f"the latent {name} has no map to real numbers, in which it could move: "
                        f"its support is {words_of(support)}"
                    ) from None

    def need_all_values(self) -> None:
        """Make sure that the guide reaches all values of each discrete latent.

        Raises:
            CannotTell: where it takes one of them.
        """
        with conditioned(self.local, self.few[:1], self.seed) as given:
            if given.plates.chooses:
                raise CannotTell(
                    RESTRICTED,
                    "Where its values are few, evaluate with --proposal Defensive "
                    "--proposal.weight 0.3; else use a posterior that reaches all of them.",
                )

    @cached_property
    def by_category(self) -> list[Entries]:
        """The same, with an entry for each category, 1 where a datum is of it.

        The numbers of categories have no order, nor are they counts.
        """
        known = self.test.columns or ()
        named = {
            i: column for i, column in enumerate(known) if column.kind in ("category", "ordinal")
        }
        return [_by_category(part, named) for part in self.entries]

    def in_units(self, name: str, values: Tensor) -> Tensor:
        """Values of a column in its own units; as they are where no column has that name."""
        known = [column for column in self.test.columns or () if column.name == name]
        return values * known[0].scale + known[0].center if known else values

    def column(self, part: str, entry: int) -> str:
        """What an entry of x is called: the name of its column, or its place."""
        columns = self.test.columns
        if columns is not None and entry < len(columns.names):
            return columns.names[entry]
        return f"{part}[{entry}]"


def _by_category(part: Entries, named: dict[int, Column]) -> Entries:
    """A part whose columns with categories have an entry for each of them."""
    names: list[str] = []
    real: list[Tensor] = []
    drawn: list[Tensor] = []
    for i, name in enumerate(part.columns):
        categories = named[i].categories if i in named else ()
        names += [f"{name} = {each}" for each in categories] or [name]
        for made, values in ((real, part.real[:, i]), (drawn, part.simulated[..., i])):
            made += [
                torch.where(values.isnan(), torch.nan, (values == c).double())
                for c in range(len(categories))
            ] or [values]
    return Entries(part.name, part.places, names, torch.stack(real, -1), torch.stack(drawn, -1))


def seeded_rows(data: Dataset, most: int, seed: int) -> Dataset:
    """At most so many data, chosen at random, in their order."""
    if len(data) <= most:
        return data
    generator = torch.Generator().manual_seed(seed)
    return data[torch.randperm(len(data), generator=generator)[:most].sort().values]


def rows_of_entries(x: Tensors) -> Tensor:
    """All parts of data as rows of entries (N, D)."""
    return torch.cat([flattened(part).double().cpu() for part in tensors_of(x).values()], dim=1)
