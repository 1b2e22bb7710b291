"""The command line: train, evaluate, compare, sample, inspect, report. What goes wrong by the user's hand ends in one line and exit code 2."""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pyro_vae import checkpoint, datasets, plotting
from pyro_vae.arviz_compat import write_netcdf
from pyro_vae.comparison import compare, load_scores, save_scores, spread
from pyro_vae.config import (
    FAMILIES,
    RecipeParser,
    build_optimizer,
    build_program,
    component_names,
    parse_components,
    read_recipe,
    resolve_component,
)
from pyro_vae.datasets import Dataset
from pyro_vae.evaluation import (
    ImportanceScore,
    Score,
    bits_per_dim,
    evaluate,
    log_joint,
    pareto_k_threshold,
    versions,
)
from pyro_vae.execution import check_data, choose_device, support_of
from pyro_vae.gallery import inspect as inspect_program
from pyro_vae.inference_data import to_inference_data
from pyro_vae.programs import AnyProgram
from pyro_vae.proposals import Guide, Proposal
from pyro_vae.report import report
from pyro_vae.sampling import encode, generate, reconstruct, squared_error
from pyro_vae.traces import NoBound
from pyro_vae.training import History, TrainingDiverged, check_settings, fit
from pyro_vae.validation import InvalidInput, check_choice, check_count, nearest_name

__all__ = ["main"]

