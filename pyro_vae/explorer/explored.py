"""What can be asked of a run while one looks around in its latent space."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors, num_classes_of, sites_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.shown import plus_minus
from pyro_vae.diagnostics.inference_data import LARGEST_R_HAT, UnreliableDraws, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.diagnostics.two_sample import TwoSampleTest, compare_posteriors, largest_r_hat
from pyro_vae.distributions import innermost_support, stated_support, words_of
from pyro_vae.evaluation.active import active_units
from pyro_vae.evaluation.importance import log_likelihood
from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.inspection.embedding import latent_site
from pyro_vae.inspection.plane import plane_of
from pyro_vae.programs import SemiSupervisedVAE, is_unconditional
from pyro_vae.programs.contexts import with_labels
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.decoding import decode
from pyro_vae.runtime.latents import in_rows
from pyro_vae.runtime.predictive import encode
from pyro_vae.validation import InvalidInput, map_tensors, rows_of

__all__ = ["Explored", "PriorDraws", "Reference"]

REAL = torch.distributions.constraints.real


@dataclass(frozen=True)
class PriorDraws:
    """Draws from the prior.

    Args:
        z: the latents (M, D) of the site on the map.
        x: what they are decoded to, (M, *event).
    """

    z: Tensor
    x: Tensors


@dataclass(frozen=True)
class Reference:
    """Draws of NUTS from one datum's posterior, and how q(z | x) differs from them.

    Args:
        z: the draws (S, D) of the site on the map.
        r_hat: the largest R-hat of the chains.
        test: how well a classifier tells draws of q from them.
    """

    z: Tensor
    r_hat: float
    test: TwoSampleTest

    def __str__(self) -> str:
        said = (
            f"R-hat {self.r_hat:.2f}; a classifier tells q from NUTS in "
            f"{plus_minus(100 * self.test.accuracy, 100 * self.test.se, 0)} % of draws "
            "(50 % if they are alike)"
        )
        if self.r_hat > LARGEST_R_HAT:
            said += "; the chains have not met: several modes, or chains that are too short"
        return said


class Explored:
    r"""A program and data, as one looks around in the latent space.

    The map is of the latent site nearest to x, by `pyro_vae.inspection.plane_of`. The other sites
    and the context are those of a datum that the caller names.

    Args:
        name: of the run.
        program: any program; its global latents are put at one draw from the guide.
        data: the data to show.
        num_samples: draws K for the scores.
        seed: seed of every draw.
        progress: show bars.

    Attributes:
        means: of q(z | x) (N, D), or draws where there are no means.
        score: log p(x) of each datum, or ``None`` where it has none.
        notes: what was left out or is special, in words.

    Raises:
        InvalidInput: on unusable data or settings.

    Example:
        >>> run = Explored("a", vae, Dataset(torch.zeros(4, 1, 8, 8)), num_samples=20)
        >>> run.decode(run.means[:2], datum=0).shape, run.draws(0, 5).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        name: str,
        program: ProgramLike,
        data: Dataset,
        *,
        num_samples: int = 200,
        seed: int = 0,
        progress: bool = False,
    ):
        self.name, self.data, self.seed = name, data, seed
        self.notes: list[str] = []
        self.program = at_globals(program, data, seed)
        if self.program is not program:
            self.notes.append("All is at one draw of the global latents.")
        self.site = latent_site(self.program, data)
        self.latents = self._encoded()
        rows = self.latents[self.site]
        self.event = rows.shape[1:]
        self.means = rows.reshape(len(rows), -1).double().cpu()
        self.plane = plane_of(self.means)
        self.points = self.plane.project(self.means)
        self.is_flat = self._is_flat()
        self.score = self._scored(num_samples, progress)

    def _encoded(self) -> dict[str, Tensor]:
        try:
            return encode(self.program, self.data, seed=self.seed)
        except InvalidInput:
            self.notes.append("q(z | x) has no mean in closed form: the map shows a draw for each.")
            return encode(self.program, self.data, draws=True, seed=self.seed)

    def _is_flat(self) -> bool:
        """Whether every point of the latent space is a latent; else only the data's are."""
        with conditioned(self.program, self.data[:1], self.seed, scored=False) as given:
            prior = sites_of(given.traces()[1])[self.site]["fn"]
            support = innermost_support(stated_support(prior))
        if support is not REAL:
            self.notes.append(
                f"The support of the latent is {words_of(support)}: a click takes the nearest "
                "datum's, and there are no sliders."
            )
        return support is REAL

    def _scored(self, num_samples: int, progress: bool) -> ImportanceScore | None:
        try:
            return log_likelihood(
                self.program, self.data, num_samples, seed=self.seed, progress=progress
            )
        except InvalidInput as refusal:
            self.notes.append(f"No log p(x): {refusal}.")
            return None

    @property
    def num_classes(self) -> int | None:
        """The number of labels that one may decode under."""
        return num_classes_of(self.program)

    def active(self) -> list[int]:
        """The latent dimensions that move with the data, those that move most first.

        Where none does, as in a posterior that has collapsed, the first is given.
        """
        if not self.is_flat:
            return []
        units = active_units(self.program, self.data[:500], num_samples=20, seed=self.seed)
        share = units.share[self.site].flatten()
        moves = units.moves[self.site].flatten()
        order = share.argsort(descending=True).tolist()
        return [d for d in order if moves[d]] or order[:1]

    def latent_at(self, point: Sequence[float], through: Tensor | None = None) -> Tensor:
        """The latent (D,) at a point of the map.

        Args:
            point: where on the map.
            through: a latent whose distance from the plane of the map is kept.
        """
        at = torch.tensor(point, dtype=torch.float64)
        if not self.is_flat:
            return self.means[(self.points - at).norm(dim=1).argmin()]
        return self.plane.latent_at(at, through)

    def datum_at(self, point: Sequence[float], within: float = 0.015) -> int | None:
        """The datum at a point of the map, if there is one within a share of the map's width."""
        extent = (self.points.amax(0) - self.points.amin(0)).clamp_min(1e-12)
        gaps = ((self.points - torch.tensor(point, dtype=torch.float64)) / extent).norm(dim=1)
        nearest = int(gaps.argmin())
        return nearest if gaps[nearest] <= within else None

    def decode(self, z: Tensor, datum: int, label: int | None = None) -> Tensors:
        r"""Decode latents (M, D) to means of p(x | z), or modes where x has no mean, (M, \*event).

        Args:
            z: of the site on the map.
            datum: whose context and other latents are taken.
            label: a label in place of the datum's.
        """
        count = len(z)
        values = {
            name: value[[datum] * count].to(self.data.device)
            for name, value in self.latents.items()
        }
        values[self.site] = z.to(values[self.site]).reshape(count, *self.event)
        if label is not None and isinstance(self.program, SemiSupervisedVAE):
            values["y"] = torch.zeros_like(values["y"])
            values["y"][:, label] = 1.0  # which is a latent there, and not the datum's own now
        return self._decode(values, [datum] * count, label)

    def _decode(self, values: dict[str, Tensor], rows: list[int], label: int | None) -> Tensors:
        given: Tensors = values if len(values) > 1 else values[self.site]
        context = None if is_unconditional(self.program) else self._context(rows, label)
        made = decode(self.program, given, context, seed=self.seed)
        return map_tensors(lambda x: x.detach().cpu(), made)

    def _context(self, rows: list[int], label: int | None) -> Tensors | None:
        own = rows_of(self.data.context, rows)
        if label is None:
            return own
        return with_labels(self.program, own, torch.full((len(rows),), label))

    def draws(self, datum: int, num: int) -> Tensor:
        """Draws (S, D) from q(z | x) of a datum."""
        with conditioned(self.program, self.data[[datum]], self.seed, scored=False) as given:
            drawn = in_rows(given.draw(given.guide, num)[self.site], given.plates)
        return drawn.reshape(num, -1).detach().double().cpu()

    def prior(self, num: int, datum: int, label: int | None = None, *, seed: int = 0) -> PriorDraws:
        """Draws from the prior under a datum's context, or under a label, and what they decode to.

        Args:
            num: how many.
            datum: whose context is taken.
            label: a label in place of the datum's.
            seed: seed of the draws.
        """
        rows = [datum] * num
        data = self.data[rows]
        if not is_unconditional(self.program):
            data = data.with_context(self._context(rows, label))
        with conditioned(self.program, data, seed, scored=False) as given:
            drawn = given.draw(given.model, 1)
            values = {name: in_rows(value, given.plates)[0] for name, value in drawn.items()}
        z = values[self.site].reshape(num, -1).detach().double().cpu()
        return PriorDraws(z, self._decode(values, rows, label))

    def reference(self, datum: int, sampler: NUTS = NUTS(), num: int = 400) -> Reference:
        """Draws of NUTS from p(z | x) of a datum, compared with as many of q(z | x).

        Raises:
            InvalidInput: for latents that NUTS cannot draw.
        """
        one = self.data[[datum]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreliableDraws)  # R-hat says it
            chains = to_inference_data(self.program, one, num, sampler=sampler, seed=self.seed)
        ours = to_inference_data(self.program, one, num, seed=self.seed)
        found = compare_posteriors(ours, chains, seed=self.seed)
        values = torch.from_numpy(chains["posterior"][self.site].values.reshape(num, -1))
        return Reference(values.double(), largest_r_hat(chains), found.tests[0])

    def facts(self, datum: int) -> dict[str, str]:
        """The numbers of a datum in words: its label, log p(x), Pareto k and ESS."""
        found = {"datum": str(datum)}
        if (labels := self.data.labels) is not None:
            found["label"] = self.label_name(int(labels[datum]))
        if (score := self.score) is None:
            return found
        value, error = float(score.values[datum]), float(score.mc_se[datum])
        is_bound = bool(score.is_bound[datum])
        # The error of a bound is not known.
        said = f">= {value:.2f}" if is_bound else plus_minus(value, error)
        found["log p(x)"] = f"{said} nats"
        k, threshold = float(score.pareto_k[datum]), pareto_k_threshold(score.num_samples)
        found["Pareto k"] = (
            f"needs more than {score.num_samples} draws"
            if k != k
            else f"{k:.2f}, {'above or near' if is_bound else 'below'} {threshold:.2f}"
        )
        found["ESS"] = f"{float(score.ess[datum]):.0f} of {score.num_samples}"
        return found

    def label_name(self, label: int) -> str:
        """The name of a label, or its number."""
        names = self.data.label_names
        return names[label] if 0 <= label < len(names) else str(label)
