"""Time the training steps of published codes on this machine, and train some for equal CPU time.

    PYTHONPATH=. python experiments/results/published_codes.py CHECKOUTS OUT.json [MINUTES]

CHECKOUTS is a folder with a checkout of each repository of CODES, under its name. A code is timed
in a process of its own with one thread: CPU seconds of a step of `published_adapters.py`, after
warm-up. With MINUTES, the codes of TRAINED are also trained, for so many CPU minutes each, on
dynamic MNIST, and scored on the first 1,000 test images. What OUT.json has is not done again. The
codes need booster-pytorch, boilr, tensorboardX and wget besides our own packages. `table.py` makes
tables of published_codes.json.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from itertools import pairwise
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from published_adapters import batches, biva, efficient_vdvae, exemplar, ladder, nvae, vampprior
from torch import Tensor

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.recipes.build import build_objective, build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe

HERE = Path(__file__).resolve().parent
WARM, TIMED, SECONDS = 2, 30, 15.0  # steps before the clock, steps by it, and when it is enough
TEST, DRAWS = 1000, 50

EXEMPLAR, VAMP = "sajadn/Exemplar-VAE", "jmtomczak/vae_vampprior"
LADDER, BIVA = "addtt/ladder-vae-pytorch", "vlievin/biva-pytorch"
NVAE, VDVAE = "NVlabs/NVAE", "Rayhane-mamah/Efficient-VDVAE"
CODES = {  # repository, adapter, batch, images an epoch
    "HVAE, N(0, I)": (EXEMPLAR, lambda: exemplar("hvae_2level", "standard"), 100, 50_000),
    "HVAE, VampPrior": (EXEMPLAR, lambda: exemplar("hvae_2level", "vampprior"), 100, 50_000),
    "convHVAE, N(0, I)": (EXEMPLAR, lambda: exemplar("convhvae_2level", "standard"), 100, 50_000),
    "convHVAE, VampPrior": (
        EXEMPLAR,
        lambda: exemplar("convhvae_2level", "vampprior"),
        100,
        50_000,
    ),
    "convHVAE, VampPrior, first code": (VAMP, lambda: vampprior("convHVAE_2level"), 100, 50_000),
    "PixelHVAE, VampPrior": (VAMP, lambda: vampprior("PixelHVAE_2level"), 100, 50_000),
    "LVAE, 3 layers": (LADDER, lambda: ladder(3), 64, 60_000),
    "LVAE, 12 layers": (LADDER, lambda: ladder(12), 64, 60_000),
    "BIVA": (BIVA, biva, 48, 60_000),
    "NVAE": (NVAE, nvae, 50, 60_000),  # a quarter of its batch, which needs some 10 GB
    "Efficient-VDVAE": (VDVAE, efficient_vdvae, 32, 60_000),
}
OURS = ("best", "best_conv", "best_wide", "best_wide_dreg")
# log p(x) in nats per image; the data and K of it; the recipe; its epochs. Of a `recalled` figure
# neither the repository nor a paper's text was at hand.
PATIENCE, STEPS = "150 to 2,000 epochs: warm-up 100, patience 50", "200,000 steps"
PUBLISHED = {
    "HVAE, N(0, I)": (-82.39, "dynamic, K = 5,000", PATIENCE, [150, 2000]),
    "HVAE, VampPrior": (-81.56, "dynamic, K = 5,000", PATIENCE, [150, 2000]),
    "convHVAE, N(0, I)": (-80.52, "dynamic, K = 5,000", PATIENCE, [150, 2000]),
    "convHVAE, VampPrior": (-79.67, "dynamic, K = 5,000", PATIENCE, [150, 2000]),
    "convHVAE, VampPrior, first code": (
        -79.75,
        "dynamic, K = 5,000, recalled",
        PATIENCE,
        [150, 2000],
    ),
    "PixelHVAE, VampPrior": (-78.45, "dynamic, K = 5,000, recalled", PATIENCE, [150, 2000]),
    "LVAE, 3 layers": (-79.24, "static, K = 1,000", "its length is not stated", []),
    "LVAE, 12 layers": (-78.30, "static, K = 1,000", "its length is not stated", []),
    "BIVA": (-78.59, "static, K = 1,000, recalled", "500 epochs", [500]),
    "NVAE": (-78.01, "dynamic, K = 1,000, recalled", "400 epochs", [400]),
    "Efficient-VDVAE": (-79.09, "dynamic, ELBO, half the test images", STEPS, [200_000 / 1875]),
}
TRAINED = {  # with a KL warm-up of 5 epochs, as ours has: their 100 would not end in time
    "HVAE, N(0, I)": lambda: exemplar("hvae_2level", "standard", 5),
}


def costs(seconds: list[float], batch: int, images: int) -> dict:
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    step = {"median": middle, "least": low, "most": high, "steps": len(seconds)}
    epoch = middle * math.ceil(images / batch)
    return {"cpu_seconds_a_step": step, "cpu_seconds_an_epoch": epoch, "batch": batch}


def timed(name: str) -> dict:
    _, build, size, images = CODES[name]
    step, model, *_ = build()
    data, seconds = batches(size), []
    for _ in range(WARM):
        step(next(data))
    while len(seconds) < TIMED and (sum(seconds) < SECONDS or len(seconds) < 3):
        x, start = next(data), time.process_time()
        step(x)
        seconds.append(time.process_time() - start)
    return costs(seconds, size, images) | {"weights": sum(p.numel() for p in model.parameters())}


class Clock(pv.training.Callback):
    """CPU seconds at the end of every epoch."""

    def __init__(self):
        self.at: list[float] = []

    def epoch(self, training):
        self.at.append(time.process_time())


def timed_ours(name: str) -> dict:
    """Time a recipe of this folder, compiled, in epochs of 20 steps."""
    parser, clock = RecipeParser(ArgumentParser()), Clock()
    recipe = parser.recipe(parser.parse([], read_recipe(HERE / f"{name}.yaml")))
    train = pv.datasets.load("mnist")[0][: 20 * recipe.batch_size]
    program, objective, size = (
        build_program(recipe, train),
        build_objective(recipe),
        recipe.batch_size,
    )
    lengths = dict(epochs=8, batch_size=size, average=recipe.average, warmup=recipe.warmup)
    how = dict(autocast=recipe.autocast, compile="on", callbacks=[clock], progress=False)
    pv.fit(program, train, objective=objective, **lengths, **how)
    seconds = [(b - a) / 20 for a, b in pairwise(clock.at)]  # without the first, which compiles
    weights = sum(p.numel() for p in program.parameters())
    return costs(seconds, size, 60_000 - recipe.validation) | {"weights": weights}


def trained(name: str, minutes: float) -> dict:
    """Train a code for some CPU minutes; its ELBO and bound of K draws."""
    (step, model, weights), (_, _, size, images) = TRAINED[name](), CODES[name]
    data, steps, start = batches(size), 0, time.process_time()
    while (seconds := time.process_time() - start) < 60 * minutes:
        step(next(data))
        steps += 1
    model.eval()
    test = pv.datasets.load("mnist")[1].x
    with torch.no_grad():
        draws = [torch.cat(list(map(weights, test[:TEST].split(100)))) for _ in range(DRAWS)]
        whole = torch.cat(list(map(weights, test.split(100)))).mean().item()
    many = torch.stack(draws)
    bounds = both(many.mean(0), many.logsumexp(0) - math.log(DRAWS)) | {"elbo_of_all": whole}
    return {"cpu_seconds": seconds, "epochs": steps * size / images} | bounds


def both(elbo: Tensor, log_p: Tensor) -> dict:
    errors = {"elbo_se": elbo.std().item() / TEST**0.5, "log_p_se": log_p.std().item() / TEST**0.5}
    means = {"elbo": elbo.mean().item(), "log_p": log_p.mean().item()}
    return means | errors | {"num_samples": DRAWS, "num_data": TEST}


def part_of(kind: str, name: str, checkouts: Path, minutes: float) -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pv.datasets.load("mnist")  # before other code has a `utils` or `models` of its own
    if name in OURS:
        return timed_ours(name)
    os.chdir(checkouts / CODES[name][0].split("/")[1])
    sys.path[0] = os.getcwd()  # in place of this script's folder
    return timed(name) if kind == "timed" else trained(name, minutes)


def where(name: str, checkouts: Path) -> dict:
    """Tell the machine, the date, and which commit of a code this is."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if line]
    cpu = {key.strip(): value.strip() for key, value in lines}
    processor = f"{cpu['model name']}, family {cpu['cpu family']}, model {cpu['model']}"
    here = {"processor": processor, "torch": torch.__version__.split("+")[0], "threads": 1}
    here |= {"date": f"{date.today()}"}
    if name not in CODES:
        return here
    folder = checkouts / CODES[name][0].split("/")[1]
    head = subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True)
    return here | {"repository": f"https://github.com/{CODES[name][0]}", "commit": head.strip()}