USAGE = """usage: pyro-vae COMMAND ...

  train [RECIPE.yaml]   fit a program to data, score it, draw figures
  evaluate RUN          ELBO and importance-sampled log-likelihood of a run
  compare RUN RUN ...   scores of several runs on the same data, paired datum by datum
  sample RUN            new data from a run
  inspect RUN           draws of the posterior as ArviZ data; figures of the latent space
  report RUN            the run as one HTML page

pyro-vae COMMAND --help lists a command's options."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for the user's mistakes, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that mylab.MyPrior is found where the command is run, as python -m would
    warnings.showwarning = _one_line_warning
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        if argv[0] == "--version":
            print(version("pyro-vae"))
            return 0
        check_choice("command", argv[0], COMMANDS)
        COMMANDS[argv[0]](_underscored(argv[1:]))
        return 0
    except (InvalidInput, TrainingDiverged) as error:
        print(f"pyro-vae: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("pyro-vae: interrupted; what was saved is whole, and --resume continues from it", file=sys.stderr)
        return 130


# ---------------------------------------------------------------------------------------------------- the commands

def train(argv: list[str]) -> None:
    """train [RECIPE.yaml]: fits a program to data, scores it on the test data, and draws figures."""
    parser = _parser("train", "Fit a program to data. A recipe is a YAML file with these options as keys. "
                     "--prior.help NAME lists the options of a component, which follow it as --prior.components 500.")
    recipes = RecipeParser(parser)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="a recipe; flags override it")
    parser.add_argument("--out", type=str, help="run folder; by default a new one under runs/")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--num_samples", type=int, default=1000, help="draws for the log-likelihood at the end")
    parser.add_argument("--limit", type=int, default=1000, help="test data scored at the end")
    given = _scan(argv, {"recipe": 0, "--out": 1, "--resume": 0})
    if "--resume" in given and "--out" not in given:
        raise InvalidInput("resume", got="no run folder", expected="--out RUN", fix="add --out with the folder of the run")
    layers: dict[str, Any] = {}
    if "--resume" in given and (Path(given["--out"]) / "recipe.yaml").exists():
        layers |= read_recipe(Path(given["--out"]) / "recipe.yaml")
    if "recipe" in given:
        layers |= read_recipe(given["recipe"])
    with _explaining(parser):
        namespace = recipes.parse(argv, layers)
    check_count("num_samples", namespace.num_samples)
    check_count("limit", namespace.limit)
    for latent in namespace.latent if isinstance(namespace.latent, list) else [namespace.latent]:
        for size in latent if isinstance(latent, list) else [latent]:
            check_count("latent", size)
    check_count("validation", namespace.validation, minimum=0)
    check_settings(has_validation=namespace.validation > 0, **{name: namespace[name] for name in (
        "epochs", "batch_size", "learning_rate", "warmup", "clip_norm", "patience", "seed", "compile")})
    choose_device(namespace.device)
    if namespace.data not in datasets.names() and Path(namespace.data).exists():
        namespace.data = str(Path(namespace.data).resolve())
    recipe = recipes.recipe(namespace)
    objective, optimizer = recipe.objective(), build_optimizer(recipe)
    data, test = datasets.load(recipe.data, binarize=recipe.binarize, root=recipe.data_root, missing=recipe.missing,
                               missing_fraction=recipe.missing_fraction, labelled=recipe.labelled)
    validation = None
    if recipe.validation:
        data, validation = data.hold_out(recipe.validation, recipe.seed)
    data = data.repeat_labelled(recipe.labelled_repeats)  # after that: no copy of what is trained on is held out
    program = build_program(recipe, data)
    folder = Path(namespace.out) if namespace.out else _new_folder(Path("runs"), data.name)
    if not namespace.resume and _holds_run(folder):
        raise InvalidInput("out", got=f"{folder}, which holds a run already", expected="a new folder",
                           fix="choose another folder, or continue that run with --resume")
    for part in (data, test):
        check_data(program, part)  # the test data too: what is wrong with them should not show after training
    console = Console(stderr=True)
    console.print(f"{_count_parameters(program):,} parameters, {len(data):,} {data.name} data, in {folder}", highlight=False,
                  soft_wrap=True)
    if not namespace.resume:
        checkpoint.write_text(folder / "recipe.yaml", recipes.dump(namespace))
    history = fit(
        program, data, objective=objective, epochs=recipe.epochs, batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate, optimizer=optimizer, schedule=recipe.schedule,
        warmup=recipe.warmup, clip_norm=recipe.clip_norm, validation=validation, patience=recipe.patience, seed=recipe.seed,
        device=recipe.device, compile=recipe.compile, autocast=recipe.autocast, out=folder, resume=namespace.resume,
    )
    checkpoint.write_text(folder / "recipe.yaml", recipes.dump(namespace))  # a resumed run may have more epochs
    test = test[: namespace.limit]
    scores = _evaluate(program, test, namespace.num_samples, folder, recipe.seed)
    figures = _draw_figures(program, test, history, folder / "figures")
    _print_scores(scores, test, folder, figures)


def evaluate_run(argv: list[str]) -> None:
    """evaluate RUN: scores of a run, printed and written to RUN/evaluation.json."""
    parser = _parser("evaluate", "ELBO and importance-sampled log-likelihood of a run, written to RUN/evaluation.json.")
    _add_run_arguments(parser)
    _add_data_arguments(parser)
    parser.add_argument("--num_samples", type=int, default=1000, help="draws K for each datum")
    parser.add_argument("--split", type=str, default="test", help="train or test")
    parser.add_argument("--limit", type=int, default=None, help="score the first so many data only")
    parser.add_argument("--proposal", type=Callable[..., Any], default={"class_path": resolve_component("proposal", "Guide")},
                        help="what draws the latents for the log-likelihood, as --proposal Refined --proposal.steps 50")
    with _explaining(parser):
        options = parse_components(parser, argv, {})
    check_count("num_samples", options.num_samples)
    check_choice("split", options.split, ["train", "test"])
    if options.limit is not None:
        check_count("limit", options.limit)
    folder, program = _load_run(options)
    data = _data_of(folder, options)[options.split][: options.limit]
    with _explaining(parser):
        proposal = parser.instantiate(options).proposal
    scores = _evaluate(program, data, options.num_samples, folder, options.seed, proposal)
    _print_scores(scores, data, folder)


def compare_runs(argv: list[str]) -> None:
    """compare RUN RUN ...: paired differences of the runs' scores, and mean and spread over seeds."""
    parser = _parser("compare", "Scores that pyro-vae evaluate wrote, compared datum by datum: each run less the first. Runs "
                     "that differ in nothing but their seed are also put together, with mean and spread.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the runs' folders, the one to compare with first")
    parser.add_argument("--score", type=str, default="log_likelihood", help="log_likelihood or elbo; log_joint or squared_error of autoencoders")
    parser.add_argument("--out", type=str, default=None, help="a .json file for the numbers")
    options = _parse(parser, argv)
    check_choice("score", options.score, ["log_likelihood", "elbo", "log_joint", "squared_error"])
    if len(options.runs) < 2:
        raise InvalidInput("RUN", got="one run", expected="two or more", fix="name the runs to compare")
    scores = {name: _score_of(name, options.score) for name in options.runs}
    first, *others = scores
    differences = {name: compare(scores[name], scores[first]) for name in others}
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault(_recipe_without_seed(Path(name)), []).append(name)
    spreads = {" ".join(names): spread([scores[name] for name in names]) for names in groups.values() if len(names) > 1}
    _print_comparison(options.score, scores, differences, spreads)
    if options.out:
        result = {
            "score": options.score, "reference": first, "sha256": scores[first].sha256, "versions": versions(),
            "runs": {name: {"mean": score.mean, "se": score.se, "mc_se": score.mean_mc_se, "num_samples": score.num_samples,
                            "seed": score.seed} for name, score in scores.items()},
            "differences": {name: vars(difference) for name, difference in differences.items()},
            "seeds": [{"runs": names.split(" "), **vars(over_seeds)} for names, over_seeds in spreads.items()],
        }
        checkpoint.write_text(Path(options.out), json.dumps(_without_nan(result), indent=1) + "\n")


