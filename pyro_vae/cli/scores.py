"""The scores of a run: computed, written beside it, printed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pyro_vae import checkpoint
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.evaluation.comparison import save_scores
from pyro_vae.evaluation.importance import evaluate, log_joint
from pyro_vae.evaluation.proposals import Guide, Proposal
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.evaluation.scores import (
    ImportanceScore,
    Score,
    bits_per_dim,
    pareto_k_threshold,
    perplexity,
    versions,
)
from pyro_vae.runtime.checks import support_of
from pyro_vae.runtime.traces import NoBound


def score_run(
    program: ProgramLike,
    data: Dataset,
    num_samples: int,
    folder: Path,
    seed: int,
    proposal: Proposal = Guide(),
) -> dict[str, Score]:
    about = {
        "num_data": len(data),
        "data": {
            "name": data.name,
            "split": data.split,
            "binarize": data.binarize,
            "sha256": data.sha256,
        },
        "seed": seed,
        "versions": versions(),
    }
    try:
        scores = evaluate(program, data, num_samples, seed=seed, progress=True)
    except NoBound as refusal:
        scores = {"log_joint": log_joint(program, data, seed=seed)}
        if data.vocabulary is None:
            scores["squared_error"] = squared_error(program, data, seed=seed)
        result: dict[str, Any] = {
            "elbo": None,
            "log_likelihood": None,
            "refused": str(refusal),
            **{name: {"mean": score.mean, "se": score.se} for name, score in scores.items()},
        }
        _write_scores(folder, scores, result | about)
        return scores
    if not isinstance(
        proposal, Guide
    ):  # the ELBO is the guide's own whatever the log-likelihood is estimated with
        scores |= {
            "log_likelihood": evaluate(
                program, data, num_samples, proposal=proposal, seed=seed, progress=True
            )["log_likelihood"]
        }
    elbo, ll = scores["elbo"], scores["log_likelihood"]
    assert isinstance(ll, ImportanceScore)
    result = {
        "elbo": {"mean": elbo.mean, "se": elbo.se, "mc_se": elbo.mean_mc_se},
        "log_likelihood": {
            "mean": ll.mean,
            "se": ll.se,
            "mc_se": ll.mean_mc_se,
            "num_samples": num_samples,
        },
        "pareto_k": {
            "median": ll.pareto_k.median().item(),
            "max": ll.pareto_k.max().item(),
            "above_threshold": ll.above_threshold,
            "threshold": pareto_k_threshold(num_samples),
        },
        "proposal": {
            "name": type(proposal).__name__,
            **{key: str(value) for key, value in vars(proposal).items()},
        },
        "bits_per_dim": _bits_per_dim(program, data, ll) if data.vocabulary is None else None,
        "perplexity": perplexity(ll, data),
    }
    _write_scores(folder, scores, result | about)
    return scores


def _write_scores(folder: Path, scores: dict[str, Score], result: dict[str, Any]) -> None:
    save_scores(folder / "evaluation.npz", scores)
    checkpoint.write_text(
        folder / "evaluation.json", json.dumps(without_nan(result), indent=1) + "\n"
    )


def _bits_per_dim(program: ProgramLike, data: Dataset, score: Score) -> float | None:
    """Bits per observed entry of x where x is discrete; a density in the units of x has no such number."""
    support = support_of(program, data.x, data.context)
    if support is None or not support.is_discrete:
        return None
    observed = (~torch.isnan(data.x)).double().mean().item()  # per entry that there is
    return bits_per_dim(score, data.event_shape) / observed if observed else None


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_scores(
    scores: dict[str, Score], data: Dataset, folder: Path, figures: Sequence[Path] = ()
) -> None:
    table = Table(
        title=f"{data.name}, {data.split}, {len(data):,} data; nats per datum", title_justify="left"
    )
    for column, justify in (
        ("", "left"),
        ("mean", "right"),
        ("s.e. over data", "right"),
        ("Monte Carlo s.e.", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    console, ll = Console(), scores.get("log_likelihood")
    if isinstance(ll, ImportanceScore):
        elbo, k, threshold = scores["elbo"], ll.pareto_k, pareto_k_threshold(ll.num_samples)
        table.add_row("ELBO", f"{elbo.mean:.2f}", f"{elbo.se:.2f}", f"{elbo.mean_mc_se:.3f}")
        table.add_row(
            f"log p(x), K = {ll.num_samples:,}",
            f"{ll.mean:.2f}",
            f"{ll.se:.2f}",
            f"{ll.mean_mc_se:.3f}",
        )
        table.add_section()
        if (of_a_word := perplexity(ll, data)) is not None:
            table.add_row("perplexity of a word", f"{of_a_word:.1f}", "", "")
        if ll.above_threshold is None:
            table.add_row("Pareto k", "needs more draws", "", "")
        else:
            table.add_row(
                "Pareto k",
                f"median {k.median():.2f}",
                f"max {k.max():.2f}",
                f"{ll.above_threshold} above {threshold:.2f}",
            )
    else:
        for name, key, digits in (
            ("minus the loss", "log_joint", 2),
            ("squared error per entry", "squared_error", 5),
        ):
            if key in scores:
                table.add_row(
                    name, f"{scores[key].mean:.{digits}f}", f"{scores[key].se:.{digits}f}", ""
                )
    console.print(table)
    if not isinstance(ll, ImportanceScore):
        console.print(
            "A guide that is a point has neither an ELBO nor a log p(x): the loss and the reconstruction are what there is.",
            highlight=False,
            soft_wrap=True,
        )
    elif ll.above_threshold:
        console.print(
            f"{ll.above_threshold} data have a Pareto k above {threshold:.2f}: their log p(x) is likely too low. "
            "Evaluate with a higher --num-samples or with --proposal Refined, or train with a more flexible --posterior.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"run      {folder}", highlight=False, soft_wrap=True)
    console.print(f"scores   {folder / 'evaluation.json'}", highlight=False, soft_wrap=True)
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)
