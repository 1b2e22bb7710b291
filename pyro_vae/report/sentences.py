"""The findings of an inspection in words, for the report and the command line."""

from __future__ import annotations

from pyro_vae.report.findings import Findings, LabelProbe, LocalDimension, Outliers, Reference

__all__ = ["facts_of", "warnings_of"]


def facts_of(numbers: Findings) -> dict[str, str]:
    """The measurements by name."""
    facts = {
        "active dimensions of the latent": f"{numbers.active_dims} of {numbers.latent_dims}",
    }
    if numbers.aggregate is not None:
        facts["a classifier of draws: aggregated posterior or prior"] = (
            f"accuracy {numbers.aggregate.accuracy:.3f} "
            f"(0.5 +- {numbers.aggregate.se:.3f} if they are one distribution)"
        )
    for probe in numbers.probes:
        facts[f"accuracy of labels read off the latent, {probe.classifier}"] = _probe(
            probe, numbers.is_given_labels
        )
    if numbers.local_dimension is not None:
        facts["local dimension of the decoder"] = _dimension(numbers.local_dimension)
    for found in numbers.outliers:
        name = f"AUROC by {found.score}, {found.inside} against {found.outside}"
        facts[name] = _outliers(found)
    if numbers.reference is not None:
        facts |= _reference(numbers.reference)
    return facts


def warnings_of(numbers: Findings) -> list[str]:
    """Caveats to read before trusting the numbers."""
    warnings, reference = [], numbers.reference
    if not numbers.has_means:
        warnings.append("q(z | x) has no mean in closed form: embeddings are single draws from it.")
    if not numbers.active_dims:
        warnings.append(
            "No dimension of the latent moves with the data: the posterior has collapsed to the "
            "prior, or its means alone are alike. `pyro-vae check` tells them apart."
        )
    if reference is not None and not reference.met:
        warnings.append(
            f"Chains of NUTS from dispersed points did not meet (R-hat {_value(reference.r_hat, 2)}"
            "): the posterior has modes that the chains do not move between, and q may miss some. "
            "The comparison below is with chains that start where q is."
        )
    if reference is not None and reference.distinguishable:
        warnings.append(
            f"The encoder is measurably wrong for {reference.distinguishable} of "
            f"{reference.num_data} data: a classifier tells its posterior from the reference."
        )
    return warnings


def _probe(probe: LabelProbe, is_given_labels: bool) -> str:
    given = (
        " (the encoder is given the label, so the latent need not hold it)"
        if is_given_labels
        else ""
    )
    return (
        f"{probe.accuracy:.1%} +- {probe.se:.1%} of {probe.num_data:,}, "
        f"fitted on {probe.num_train:,} training data{given}"
    )


def _dimension(found: LocalDimension) -> str:
    under = "" if found.label is None else f", under the label {found.label}"
    return f"{found.median:.0f} (median over {found.num_data} data) of {found.dim}{under}"


def _outliers(found: Outliers) -> str:
    counts = f"{found.num_inside:,} inside, {found.num_outside:,} outside"
    return f"{found.auroc:.4f} +- {found.se:.4f} ({counts})"


def _reference(found: Reference) -> dict[str, str]:
    return {
        "largest R-hat of NUTS from dispersed points": _value(found.r_hat, 3),
        "q(z | x) against NUTS": (
            f"{found.distinguishable} of {found.num_data} data distinguishable from the reference; "
            f"a classifier is right about {found.accuracy:.1%} of draws (50% by chance); "
            f"distance {found.wasserstein:.3f} sd ({found.noise:.3f} by chance)"
        ),
        "largest R-hat of the NUTS it is compared with": _value(found.r_hat_compared, 3),
    }


def _value(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