def _score_of(run: str, name: str) -> Score:
    scores = load_scores(Path(run) / "evaluation.npz")
    if name not in scores:
        raise InvalidInput("score", got=f"{name!r}, which {run} does not have", expected=f"one of {', '.join(scores)}",
                           fix="a guide that is a point has neither an ELBO nor a log p(x): add --score log_joint")
    return scores[name]


def _recipe_without_seed(folder: Path) -> str:
    """What runs over seeds have in common; a run without a recipe is like no other."""
    if not (folder / "recipe.yaml").exists():
        return str(folder)
    return json.dumps({key: value for key, value in read_recipe(folder / "recipe.yaml").items() if key != "seed"},
                      sort_keys=True, default=str)


def _print_comparison(name: str, scores: dict, differences: dict, spreads: dict) -> None:
    first = next(iter(scores))
    table = Table(title=f"{name}, {len(scores[first].values):,} data; nats per datum", title_justify="left")
    for column in ("run", "K", "mean", "s.e. over data", f"less {first}", "its s.e.", "Monte Carlo s.e."):
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for run, score in scores.items():
        paired = differences.get(run)
        table.add_row(run, f"{score.num_samples:,}", f"{score.mean:.2f}", f"{score.se:.2f}",
                      *(("", "", "") if paired is None else (f"{paired.mean:+.2f}", f"{paired.se:.2f}", f"{paired.mc_se:.3f}")))
    console = Console()
    console.print(table)
    if spreads:
        seeds = Table(title="over seeds; nats per datum", title_justify="left")
        for column in ("runs", "mean", "s.d. between runs"):
            seeds.add_column(column, justify="left" if column == "runs" else "right", overflow="fold")
        for runs, over_seeds in spreads.items():
            seeds.add_row(runs, f"{over_seeds.mean:.2f}", f"{over_seeds.sd:.2f}")
        console.print(seeds)
    if len({score.num_samples for score in scores.values()}) > 1:
        console.print("The runs were scored with different K: fewer draws give a lower log p(x) on average. Evaluate them alike.",
                      highlight=False, soft_wrap=True)


def sample(argv: list[str]) -> None:
    """sample RUN: new data from a run, as a picture or as arrays."""
    parser = _parser("sample", "New data from a run: the mean of p(x | z) for each draw of z.")
    _add_run_arguments(parser)
    parser.add_argument("--num", type=int, default=64, help="how many")
    parser.add_argument("--context", type=str, default=None,
                        help="the label to condition on, or covariates separated by commas; by default labels in turn")
    parser.add_argument("--draws", action="store_true", help="draws of x instead of means")
    parser.add_argument("--out", type=str, default=None, help="a .png or an .npz file; by default RUN/samples.png")
    options = _parse(parser, argv)
    check_count("num", options.num)
    folder, program = _load_run(options)
    target = Path(options.out) if options.out else folder / "samples.png"
    check_choice("out", target.suffix, [".png", ".npz"])
    context = _parse_context(program, options.context, options.num)
    x = generate(program, options.num, context=context, draws=options.draws, seed=options.seed).cpu()
    whole = io.BytesIO()
    if target.suffix == ".npz":
        arrays: dict[str, Any] = {"x": x.numpy()} | ({} if context is None else {"context": context.cpu().numpy()})
        np.savez_compressed(whole, **arrays)
    else:
        plotting.write_figure(whole, lambda ax: plotting.plot_data(x, ax), size=(6, 6))
    checkpoint.write_bytes(target, whole.getvalue())
    Console().print(f"{options.num} samples in {target}", highlight=False, soft_wrap=True)


