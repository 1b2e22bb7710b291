"""The scores in a report: what `pyro-vae evaluate` measured, as a table and in words."""

from __future__ import annotations

from collections.abc import Iterator

from pyro_vae.evaluation.importance_score import RESTRICTED
from pyro_vae.report import markup
from pyro_vae.report.markup import precise, rounded, text
from pyro_vae.report.run_files import Estimate, Evaluation, is_bound

__all__ = ["score_warnings", "scores_section"]


def score_warnings(scores: Evaluation) -> Iterator[str]:
    """Caveats to read before trusting the scores."""
    shape, ll = scores.get("pareto_k"), scores.get("log_likelihood")
    if shape and ll and shape["above_threshold"] is None:
        yield (
            f"log p(x) is given as a bound: K = {ll['num_samples']} is too few draws to state an "
            "error."
        )
    is_infinite = shape is not None and shape["median"] is None and shape["max"] is None
    if shape and is_infinite and shape["above_threshold"] == scores["num_data"]:
        yield f"log p(x) is given as a bound: {RESTRICTED}."
    elif shape and shape["above_threshold"]:
        yield (
            f"Pareto k is above or near {shape['threshold']:.2f} for "
            f"{shape['above_threshold']:,} of {scores['num_data']:,} data: their log p(x) is "
            "likely too low, by more than its Monte Carlo error, so the mean is given as a bound. "
            "A wider or refitted proposal, annealing, or a more flexible posterior repair it."
        )


def scores_section(scores: Evaluation, run: str) -> str:
    """The scores of a run, or the command that makes them."""
    if not scores:
        return f"<p>None yet: <code>pyro-vae evaluate {text(run)}</code></p>"
    elbo, ll = scores.get("elbo"), scores.get("log_likelihood")
    if elbo is None or ll is None:
        return _without_bound(scores)
    header = ["nats per datum", "mean", "standard error over data", "Monte Carlo error"]
    mean, mc_se = rounded(ll["mean"]), rounded(ll["mc_se"])
    if is_bound(scores):
        mean, mc_se = f"at least {mean}", "unknown"
    rows = [
        ["ELBO", rounded(elbo["mean"]), rounded(elbo["se"]), rounded(elbo["mc_se"])],
        *_global_rows(elbo, scores["num_data"]),
        [_label(ll), mean, rounded(ll["se"]), mc_se],
    ]
    return markup.table(header, rows) + f"<p>{' '.join(_words(scores))}</p>"


def _label(ll: Estimate) -> str:
    """What log p(x) is given, and its draws."""
    if "local_draws" in ll:
        return f"log p(x | training data), {ll['num_samples']:,} x {ll['local_draws']} draws"
    return f"log p(x), K = {ll['num_samples']:,}"


def _global_rows(elbo: Estimate, num_data: int) -> list[list[str]]:
    """The parts of the ELBO of a program with global latents."""
    if "local_mean" not in elbo:
        return []
    kl = elbo["global_kl"]
    words = f"at points ({elbo['points']}), not scored" if kl is None else rounded(-kl / num_data)
    in_all = "" if kl is None else f"KL {rounded(kl)} nats for all data together"
    return [
        ["of it, the local part", rounded(elbo["local_mean"]), "", ""],
        ["of it, the global latents", text(words), in_all, ""],
    ]


def _without_bound(scores: Evaluation) -> str:
    """The scores of a program whose guide is a point mass."""
    rows = []
    if "log_joint" in scores:
        loss = scores["log_joint"]
        rows.append(["minus the loss, nats per datum", precise(loss["mean"]), precise(loss["se"])])
    if "squared_error" in scores:
        error = scores["squared_error"]
        rows.append(["squared error per entry", precise(error["mean"]), precise(error["se"])])
    table = markup.table(["", "mean", "standard error over data"], rows)
    return table + f"<p>{text(scores['refused'])}.</p>"


def _words(scores: Evaluation) -> Iterator[str]:
    shape = scores["pareto_k"]
    median, largest = (
        "not finite" if shape[name] is None else rounded(shape[name]) for name in ("median", "max")
    )
    if shape["above_threshold"] is not None:
        yield f"Pareto k of the importance weights: median {median}, largest {largest}."
        yield (
            f"It is above or near its threshold for {shape['above_threshold']:,} of "
            f"{scores['num_data']:,} data."
        )
    at_most = "at most " if is_bound(scores) else ""
    if (bits := scores.get("bits_per_dim")) is not None:
        yield f"Bits per dimension: {at_most}{bits:.4f}."
    if (perplexity := scores.get("perplexity")) is not None:
        yield (
            f"Perplexity of a word, with the end of a sentence as one: {at_most}{perplexity:.1f}."
        )