def main(checkouts: Path, out: Path, minutes: str = "") -> None:
    found, target = json.loads(out.read_text()) if out.exists() else {}, out.with_suffix(".part")
    found["published"] = {
        name: dict(zip(("nats", "of", "recipe", "epochs"), row)) for name, row in PUBLISHED.items()
    }
    parts = [("timed", name) for name in (*OURS, *CODES)]
    parts += [("trained", name) for name in TRAINED if minutes]
    for kind, name in parts:
        rows = found.setdefault(kind, {})
        if name in rows:
            continue
        command = [sys.executable, __file__, checkouts, target, minutes or "0", kind, name]
        if subprocess.run(command).returncode:
            print(f"{kind}, {name}: did not run", flush=True)
            continue
        rows[name] = json.loads(target.read_text()) | where(name, checkouts)
        checkpoint.write_text(out, json.dumps(found, indent=1) + "\n")
        target.unlink()
    checkpoint.write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    checkouts, out = (Path(path).resolve() for path in sys.argv[1:3])
    if sys.argv[4:5] not in (["timed"], ["trained"]):
        main(checkouts, out, *sys.argv[3:])
    else:
        part = part_of(*sys.argv[4:], checkouts, float(sys.argv[3]))
        checkpoint.write_text(out, json.dumps(part) + "\n")
        print(*sys.argv[4:], part, flush=True)