def inspect_run(argv: list[str]) -> None:
    """inspect RUN: draws of the posterior as ArviZ data in RUN/posterior.nc, and figures in RUN/inspection/."""
    parser = _parser("inspect", "Draws of q(z | x) as ArviZ data, RUN/posterior.nc, and figures of the latent space, of the decoder, and "
                     "of q(z | x) beside NUTS, in RUN/inspection/.")
    _add_run_arguments(parser)
    _add_data_arguments(parser)
    parser.add_argument("--num_samples", type=int, default=200, help="draws for each datum in posterior.nc")
    parser.add_argument("--limit", type=int, default=2000, help="test data to look at; the first 50 go to posterior.nc")
    parser.add_argument("--reference", type=int, default=1, help="data whose posterior NUTS draws from as a reference; 0 for none")
    parser.add_argument("--outside", type=str, default=None, help="other data of the same shape, for an anomaly score")
    options = _parse(parser, argv)
    check_count("num_samples", options.num_samples)
    check_count("limit", options.limit, minimum=2)
    check_count("reference", options.reference, minimum=0)
    folder, program = _load_run(options)
    data = _data_of(folder, options)
    test, outside = data["test"][: options.limit], None
    if options.outside is not None:
        outside = datasets.load(options.outside, binarize=test.binarize, root=options.data_root)[1][: options.limit]
        check_data(program, outside)
    idata = to_inference_data(program, test[:50], options.num_samples, seed=options.seed, run=folder.name, memory_budget=2**26, progress=True)
    write_netcdf(idata, folder / "posterior.nc")
    gallery = inspect_program(program, data["train"], test, folder / "inspection", outside=outside, reference=options.reference,
                              seed=options.seed, progress=True)
    checkpoint.write_text(gallery.folder / "inspection.json", json.dumps(
        {"captions": gallery.captions, "numbers": gallery.numbers, "warnings": gallery.warnings, "seed": options.seed}, indent=1) + "\n")
    console = Console()
    for name, value in gallery.numbers.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    for warning in gallery.warnings:
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    for path in (folder / "posterior.nc", *(gallery.folder / name for name in gallery.captions)):
        console.print(str(path), highlight=False, soft_wrap=True)


def report_run(argv: list[str]) -> None:
    """report RUN: the run as one page, RUN/report.html."""
    parser = _parser("report", "What was modelled, on what data, how well and how to do it again, as one page: RUN/report.html. It "
                     "shows what train, evaluate and inspect have written.")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    folder = Path(_parse(parser, argv).run)
    checkpoint.write_text(folder / "report.html", report(folder, checkpoint.load(folder)))
    Console().print(str(folder / "report.html"), highlight=False, soft_wrap=True)


COMMANDS: dict[str, Callable[[list[str]], None]] = {"train": train, "evaluate": evaluate_run, "compare": compare_runs,
                                                      "sample": sample, "inspect": inspect_run, "report": report_run}


# ------------------------------------------------------------------------------------------------- runs and scores

def _add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")


def _add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=str, default=None, help="data to use instead of the run's")
    parser.add_argument("--data_root", type=str, default=None, help="folder of the data sets' files")


def _load_run(options: Namespace) -> tuple[Path, nn.Module]:
    device = choose_device(options.device)
    return Path(options.run), checkpoint.load(options.run).to(device)


def _data_of(folder: Path, options: Namespace) -> dict[str, Dataset]:
    recipe = read_recipe(folder / "recipe.yaml") if (folder / "recipe.yaml").exists() else {}
    name = options.data or recipe.get("data")
    if name is None:
        raise InvalidInput("data", got=f"{folder} without a recipe", expected="data to score", fix="add --data NAME")
    is_the_runs = options.data in (None, recipe.get("data"))
    train_set, test_set = datasets.load(
        name, binarize=recipe.get("binarize") if is_the_runs else None, root=options.data_root or recipe.get("data_root"),
        missing=recipe.get("missing", False), missing_fraction=recipe.get("missing_fraction", 0.0) if is_the_runs else 0.0)
    return {"train": train_set, "test": test_set}


