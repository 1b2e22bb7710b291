"""MNIST images with spoken digits of the same class, half of the pairs incomplete.

    PYRO_VAE_DATA=... python experiments/multimodal/pairs.py OUT [ProductOfExperts|MixtureOfExperts]

Trains a product and a mixture of experts, writes OUT/results.json and a figure, and prints label
coherence both ways and joint, marginal and conditional log p with their errors.
"""

import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.neighbors import KNeighborsClassifier

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.evaluation.conditional_score import difference
from pyro_vae.inspection import coherence

IMAGE, SOUND = (1, 28, 28), (32, 16)
TRAIN, TEST, SCORED, K = 5000, 1000, 50, 500


@dataclass(frozen=True)
class Settings:
    """How a program is built and trained.

    Args:
        latent: the size of z.
        width: units of the hidden layers.
        epochs: passes over the data.
        warmup: epochs over which the weight of the KL rises.
        copies: whether each whole pair is there twice more, without either part.
        scored: whether log p is estimated, which takes many times as long as training.
    """

    latent: int
    width: int
    epochs: int
    warmup: int
    copies: bool
    scored: bool


SETTINGS = {
    # An expert of the product learns to speak alone only where it does.
    "ProductOfExperts": Settings(8, 200, 40, warmup=10, copies=True, scored=True),
    "MixtureOfExperts": Settings(16, 400, 60, warmup=0, copies=False, scored=False),
}


def small(spectrograms: torch.Tensor) -> torch.Tensor:
    """Spectrograms (N, 129, 64) as means over 4 x 4 patches, (N, 32, 16), standardised."""
    pooled = torch.nn.functional.avg_pool2d(spectrograms[:, :128].unsqueeze(1), 4).squeeze(1)
    return (pooled + 3.34) / 1.2  # the mean and spread of the training recordings


def pairs(part: int, num: int, generator: torch.Generator) -> tuple[dict, torch.Tensor]:
    """Images and recordings of the same digits, of the training part (0) or the test part (1)."""
    images = pv.datasets.load("mnist")[part]
    sounds = pv.datasets.load("spoken_digits")[part]
    chosen = torch.randperm(len(images), generator=generator)[:num]
    labels = images.context[chosen].long()
    recordings = small(sounds.x)
    partner = torch.empty(num, dtype=torch.long)
    for digit in range(10):
        of_digit = (sounds.context == digit).nonzero()[:, 0]
        here = labels == digit
        pick = torch.randint(len(of_digit), (int(here.sum()),), generator=generator)
        partner[here] = of_digit[pick]
    binary = pv.datasets.Dataset(images.x[chosen], binarize="fixed")
    return {"image": binary.x, "sound": recordings[partner]}, labels


def incomplete(x: dict, order: torch.Tensor, copies: bool) -> pv.datasets.Dataset:
    """The first quarter of the pairs in an order lacks its image, the second its sound.

    With copies, the complete ones are there three times, whole and without either part.
    """
    lacking = {name: part.clone() for name, part in x.items()}
    quarter = len(order) // 4
    lacking["image"][order[:quarter]] = torch.nan
    lacking["sound"][order[quarter : 2 * quarter]] = torch.nan
    if not copies:
        return pv.datasets.Dataset(lacking, missing=True, name="mnist_and_speech")
    whole = order[2 * quarter :]
    nothing = {name: torch.full_like(part[whole], torch.nan) for name, part in x.items()}
    columns = {
        "image": [lacking["image"], x["image"][whole], nothing["image"]],
        "sound": [lacking["sound"], nothing["sound"], x["sound"][whole]],
    }
    lacking = {name: torch.cat(parts) for name, parts in columns.items()}
    return pv.datasets.Dataset(lacking, missing=True, name="mnist_and_speech")


def program(name: str) -> pv.MultimodalVAE:
    latent, width = SETTINGS[name].latent, SETTINGS[name].width
    experts = getattr(pv.posteriors, name)
    net = pv.networks.MLP
    normal = pv.posteriors.DiagonalNormal
    return pv.MultimodalVAE(
        prior=pv.priors.StandardNormal(latent),
        likelihoods={
            "image": pv.likelihoods.Bernoulli(IMAGE, net(latent, [width])),
            "sound": pv.likelihoods.Normal(SOUND, net(latent, [width]), scale=0.7),
        },
        posterior=experts(
            latent,
            {
                "image": normal(latent, net(IMAGE, [width])),
                "sound": normal(latent, net(SOUND, [width])),
            },
        ),
    )


