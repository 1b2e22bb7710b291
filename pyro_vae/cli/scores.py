"""The scores of a run: computed, written beside it, printed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.table import Table

from pyro_vae import checkpoint
from pyro_vae.cli.run_data import units_of
from pyro_vae.cli.terminal import console_of
from pyro_vae.cli.titles import title_of
from pyro_vae.contracts import ProgramLike, as_module
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.forms import sha256_of
from pyro_vae.datasets.on_disk import blocks_of
from pyro_vae.datasets.shown import known, measured
from pyro_vae.evaluation.comparison import scores_npz
from pyro_vae.evaluation.global_score import GlobalELBO, PredictiveScore
from pyro_vae.evaluation.importance import evaluate, log_joint
from pyro_vae.evaluation.importance_score import (
    RESTRICTED,
    ImportanceScore,
    draws_needed,
    share_of_bounds,
)
from pyro_vae.evaluation.kept_scores import KeptScores
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.evaluation.proposals import Guide, Proposal, to_try_after
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.evaluation.scores import Score, bits_per_dim, perplexity, versions
from pyro_vae.evaluation.solver import solver_error
from pyro_vae.ranks.group import of_this_process, speaks
from pyro_vae.report.run_files import Estimate, Evaluation, as_json
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.checks import support_of
from pyro_vae.runtime.environment import reference_parameter
from pyro_vae.runtime.latent_pairs import NoBound
from pyro_vae.validation import counted

__all__ = ["print_places", "print_scores", "print_table", "score_run"]

COARSE = 0.1  # an error of the solver, as a share of the score's standard error
MANY = 0.5  # of the data, above the threshold of Pareto k


def score_run(
    program: ProgramLike,
    data: Dataset,
    num_samples: int,
    folder: Path,
    seed: int,
    proposal: Proposal = Guide(),
    told: Callable[[dict[str, Score]], None] | None = None,
) -> dict[str, Score]:
    """Score a program, and write ``evaluation.json`` and ``evaluation.npz`` at one moment.

    ``told`` gets the scores first, which are then seen though the disk may be full.
    """
    kept = _kept_scores(program, data, num_samples, folder, seed)
    try:
        scores = evaluate(program, data, num_samples, seed=seed, progress=True, kept=kept)
    except NoBound as refusal:
        fixed = at_globals(program, data, seed)
        scores = {"log_joint": log_joint(fixed, data, seed=seed)}
        if data.vocabulary is None and not data.parts:
            scores["squared_error"] = squared_error(fixed, data, seed=seed)
        result = _without_bound(scores, str(refusal))
    else:
        if not isinstance(proposal, Guide):  # the ELBO is always the guide's
            again = evaluate(
                program, data, num_samples, proposal=proposal, seed=seed, progress=True
            )
            scores = scores | {"log_likelihood": again["log_likelihood"]}
        if (error := solver_error(program, data, seed=seed)) is not None:
            scores["solver_error"] = error
        result = _with_bound(program, data, scores, proposal)
    result["num_data"] = len(data)
    result["data"] = {
        "name": data.name,
        "split": data.split,
        "binarize": data.binarize,
        "sha256": data.sha256,
    }
    result["seed"], result["versions"] = seed, versions()
    if units := units_of(data):
        result["units"] = units
    if told is not None:
        told(scores)
    if speaks():
        files = {"evaluation.npz": scores_npz(scores), "evaluation.json": as_json(result, True)}
        checkpoint.commit(folder, files)
    if kept is not None:
        kept.remove()
    return scores


def _kept_scores(
    program: ProgramLike, data: Dataset, num_samples: int, folder: Path, seed: int
) -> KeptScores | None:
    """What an evaluation that was ended has left; ``None`` where processes share the data."""
    parts = folder / "evaluation.parts"
    if of_this_process() is not None or parts.is_symlink():  # which would lead out of the run
        return None
    state = program.state_dict().items()
    weights = sha256_of({name: value.double().reshape(-1) for name, value in state}, None)
    device = reference_parameter(program).device.type
    described = checkpoint.described_or_named(as_module(program))
    decides = [weights, described, data.sha256, num_samples, seed, device, versions()]
    key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    kept = KeptScores(parts, key)
    if kept.start:  # by whom, no file can tell
        console_of(stderr=True).print(
            f"goes on from the scores of {kept.start:,} data in {parts}, which an evaluation that "
            "was ended has left; remove that folder to score them anew",
            highlight=False,
            soft_wrap=True,
        )
    return kept


def _without_bound(scores: dict[str, Score], refusal: str) -> Evaluation:
    """The scores of a program whose guide is a point mass."""
    loss, error = scores["log_joint"], scores.get("squared_error")
    result: Evaluation = {
        "elbo": None,
        "log_likelihood": None,
        "refused": refusal,
        "log_joint": {"mean": loss.mean, "se": loss.se},
    }
    if error is not None:
        result["squared_error"] = {"mean": error.mean, "se": error.se}
    return result


def _with_bound(
    program: ProgramLike, data: Dataset, scores: dict[str, Score], proposal: Proposal
) -> Evaluation:
    """The ELBO and the log-likelihood, with diagnostics of the latter."""
    elbo, ll = scores["elbo"], scores["log_likelihood"]
    assert isinstance(ll, ImportanceScore)
    settings = {name: str(value) for name, value in vars(proposal).items()}
    error = scores.get("solver_error")
    solver: Evaluation = {} if error is None else {"solver_error": {"mean": error.mean}}
    return solver | {
        "elbo": _estimate(elbo) | _of_globals(elbo),
        "log_likelihood": _estimate(ll) | {"num_samples": ll.num_samples} | _of_globals(ll),
        "pareto_k": {
            "median": ll.pareto_k.median().item(),
            "max": ll.pareto_k.max().item(),
            "above_threshold": ll.above_threshold,
            "threshold": pareto_k_threshold(ll.num_samples),
            "share_of_bounds": share_of_bounds(ll),
        },
        "proposal": {"name": type(proposal).__name__, **settings},
        "bits_per_dim": _bits_per_dim(program, data, ll),
        "perplexity": perplexity(ll, data),
    }


def _estimate(score: Score) -> Estimate:
    return {"mean": score.mean, "se": score.se, "mc_se": score.mean_mc_se}


def _of_globals(score: Score) -> Estimate:
    """What a score says of global latents; nothing for a program that has none."""
    if isinstance(score, GlobalELBO):
        return {
            "local_mean": score.local_mean,
            "global_kl": score.global_kl,
            "global_kl_se": score.global_kl_se,
            "points": score.points,
        }
    if isinstance(score, PredictiveScore):
        return {"local_draws": score.local_draws}
    return {}


def _bits_per_dim(program: ProgramLike, data: Dataset, score: Score) -> float | None:
    """Bits per observed entry of a discrete x; undefined for a continuous one, or several sites."""
    if data.vocabulary is not None or data.parts:
        return None
    support = support_of(program, data.x, data.context)
    if support is None or not support.is_discrete:
        return None
    entries = len(data) * math.prod(data.datum_shape)
    missing = sum(int(torch.isnan(block).sum()) for _, block in blocks_of(data.tensor))
    observed = (entries - missing) / entries  # per entry that there is
    return bits_per_dim(score, data.datum_shape) / observed if observed else None


def print_scores(
    scores: dict[str, Score],
    data: Dataset,
    folder: Path,
    figures: Sequence[Path] = (),
    proposal: Proposal = Guide(),
) -> None:
    """Print scores as a table, with caveats and the paths of the files."""
    print_table(scores, data, proposal)
    print_places(folder, figures)


def print_table(scores: dict[str, Score], data: Dataset, proposal: Proposal = Guide()) -> None:
    """Print scores as a table, with caveats."""
    console, ll = console_of(), scores.get("log_likelihood")
    table = Table(title=title_of(data), title_justify="left")
    table.add_column("")
    for column in ("mean", "s.e. over data", "Monte Carlo s.e."):
        table.add_column(column, justify="right")
    if isinstance(ll, ImportanceScore):
        notes = _add_bounds(table, scores["elbo"], ll, perplexity(ll, data), proposal)
        notes += _add_solver_error(table, scores.get("solver_error"), ll)
    else:
        notes = _add_losses(table, scores)
    console.print(table)
    units = units_of(data)
    for line in (*notes, *([units] if units else [])):
        console.print(line, highlight=False, soft_wrap=True)


def print_places(folder: Path, figures: Sequence[Path] = ()) -> None:
    """Print where a run, its scores and its figures are."""
    for line in (
        f"run      {folder}",
        f"scores   {folder / 'evaluation.json'}",
        *(f"figure   {path}" for path in figures),
    ):
        console_of().print(line, highlight=False, soft_wrap=True)


def _add_bounds(
    table: Table, elbo: Score, ll: ImportanceScore, perplexity: float | None, proposal: Proposal
) -> list[str]:
    """Add the rows of a program with a bound; return its caveats."""
    is_bound = share_of_bounds(ll) > 0
    mean, mc_se = known(ll.mean), known(ll.mean_mc_se, 3)
    if is_bound:  # its Monte Carlo error would be too short
        mean, mc_se = f">= {mean}", "unknown"
    table.add_row("ELBO", known(elbo.mean), known(elbo.se), known(elbo.mean_mc_se, 3))
    if isinstance(elbo, GlobalELBO):
        table.add_row("  local part", known(elbo.local_mean), "", "")
        share = -elbo.global_kl / len(elbo.values)
        words = "at points" if elbo.points else known(share)
        error = known(elbo.global_kl_se / len(elbo.values), 3)
        table.add_row("  global latents", words, "", error)
    table.add_row(_label(ll), mean, known(ll.se), mc_se)
    table.add_section()
    notes = []
    if isinstance(elbo, GlobalELBO):
        notes = [f"The ELBO is that of these data together, per datum: {elbo.note}."]
    if perplexity is not None:
        table.add_row("perplexity of a word", f"{'<= ' * is_bound}{perplexity:.1f}", "", "")
    above, k = ll.above_threshold, ll.pareto_k
    if above is None:
        table.add_row("Pareto k", "needs more draws", "", "")
        return [
            *notes,
            f"log p(x) is at least {known(ll.mean)}: {ll.num_samples:,} draws are too few to state "
            f"an error. About {draws_needed(ll):,} would bring its bias below 0.01 nats, as far as "
            "these draws can tell: evaluate with that --num-samples or more.",
        ]
    if ll.is_restricted:
        table.add_row("Pareto k", "none", "", "")
        return [
            *notes,
            f"log p(x) is at least {known(ll.mean)}: {RESTRICTED}. Where its values are few, "
            "evaluate with --proposal Defensive --proposal.weight 0.3.",
        ]
    threshold = f"{pareto_k_threshold(ll.num_samples):.2f}"
    middle, largest = f"median {k.nanmedian():.2f}", f"max {k[~k.isnan()].max():.2f}"
    table.add_row("Pareto k", middle, largest, f"{above} above or near {threshold}")
    if not is_bound:
        return notes
    return [
        *notes,
        f"log p(x) is at least {known(ll.mean)}: {counted(above, 'datum has', 'data have')} "
        f"a Pareto k above or near {threshold}: a few draws decide "
        f"{'its estimate, which is' if above == 1 else 'their estimates, which are'} likely too "
        "low. "
        f"{_how_to_go_on(proposal, above / len(k))}",
    ]


def _add_solver_error(table: Table, error: Score | None, ll: Score) -> list[str]:
    """Add the error of a prior's ODE, where there is one; say if it is too large."""
    if error is None:
        return []
    table.add_row("error of the ODE", f"{error.mean:.4f}", "", "")
    if error.mean < COARSE * ll.se:
        return []
    return [
        "The prior's ODE is solved in too few steps for these scores: load the run, double "
        "program.prior.steps, save it with pv.save, and evaluate that."
    ]