def _evaluate(program: AnyProgram, data: Dataset, num_samples: int, folder: Path, seed: int,
              proposal: Proposal = Guide()) -> dict[str, Score]:
    about = {
        "num_data": len(data),
        "data": {"name": data.name, "split": data.split, "binarize": data.binarize, "sha256": data.sha256},
        "seed": seed,
        "versions": versions(),
    }
    try:
        scores = evaluate(program, data, num_samples, seed=seed, progress=True)
    except NoBound as refusal:
        scores = {"log_joint": log_joint(program, data, seed=seed), "squared_error": squared_error(program, data, seed=seed)}
        result: dict[str, Any] = {"elbo": None, "log_likelihood": None, "refused": str(refusal),
                                  **{name: {"mean": score.mean, "se": score.se} for name, score in scores.items()}}
        _write_scores(folder, scores, result | about)
        return scores
    if not isinstance(proposal, Guide):  # the ELBO is the guide's own whatever the log-likelihood is estimated with
        scores |= {"log_likelihood": evaluate(program, data, num_samples, proposal=proposal, seed=seed, progress=True)["log_likelihood"]}
    elbo, ll = scores["elbo"], scores["log_likelihood"]
    assert isinstance(ll, ImportanceScore)
    result = {
        "elbo": {"mean": elbo.mean, "se": elbo.se, "mc_se": elbo.mean_mc_se},
        "log_likelihood": {"mean": ll.mean, "se": ll.se, "mc_se": ll.mean_mc_se, "num_samples": num_samples},
        "pareto_k": {"median": ll.pareto_k.median().item(), "max": ll.pareto_k.max().item(),
                     "above_threshold": ll.above_threshold, "threshold": pareto_k_threshold(num_samples)},
        "proposal": {"name": type(proposal).__name__, **{key: str(value) for key, value in vars(proposal).items()}},
        "bits_per_dim": _bits_per_dim(program, data, ll),
    }
    _write_scores(folder, scores, result | about)
    return scores


def _write_scores(folder: Path, scores: dict[str, Score], result: dict[str, Any]) -> None:
    save_scores(folder / "evaluation.npz", scores)
    checkpoint.write_text(folder / "evaluation.json", json.dumps(_without_nan(result), indent=1) + "\n")