def classifier(x: torch.Tensor, labels: torch.Tensor):
    """The nearest neighbours' class."""
    fitted = KNeighborsClassifier(5).fit(x.flatten(1).numpy(), labels.numpy())
    return lambda x: torch.as_tensor(fitted.predict(x.flatten(1).numpy()))


def draw(trained: pv.MultimodalVAE, x: dict, target: Path) -> None:
    """Test images, the sounds that they generate, test sounds, and the images of these."""
    few = {name: part[:10] for name, part in x.items()}
    heard = pv.generate(trained, given={"image": few["image"]})["sound"]
    seen = pv.generate(trained, given={"sound": few["sound"]})["image"]
    rows = [few["image"][:, 0], heard, few["sound"], seen[:, 0]]
    names = ["image", "sound from it", "sound", "image from it"]
    figure, axes = plt.subplots(4, 10, figsize=(10, 4.4))
    for row, (name, images) in enumerate(zip(names, rows)):
        for column, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(
                image,
                cmap="gray" if row in (0, 3) else "magma",
                aspect="auto",
                origin="upper" if row in (0, 3) else "lower",
            )
            ax.set_xticks([]), ax.set_yticks([])
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.savefig(target, bbox_inches="tight", dpi=80)
    plt.close(figure)


def scores_of(trained: pv.MultimodalVAE, few: pv.datasets.Dataset) -> dict:
    """Joint, marginal and conditional log p, with the guide refitted to each datum."""
    refitted = pv.evaluation.proposals.Refitted()
    joint = pv.log_likelihood(trained, few, K, proposal=refitted)
    image, sound = (
        pv.log_likelihood(trained, {part: few.x[part]}, K, proposal=refitted, seed=seed)
        for seed, part in enumerate(few.x, start=1)
    )
    scores = {
        "log p(image, sound)": joint,
        "log p(image)": image,
        "log p(sound)": sound,
        "log p(image | sound)": difference(joint, sound),  # as given=["sound"] does
        "log p(sound | image)": difference(joint, image),
    }
    found: dict = {}
    for quantity, score in scores.items():
        found[quantity] = {
            "mean": score.mean,
            "se": score.se,
            "mean_mc_se": score.mean_mc_se,
            "pareto_k_above": score.above_threshold,
            "text": str(score),
        }
    return found


def main(out: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(0)
    whole, labels = pairs(0, TRAIN, generator)
    test, truth = pairs(1, TEST, generator)
    order = torch.randperm(TRAIN, generator=generator)
    classify = {name: classifier(whole[name], labels) for name in whole}
    results: dict = {
        "classifiers": {
            name: (function(test[name]) == truth).double().mean().item()
            for name, function in classify.items()
        }
    }
    print(results)
    few = pv.datasets.Dataset({name: part[:SCORED] for name, part in test.items()})
    for name in names:
        settings = SETTINGS[name]
        train = incomplete(whole, order, settings.copies)
        torch.manual_seed(0)
        trained, start = program(name), time.process_time()
        pv.fit(
            trained,
            train,
            epochs=settings.epochs,
            batch_size=100,
            learning_rate=1e-3,
            warmup=settings.warmup,
            out=out / name,
            compile="off",
            progress=False,
        )
        found: dict = {"cpu_seconds": time.process_time() - start}
        for source, target in (("image", "sound"), ("sound", "image")):
            measured = coherence(
                trained, {source: test[source]}, truth, {target: classify[target]}
            )[target]
            found[f"coherence {source} to {target}"] = [measured.share, measured.se]
        new = pv.generate(trained, TEST)
        agree = classify["image"](new["image"]) == classify["sound"](new["sound"])
        found["coherence of generated pairs"] = agree.double().mean().item()
        found |= scores_of(trained, few) if settings.scored else {}
        results[name] = found
        print(name, json.dumps(found, indent=1), flush=True)
        draw(trained, test, out / f"{name}.png")
        checkpoint.write_text(out / "results.json", json.dumps(results, indent=1))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    main(folder, sys.argv[2:] or list(SETTINGS))
