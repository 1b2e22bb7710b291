"""train [RECIPE.yaml]: fit a program to data, score it, draw figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pyro_vae import checkpoint, datasets, plotting
from pyro_vae.cli.options import explaining, new_parser, scan
from pyro_vae.cli.runs import parse_context, write_vocabulary
from pyro_vae.cli.scores import print_scores, score_run
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.distributions import NoDraws
from pyro_vae.recipes.build import build_optimizer, build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.environment import choose_device
from pyro_vae.runtime.predictive import encode, generate, reconstruct
from pyro_vae.training.fit import check_settings, fit
from pyro_vae.training.history import History
from pyro_vae.validation import InvalidInput, check_count


def run(argv: list[str]) -> None:
    parser = new_parser(
        "train",
        "Fit a program to data. A recipe is a YAML file with these options as keys. "
        "--prior.help NAME lists the options of a component, which follow it as --prior.components 500.",
    )
    recipes = RecipeParser(parser)
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE.yaml", help="a recipe; flags override it"
    )
    parser.add_argument("--out", type=str, help="run folder; by default a new one under runs/")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--num_samples", type=int, default=1000, help="draws for the log-likelihood at the end"
    )
    parser.add_argument("--limit", type=int, default=1000, help="test data scored at the end")
    given = scan(argv, {"recipe": 0, "--out": 1, "--resume": 0})
    if "--resume" in given and "--out" not in given:
        raise InvalidInput(
            "resume",
            got="no run folder",
            expected="--out RUN",
            fix="add --out with the folder of the run",
        )
    layers: dict[str, Any] = {}
    if "--resume" in given and (Path(given["--out"]) / "recipe.yaml").exists():
        layers |= read_recipe(Path(given["--out"]) / "recipe.yaml")
    if "recipe" in given:
        layers |= read_recipe(given["recipe"])
    with explaining(parser):
        namespace = recipes.parse(argv, layers)
    check_count("num_samples", namespace.num_samples)
    check_count("limit", namespace.limit)
    for latent in namespace.latent if isinstance(namespace.latent, list) else [namespace.latent]:
        for size in latent if isinstance(latent, list) else [latent]:
            check_count("latent", size)
    check_count("validation", namespace.validation, minimum=0)
    check_settings(
        has_validation=namespace.validation > 0,
        **{
            name: namespace[name]
            for name in (
                "epochs",
                "batch_size",
                "learning_rate",
                "warmup",
                "clip_norm",
                "patience",
                "seed",
                "compile",
            )
        },
    )
    choose_device(namespace.device)
    if namespace.data not in datasets.names() and Path(namespace.data).exists():
        namespace.data = str(Path(namespace.data).resolve())
    recipe = recipes.recipe(namespace)
    objective, optimizer = recipe.objective(), build_optimizer(recipe)
    data, test = datasets.load(
        recipe.data,
        binarize=recipe.binarize,
        root=recipe.data_root,
        missing=recipe.missing,
        missing_fraction=recipe.missing_fraction,
        labelled=recipe.labelled,
        labelled_seed=recipe.seed,
    )
    validation = None
    if recipe.validation:
        data, validation = data.hold_out(recipe.validation, recipe.seed)
    data = data.repeat_labelled(
        recipe.labelled_repeats
    )  # after that: no copy of what is trained on is held out
    program = build_program(recipe, data)
    folder = Path(namespace.out) if namespace.out else _new_folder(Path("runs"), data.name)
    if not namespace.resume and _holds_run(folder):
        raise InvalidInput(
            "out",
            got=f"{folder}, which holds a run already",
            expected="a new folder",
            fix="choose another folder, or continue that run with --resume",
        )
    for part in (data, test):
        check_data(
            program, part
        )  # the test data too: what is wrong with them should not show after training
    console = Console(stderr=True)
    console.print(
        f"{_count_parameters(program):,} parameters, {len(data):,} {data.name} data, in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    if not namespace.resume:
        checkpoint.write_text(folder / "recipe.yaml", recipes.dump(namespace))
        write_vocabulary(folder, data)
    history = fit(
        program,
        data,
        objective=objective,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        optimizer=optimizer,
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        clip_norm=recipe.clip_norm,
        validation=validation,
        patience=recipe.patience,
        seed=recipe.seed,
        device=recipe.device,
        compile=recipe.compile,
        autocast=recipe.autocast,
        out=folder,
        resume=namespace.resume,
    )
    checkpoint.write_text(
        folder / "recipe.yaml", recipes.dump(namespace)
    )  # a resumed run may have more epochs
    test = test[: namespace.limit]
    scores = score_run(program, test, namespace.num_samples, folder, recipe.seed)
    figures = _draw_figures(program, test, history, folder / "figures")
    print_scores(scores, test, folder, figures)


def _draw_figures(
    program: ProgramLike, test: Dataset, history: History, folder: Path
) -> list[Path]:
    is_clip = plotting.is_clip(test.event_shape)
    few = test[:4] if is_clip else test[:10]
    reconstructions = reconstruct(program, few)
    classes = getattr(getattr(program, "context", None), "num_classes", None)
    num, rows = (
        (64, []) if classes is None else (8 * classes, [str(label) for label in range(classes)])
    )
    context = parse_context(program, None, num)
    if context is None and getattr(program, "context", None) is not None:
        context = test[torch.arange(num) % len(test)].context  # covariates: those of test data
    latents = _latents(program, test)
    figures: dict[str, tuple[Callable, tuple[float, float]]] = {
        "training": (lambda ax: plotting.plot_training(history, ax), (6.0, 4.5)),
        "reconstructions": (
            lambda ax: plotting.plot_reconstructions(few.x, reconstructions, ax, test.vocabulary),
            (7.5, 7.0) if is_clip else (8.0, 1.9),
        ),
        "latents": (lambda ax: plotting.plot_latents(latents, ax, test.context), (6.5, 6.0)),
    }
    try:
        samples = generate(program, num, context=context).cpu()
        figures["samples"] = (
            lambda ax: plotting.plot_data(
                samples,
                ax,
                columns=8 if rows else None,
                rows=rows,
                title="new data, p(x | z) at draws z from the prior"
                + (", a row for each label" if rows else ""),
                vocabulary=test.vocabulary,
            ),
            (6.0, 6.0),
        )
    except NoDraws as refusal:
        Console().print(f"no samples: {refusal}", highlight=False, soft_wrap=True)
    return [
        plotting.save_figure(folder / f"{name}.png", draw, size)
        for name, (draw, size) in figures.items()
    ]


def _latents(program: ProgramLike, data: Dataset) -> Tensor:
    """The means of q(z | x) as vectors, or draws where the density has no mean in closed form, as that of a flow."""
    try:
        latents = encode(program, data)
    except InvalidInput:
        latents = encode(program, data, draws=True)
    return next(iter(latents.values())).flatten(1)


def _new_folder(root: Path, name: str) -> Path:
    names = (name, *(f"{name}-{i}" for i in range(2, 10**6)))
    return root / next(candidate for candidate in names if not _holds_run(root / candidate))


def _holds_run(folder: Path) -> bool:
    return checkpoint.exists(folder, "program")


def _count_parameters(program: ProgramLike) -> int:
    return sum(parameter.numel() for parameter in program.parameters())