def _bits_per_dim(program: AnyProgram, data: Dataset, score: Score) -> float | None:
    """Bits per observed entry of x where x is discrete; a density in the units of x has no such number."""
    support = support_of(program, data.x, data.context)
    if support is None or not support.is_discrete:
        return None
    observed = (~torch.isnan(data.x)).double().mean().item()  # per entry that there is
    return bits_per_dim(score, data.event_shape) / observed if observed else None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_scores(scores: dict[str, Score], data: Dataset, folder: Path, figures: Sequence[Path] = ()) -> None:
    table = Table(title=f"{data.name}, {data.split}, {len(data):,} data; nats per datum", title_justify="left")
    for column, justify in (("", "left"), ("mean", "right"), ("s.e. over data", "right"), ("Monte Carlo s.e.", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    console, ll = Console(), scores.get("log_likelihood")
    if isinstance(ll, ImportanceScore):
        elbo, k, threshold = scores["elbo"], ll.pareto_k, pareto_k_threshold(ll.num_samples)
        table.add_row("ELBO", f"{elbo.mean:.2f}", f"{elbo.se:.2f}", f"{elbo.mean_mc_se:.3f}")
        table.add_row(f"log p(x), K = {ll.num_samples:,}", f"{ll.mean:.2f}", f"{ll.se:.2f}", f"{ll.mean_mc_se:.3f}")
        table.add_section()
        if ll.above_threshold is None:
            table.add_row("Pareto k", "needs more draws", "", "")
        else:
            table.add_row("Pareto k", f"median {k.median():.2f}", f"max {k.max():.2f}", f"{ll.above_threshold} above {threshold:.2f}")
    else:
        joint, error = scores["log_joint"], scores["squared_error"]
        table.add_row("minus the loss", f"{joint.mean:.2f}", f"{joint.se:.2f}", "")
        table.add_row("squared error per entry", f"{error.mean:.5f}", f"{error.se:.5f}", "")
    console.print(table)
    if not isinstance(ll, ImportanceScore):
        console.print("A guide that is a point has neither an ELBO nor a log p(x): the loss and the reconstruction are what there is.",
                      highlight=False, soft_wrap=True)
    elif ll.above_threshold:
        console.print(f"{ll.above_threshold} data have a Pareto k above {threshold:.2f}: their log p(x) is likely too low. "
                      "Evaluate with a higher --num-samples or with --proposal Refined, or train with a more flexible --posterior.", highlight=False, soft_wrap=True)
    console.print(f"run      {folder}", highlight=False, soft_wrap=True)
    console.print(f"scores   {folder / 'evaluation.json'}", highlight=False, soft_wrap=True)
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)


def _draw_figures(program: AnyProgram, test: Dataset, history: History, folder: Path) -> list[Path]:
    is_clip = plotting.is_clip(test.event_shape)
    few = test[:4] if is_clip else test[:10]
    reconstructions = reconstruct(program, few)
    classes = getattr(getattr(program, "context", None), "num_classes", None)
    num, rows = (64, []) if classes is None else (8 * classes, [str(label) for label in range(classes)])
    context = _parse_context(program, None, num)
    if context is None and getattr(program, "context", None) is not None:
        context = test[torch.arange(num) % len(test)].context  # covariates: those of test data
    latents = _latents(program, test)
    figures: dict[str, tuple[Callable, tuple[float, float]]] = {
        "training": (lambda ax: plotting.plot_training(history, ax), (6.0, 4.5)),
        "reconstructions": (lambda ax: plotting.plot_reconstructions(few.x, reconstructions, ax), (7.5, 7.0) if is_clip else (8.0, 1.9)),
        "latents": (lambda ax: plotting.plot_latents(latents, ax, test.context), (6.5, 6.0)),
    }
    try:
        samples = generate(program, num, context=context).cpu()
        figures["samples"] = (lambda ax: plotting.plot_data(samples, ax, columns=8 if rows else None, rows=rows, title="means of p(x | z) at draws from "
                                                            "the prior" + (", a row for each label" if rows else "")), (6.0, 6.0))
    except InvalidInput as refusal:  # a flat prior, of which there are no draws
        Console().print(f"no samples: {refusal}", highlight=False, soft_wrap=True)
    return [plotting.save_figure(folder / f"{name}.png", draw, size) for name, (draw, size) in figures.items()]


def _latents(program: AnyProgram, data: Dataset) -> Tensor:
    """The means of q(z | x) as vectors, or draws where the density has no mean in closed form, as that of a flow."""
    try:
        latents = encode(program, data)
    except InvalidInput:
        latents = encode(program, data, draws=True)
    return next(iter(latents.values())).flatten(1)


def _parse_context(program: AnyProgram, text: str | None, num: int) -> Tensor | None:
    """The context on the command line; without one, the labels in turn for a program that takes labels."""
    embed = getattr(program, "context", None)
    if embed is None:
        if text is not None:
            raise InvalidInput("context", got=repr(text), expected="none: this run is not conditional",
                               fix="leave --context out, or train with --context labels")
        return None
    if text is None:
        classes = getattr(embed, "num_classes", None)
        return None if classes is None else torch.arange(num) * classes // max(num, classes)
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput("context", got=repr(text), expected="a label, or numbers separated by commas",
                           fix="pass for instance --context 7") from None
    value = torch.tensor(values if len(values) > 1 else values[0])
    is_label = hasattr(embed, "num_classes") and value.dim() == 0 and value % 1 == 0
    return (value.long() if is_label else value).expand(num, *value.shape)


def _new_folder(root: Path, name: str) -> Path:
    names = (name, *(f"{name}-{i}" for i in range(2, 10**6)))
    return root / next(candidate for candidate in names if not _holds_run(root / candidate))


def _holds_run(folder: Path) -> bool:
    return checkpoint.exists(folder, "program")


def _count_parameters(program: AnyProgram) -> int:
    return sum(parameter.numel() for parameter in program.parameters())


# --------------------------------------------------------------------------------------------------- words and errors

class _Help(DefaultHelpFormatter):
    """Help with dashes in flags, and without the list of every module class that is imported."""

    def add_argument(self, action):
        if not action.option_strings or not action.option_strings[0].endswith(".help"):
            super().add_argument(action)

    def _expand_help(self, action):
        text = " ".join((super()._expand_help(action) or "").split())
        text = re.sub(r",? *known subclasses: [^)]*\)", ")", text)
        if action.dest in FAMILIES:
            text = re.sub(r" \(type: Callable.*?default: .*?(\w+)['>}]+\)", r" (default: \1)", text)
            text += f" Of this package: {', '.join(component_names(action.dest))}." if action.dest != "optimizer" else ""
        return text

    def _format_action_invocation(self, action):
        text = super()._format_action_invocation(action)
        return re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)

    def _format_usage(self, usage, actions, groups, prefix):
        return f"usage: {self._prog} [options]\n\n"