def _how_to_go_on(proposal: Proposal, share: float) -> str:
    """What mends a Pareto k that is too high; no chain of ever wider proposals without an end."""
    if share > MANY and not isinstance(proposal, Guide):
        return (
            "Where most stay above under another proposal too, a wider one seldom helps: state "
            "the bound as one, or bracket log p(x) (pyro-vae anneal RUN)."
        )
    return f"{_advice(proposal)}, or train with a more flexible --posterior."


def _advice(proposal: Proposal) -> str:
    """The proposals to try after one, as flags; where none is left, annealing."""
    if not (found := to_try_after(proposal)):
        return "Anneal it (pyro-vae anneal RUN)"
    usual = type(found[0])().factor
    flags = [
        "--proposal Widened"
        + (f" --proposal.factor {each.factor}" if each.factor != usual else "")
        + (" --proposal.of Refitted" if each.of is not None else "")
        for each in found
    ]
    return f"Evaluate with {', or with '.join(flags)}"


def _label(ll: ImportanceScore) -> str:
    """What log p(x) is given, and its draws."""
    if isinstance(ll, PredictiveScore):
        return f"log p(x | training data), {ll.num_samples:,} x {ll.local_draws} draws"
    return f"log p(x), K = {ll.num_samples:,}"


def _add_losses(table: Table, scores: dict[str, Score]) -> list[str]:
    """Add the rows of a program whose guide is a point mass; return its caveats."""
    for name, key in (
        ("minus the loss", "log_joint"),
        ("squared error per entry", "squared_error"),
    ):
        if key in scores:
            score = scores[key]
            table.add_row(name, measured(score.mean, score.se), known(score.se), "")
    return [
        "A guide that is a point has neither an ELBO nor a log p(x): these are its loss and its "
        "reconstruction error."
    ]
