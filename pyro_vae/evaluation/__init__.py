"""Score a trained program: bounds, log-likelihoods, annealing and comparisons.

Every number that is reported with an error is computed here. Training, figures and ArviZ data of
the posterior are not.
"""

from pyro_vae.evaluation.annealed_score import AnnealedScore, UpperBound
from pyro_vae.evaluation.annealing import (
    Geometric,
    Linear,
    RateDistortion,
    Sandwich,
    Sigmoid,
    ais,
    bdmc,
    rate_distortion,
)
from pyro_vae.evaluation.comparison import (
    Difference,
    Spread,
    compare,
    load_scores,
    save_scores,
    spread,
)
from pyro_vae.evaluation.decomposition import (
    ActiveUnits,
    AggregatePosterior,
    InferenceGap,
    active_units,
    aggregate_posterior,
    decompose,
    inference_gap,
)
from pyro_vae.evaluation.fidelity import Fidelity, fidelity
from pyro_vae.evaluation.global_score import GlobalELBO, PredictiveScore
from pyro_vae.evaluation.importance import (
    elbo,
    evaluate,
    importance_weights,
    log_joint,
    log_likelihood,
)
from pyro_vae.evaluation.importance_score import (
    ImportanceScore,
    UnreliableEstimate,
    convergence,
    summarize,
)
from pyro_vae.evaluation.pareto import is_heavy, pareto_k, pareto_k_threshold
from pyro_vae.evaluation.proposals import (
    Defensive,
    Guide,
    GuideProposal,
    Proposal,
    Refitted,
    Widened,
)
from pyro_vae.evaluation.reconstruction import reconstruction_score, squared_error
from pyro_vae.evaluation.results import to_dict, to_elpd, to_inference_data
from pyro_vae.evaluation.scores import Score, bits_per_dim, concatenate, perplexity, versions
from pyro_vae.evaluation.solver import solver_error

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "AnnealedScore",
    "Defensive",
    "Difference",
    "Fidelity",
    "Geometric",
    "GlobalELBO",
    "Guide",
    "ImportanceScore",
    "InferenceGap",
    "Linear",
    "PredictiveScore",
    "Proposal",
    "RateDistortion",
    "GuideProposal",
    "Refitted",
    "Sandwich",
    "Score",
    "Sigmoid",
    "Spread",
    "UnreliableEstimate",
    "UpperBound",
    "Widened",
    "active_units",
    "aggregate_posterior",
    "ais",
    "bdmc",
    "bits_per_dim",
    "compare",
    "concatenate",
    "convergence",
    "decompose",
    "elbo",
    "evaluate",
    "fidelity",
    "importance_weights",
    "inference_gap",
    "load_scores",
    "log_joint",
    "log_likelihood",
    "is_heavy",
    "pareto_k",
    "pareto_k_threshold",
    "perplexity",
    "rate_distortion",
    "reconstruction_score",
    "save_scores",
    "solver_error",
    "spread",
    "squared_error",
    "summarize",
    "to_dict",
    "to_elpd",
    "to_inference_data",
    "versions",
]