def _parser(command: str, description: str) -> ArgumentParser:
    return ArgumentParser(prog=f"pyro-vae {command}", description=description, formatter_class=_Help, exit_on_error=False)


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    with _explaining(parser):
        return parser.parse_args(argv)


@contextmanager
def _explaining(parser: ArgumentParser) -> Iterator[None]:
    """Turns jsonargparse's complaints into one line: the argument, what was got, what was expected, the fix."""
    try:
        yield
    except ArgumentError as error:
        raise _explained(str(error), parser) from None


def _explained(message: str, parser: ArgumentParser) -> InvalidInput:
    message = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", message, re.I):
        flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
        name = match[1].split("=")[0]
        known = [flag.replace("_", "-") for flag in flags if "." not in flag]
        return InvalidInput(name, got="an unknown option", expected="an option of this command",
                            fix=nearest_name(name, known) if name.startswith("-") else "see --help")
    if match := re.search(r'Parser key "([\w.]+)":.*Option \'([\w.]+)\' is not accepted.*class_path=\'([\w.]+)\'', message):
        key, option, path = match.groups()
        module, _, name = path.rpartition(".")
        sizes = {"latent", "event_shape", "in_shape", "network", "params"}  # given when the program is built
        names = [n for n in inspect.signature(getattr(sys.modules[module], name)).parameters if n not in sizes]
        return InvalidInput(f"{key}.{option}", got=f"an argument that {path} does not take",
                            expected=f"one of {', '.join(names)}" if names else "no arguments",
                            fix=nearest_name(option, names) if names else "leave it out")
    if match := re.search(r"the following arguments are required: (\w+)", message):
        return InvalidInput(match[1].upper(), got="nothing", expected="it after the command", fix="see --help")
    if match := re.search(r'Parser key "([\w.]+)": (.*)', message):
        key, problem = match.groups()
        if nested := re.search(r'.*Parser key "([\w.]+)": (.*)', problem):  # an argument of a component
            key, problem = f"{key}.{nested[1]}", nested[2]
        got = re.search(r"(?:Got value|Given value): (?!Namespace)(.*?)\.?(?:$| Given| Got value)", problem)
        wanted = re.findall(r"Expected an? (?:<class '(?:[a-z]+\.)*(\w+)'>|typing\.(Literal\[.*?\]))", problem)
        kinds = [" ".join(filter(None, kind)) for kind in wanted if kind[0] != "NoneType"]
        reason = problem.split("callable class: ")[-1].split(" Got value")[0].rstrip(".")
        return InvalidInput(key.replace("_", "-"), got=repr(got[1]) if got else f"a value that cannot be used ({reason})",
                            expected=" or ".join(kinds) or "a value of its type", fix="see --help")
    return InvalidInput("arguments", got=message, expected="the options of this command", fix="see --help")


def _underscored(argv: list[str]) -> list[str]:
    """Flags in the form of the Python names that they stand for: ``--batch-size`` is batch_size."""
    def convert(token: str) -> str:
        if not token.startswith("--"):
            return token
        flag, equals, value = token.partition("=")
        return "--" + flag[2:].replace("-", "_") + equals + value
    return [convert(token) for token in argv]


def _scan(argv: Sequence[str], wanted: dict[str, int]) -> dict[str, str]:
    """The few arguments that decide how the others are read: a recipe, and whether a run is resumed."""
    found: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        flag, equals, value = token.partition("=")
        if not flag.startswith("-"):
            found["recipe"] = token
        elif flag in wanted and wanted[flag] == 0:
            found[flag] = ""
        elif flag not in ("--help", "-h"):
            value = value if equals else next(tokens, "")
            if flag in wanted:
                found[flag] = value
    return found


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"pyro-vae: warning: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
