"""Diagnose the posterior: draws as ArviZ data, calibration, reference samplers.

What tells whether q(z | x) is the posterior lives here. Scores of the model are in
`pyro_vae.evaluation`.
"""

from pyro_vae.diagnostics.calibration import Calibration, Uniformity, calibrate
from pyro_vae.diagnostics.inference_data import UnreliableDraws, to_inference_data
from pyro_vae.diagnostics.samplers import NUTS, Drawn, FromGuide, Resampled, Sampler
from pyro_vae.diagnostics.two_sample import (
    PosteriorComparison,
    TwoSampleTest,
    compare_posteriors,
    draws_of,
    two_sample_test,
)

__all__ = [
    "Calibration",
    "Drawn",
    "Sampler",
    "FromGuide",
    "NUTS",
    "PosteriorComparison",
    "Resampled",
    "TwoSampleTest",
    "Uniformity",
    "UnreliableDraws",
    "calibrate",
    "compare_posteriors",
    "draws_of",
    "to_inference_data",
    "two_sample_test",
]
