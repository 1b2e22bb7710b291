"""MNIST images with spoken digits of the same class, half of the pairs incomplete.

    PYRO_VAE_DATA=... python experiments/multimodal/pairs.py OUT

Trains a product and a mixture of experts, writes OUT/results.json and a figure, and prints label
coherence both ways and joint, marginal and conditional log p with their errors.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.neighbors import KNeighborsClassifier

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.evaluation.conditional_score import difference
from pyro_vae.inspection import coherence

WIDTH, EPOCHS = 200, 40
LATENT, IMAGE, SOUND = 8, (1, 28, 28), (32, 16)
TRAIN, TEST, SCORED, K = 5000, 1000, 50, 500


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


def incomplete(x: dict, generator: torch.Generator) -> pv.datasets.Dataset:
    """A quarter of the pairs lacks its image, another quarter its sound.

    The complete ones are there three times, whole and without either part, so that each expert
    learns to speak alone.
    """
    order = torch.randperm(len(x["image"]), generator=generator)
    lacking = {name: part.clone() for name, part in x.items()}
    quarter = len(order) // 4
    lacking["image"][order[:quarter]] = torch.nan
    lacking["sound"][order[quarter : 2 * quarter]] = torch.nan
    whole = order[2 * quarter :]
    nothing = {name: torch.full_like(part[whole], torch.nan) for name, part in x.items()}
    columns = {
        "image": [lacking["image"], x["image"][whole], nothing["image"]],
        "sound": [lacking["sound"], nothing["sound"], x["sound"][whole]],
    }
    lacking = {name: torch.cat(parts) for name, parts in columns.items()}
    return pv.datasets.Dataset(lacking, missing=True, name="mnist_and_speech")


def program(experts: type) -> pv.MultimodalVAE:
    net = pv.networks.MLP
    normal = pv.posteriors.DiagonalNormal
    return pv.MultimodalVAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihoods={
            "image": pv.likelihoods.Bernoulli(IMAGE, net(LATENT, [WIDTH])),
            "sound": pv.likelihoods.Normal(SOUND, net(LATENT, [WIDTH]), scale=0.7),
        },
        posterior=experts(
            LATENT,
            {
                "image": normal(LATENT, net(IMAGE, [WIDTH])),
                "sound": normal(LATENT, net(SOUND, [WIDTH])),
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


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(0)
    whole, labels = pairs(0, TRAIN, generator)
    test, truth = pairs(1, TEST, generator)
    train = incomplete(whole, generator)
    classify = {name: classifier(whole[name], labels) for name in whole}
    results: dict = {
        "classifiers": {
            name: (function(test[name]) == truth).double().mean().item()
            for name, function in classify.items()
        }
    }
    print(results)
    few = pv.datasets.Dataset({name: part[:SCORED] for name, part in test.items()})
    for name in ("ProductOfExperts", "MixtureOfExperts"):
        torch.manual_seed(0)
        trained, start = program(getattr(pv.posteriors, name)), time.process_time()
        pv.fit(
            trained,
            train,
            epochs=EPOCHS,
            batch_size=100,
            learning_rate=1e-3,
            warmup=10,
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
        for quantity, score in scores.items():
            found[quantity] = {
                "mean": score.mean,
                "se": score.se,
                "mean_mc_se": score.mean_mc_se,
                "pareto_k_above": score.above_threshold,
                "text": str(score),
            }
        results[name] = found
        print(name, json.dumps(found, indent=1), flush=True)
        draw(trained, test, out / f"{name}.png")
        checkpoint.write_text(out / "results.json", json.dumps(results, indent=1))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    main(folder)
