"""Inspection: what the latent space holds, and how the decoder bends it.

Embeddings, probes, anomaly scores and geometry live here. Scores with errors and figures do not.
"""

from pyro_vae.inspection.anomaly import Anomaly, anomaly
from pyro_vae.inspection.coherence import Coherence, coherence
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import Neighbours, embed, latent_site, neighbours, prior_draws
from pyro_vae.inspection.geometry import (
    LatentPath,
    TangentPlane,
    geodesic,
    interpolate,
    manifold,
    path_length,
    tangent_planes,
    traverse,
)
from pyro_vae.inspection.levels import resample_levels
from pyro_vae.inspection.plane import Plane, plane_of
from pyro_vae.inspection.probes import Accuracy, knn_accuracy, linear_probe

__all__ = [
    "Accuracy",
    "Anomaly",
    "Coherence",
    "Decoder",
    "Neighbours",
    "LatentPath",
    "Plane",
    "TangentPlane",
    "anomaly",
    "coherence",
    "embed",
    "geodesic",
    "interpolate",
    "knn_accuracy",
    "latent_site",
    "linear_probe",
    "manifold",
    "neighbours",
    "path_length",
    "plane_of",
    "prior_draws",
    "resample_levels",
    "tangent_planes",
    "traverse",
]
