"""Deep latent-variable models in Pyro: any prior, likelihood and posterior, trained by SVI, scored with errors."""

from pyro_vae import (
    calibration,
    comparison,
    corruptions,
    datasets,
    decomposition,
    draws,
    evaluation,
    geometry,
    inspection,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    proposals,
    reference,
    results,
    schedules,
)
from pyro_vae.annealing import ais, bdmc
from pyro_vae.checkpoint import load, save
from pyro_vae.compilation import CompiledSVI
from pyro_vae.evaluation import elbo, log_likelihood
from pyro_vae.inference_data import to_inference_data
from pyro_vae.neighbours import fidelity
from pyro_vae.programs import VAE, HierarchicalVAE, Program, Refined, SemiSupervisedVAE
from pyro_vae.reference import compare_posteriors
from pyro_vae.sampling import encode, generate, reconstruct
from pyro_vae.training import fit

__version__ = "0.1.0"

__all__ = ["VAE", "CompiledSVI", "HierarchicalVAE", "Program", "Refined", "SemiSupervisedVAE", "ais", "bdmc", "calibration",
           "compare_posteriors", "comparison", "corruptions", "datasets", "decomposition", "draws", "elbo", "encode", "evaluation",
           "fidelity", "fit", "generate", "geometry", "inspection", "likelihoods", "load", "log_likelihood", "networks", "objectives",
           "posteriors", "priors", "proposals", "reconstruct", "reference", "results", "save", "schedules", "to_inference_data"]
