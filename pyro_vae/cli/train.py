"""train [RECIPE.yaml]: fit a program to data, score it, draw figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pyro_vae import checkpoint, datasets
from pyro_vae.cli.figures import FIGURES, add_format_argument, draw_figures
from pyro_vae.cli.options import as_written, explaining, scan, with_true
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.processes import add_process_arguments, in_processes
from pyro_vae.cli.run_data import write_data
from pyro_vae.cli.runs import VOCABULARY, add_trust_argument, trusted, write_vocabulary
from pyro_vae.cli.scores import print_scores, score_run
from pyro_vae.cli.start import start_from, words_of_start
from pyro_vae.cli.terminal import console_of
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.files.checksums import with_seal
from pyro_vae.files.reading import MEGABYTE, Kind, read_bytes
from pyro_vae.plotting.files import FORMATS, formats_with
from pyro_vae.programs import as_program
from pyro_vae.ranks.group import of_this_process, speaks
from pyro_vae.ranks.launch import is_restarted, leave
from pyro_vae.recipes.build import build_objective, build_optimizer, build_program
from pyro_vae.recipes.data import reading_of, suited_to
from pyro_vae.recipes.known import check_known
from pyro_vae.recipes.parser import RecipeParser, modules_of_flags
from pyro_vae.recipes.recipe import Recipe, Values, read_recipe
from pyro_vae.report.commands import remember
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.environment import choose_device
from pyro_vae.training.callbacks import Callback
from pyro_vae.training.fit import check_settings, continues, fit
from pyro_vae.training.trackers import TRACKERS
from pyro_vae.validation import InvalidInput, check_choice, check_count

RECIPE = "recipe.yaml"

Parts = tuple[Dataset, Dataset | None, Dataset]  # for training, validation and tests

RECIPES = Kind("out", "a recipe, as pyro-vae train writes it", "choose another folder", MEGABYTE)

# What training writes beside it, but for checkpoints.
FILES = (
    VOCABULARY,
    "evaluation.json",
    "evaluation.npz",
    *(f"figures/{name}.{kind}" for name in FIGURES for kind in FORMATS),
)

WRITTEN = "# Written by pyro-vae train, which replaces it when the run is trained again.\n"

# The arguments that decide how the others are read, with the number of values that each takes.
LAYERED = {"recipe": 0, "--out": 1, "--resume": 0, "--trust": 1, "--data": 1}

SETTINGS = (
    "epochs", "batch_size", "learning_rate", "warmup", "clip_norm", "skip_norm", "average",
    "patience", "seed", "compile",
)  # fmt: skip


# The options that are on or off, which may stand without a value.
SWITCHES = {field.name for field in fields(Recipe) if field.type == "bool"}

# The options by what they are about.
SECTIONS = {
    "data": (
        "data", "data_root", "in_memory", "binarize", "missing", "missing_fraction", "labelled",
        "labelled_repeats", "key", "scale", "resize", "channels", "target", "columns",
        "standardize", "validation",
    ),
    "model": (
        "latent", "levels", "prior", "likelihood", "posterior", "encoder", "decoder", "sites",
        "context", "context_to", "known", "corruption", "program", "level_prior", "level_network",
    ),
    "training": (
        "objective", "epochs", "batch_size", "learning_rate", "warmup", "optimizer", "schedule",
        "clip_norm", "skip_norm", "average", "patience", "start", "seed", "device", "compile",
        "autocast", "processes", "max_restarts",
    ),
    "output": ("out", "resume", "num_samples", "limit", "figure_format", "log", "trust"),
}  # fmt: skip
# Those that a first run may need.
BRIEF = (
    "recipe", "data", "binarize", "missing", "target", "latent", "prior", "likelihood",
    "posterior", "encoder", "decoder", "context", "objective", "epochs", "batch_size",
    "learning_rate", "warmup", "seed", "device", "out", "resume",
)  # fmt: skip


def arguments() -> CommandParser:
    """The parser of its options."""
    return _parsers()[0]


def _parsers() -> tuple[CommandParser, RecipeParser]:
    """The parser of the options, and that of the recipe among them."""
    parser = new_parser(
        "train",
        "Fit a program to data. A recipe is a YAML file with these options as keys. --prior.help "
        "NAME lists the options of a component, which follow it as --prior.components 500.",
        SECTIONS,
        BRIEF,
    )
    recipes = RecipeParser(parser)
    _add_arguments(parser)
    return parser, recipes


@dataclass(frozen=True)
class Prepared:
    """What options ask for, built and checked, before anything is trained or written."""

    recipe: Recipe
    namespace: Namespace
    written: str  # the recipe as YAML
    owner: ProgramLike  # the program, or the module that holds it
    data: Dataset
    validation: Dataset | None
    test: Dataset

    @property
    def program(self) -> ProgramLike:
        """The program itself."""
        return as_program(self.owner)


def prepare(argv: list[str], load: Callable[[Recipe], Parts] | None = None) -> Prepared:
    """Read options, load their data and build their program.

    Args:
        argv: the options, as `as_options` makes them.
        load: what loads the training, validation and test data; by default `load_parts`.

    Raises:
        InvalidInput: for whatever is wrong with them.
    """
    parser, recipes = _parsers()
    argv = with_true(argv, SWITCHES)
    layers = _layers(scan(argv, LAYERED), argv)
    with explaining(parser):
        namespace = recipes.parse(argv, layers)
    _check(namespace)
    if namespace.data not in datasets.names() and Path(namespace.data).exists():
        namespace.data = str(Path(namespace.data).resolve())
    if namespace.start and not checkpoint.is_address(namespace.start):
        namespace.start = str(Path(namespace.start).resolve())
    recipe = recipes.recipe(namespace)
    build_objective(recipe), build_optimizer(recipe)  # what is wrong with them is said now
    data, validation, test = (load or load_parts)(recipe)
    if data.is_on_disk:  # so that it is read so again, however much memory there is
        namespace.in_memory = "off"
    owner = build_program(recipe, data)
    check_known(as_program(owner), recipe, data)
    if recipe.start:
        start_from(owner, data, namespace)
    for part in (data, test):  # what is wrong with the test data is said before training
        check_data(as_program(owner), part)
    return Prepared(recipe, namespace, recipes.dump(namespace), owner, data, validation, test)


def run(argv: list[str]) -> None:
    if in_processes("train", argv):
        return
    ready = prepare(argv)
    recipe, namespace = ready.recipe, ready.namespace
    owner, program, data, test = ready.owner, ready.program, ready.data, ready.test
    callbacks, formats = _trackers(namespace.log), formats_with(namespace.figure_format)
    if of_this_process() is not None:
        _check_group(namespace)
    folder = Path(namespace.out) if namespace.out else _new_folder(Path("runs"), data.name)
    if speaks():
        continues(folder, namespace.resume)  # what is wrong with the folder is said now
    parameters = sum(parameter.numel() for parameter in program.parameters())
    console_of(stderr=True).print(
        f"{parameters:,} parameters, {len(data):,} {data.name} data{_drawn(data)}, in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    train = partial(
        fit,
        owner,
        data,
        objective=build_objective(recipe),
        optimizer=build_optimizer(recipe),
        schedule=recipe.schedule,
        validation=ready.validation,
        device=recipe.device,
        autocast=recipe.autocast,
        out=folder,
        resume=namespace.resume,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        clip_norm=recipe.clip_norm,
        skip_norm=recipe.skip_norm,
        average=recipe.average,
        patience=recipe.patience,
        seed=recipe.seed,
        compile=recipe.compile,
        callbacks=callbacks,
    )
    if not speaks():
        train(callbacks=())
        return
    with checkpoint.claimed(folder):
        is_new = not continues(folder, namespace.resume)
        if is_new:
            _begin(folder, ready.written)
            write_vocabulary(folder, data)
            write_data(folder, data, test)
        history = train()
        leave()  # scores and figures are this process's own work
        # Written again: a resumed run may have more epochs.
        checkpoint.write_text(folder / RECIPE, with_seal(WRITTEN + ready.written))
        test = test[: namespace.limit]
        scores = score_run(program, test, namespace.num_samples, folder, recipe.seed)
        figures = draw_figures(program, test, history, folder, formats)
        remember(folder, ["train", *as_written(argv)], anew=is_new)
    print_scores(scores, test, folder, figures)


def _drawn(data: Dataset) -> str:
    """What is said of grey values that are not taken as they are."""
    drawn = {"dynamic": "drawn as 0 or 1 anew for each batch", "fixed": "drawn as 0 or 1 once"}
    if data.binarize not in drawn:
        return ""
    return f" (grey values {drawn[data.binarize]}: --binarize none keeps them)"


def _check_group(namespace: Namespace) -> None:
    """Let several processes know one folder; started again after a failure, they continue in it."""
    if not namespace.out:
        raise InvalidInput(
            "out",
            got="no run folder, in several processes",
            expected="--out RUN, which is the same in all",
            fix="add --out with the folder of the run",
        )
    namespace.resume = namespace.resume or is_restarted()


def _begin(folder: Path, recipe: str) -> None:
    """Write the recipe of a new run, the first of its files.

    Raises:
        InvalidInput: if the folder holds files that a run would replace and that are not from one
            that was killed at its start.
    """
    path = folder / RECIPE
    if path.exists() or path.is_symlink():
        found = b"" if path.is_symlink() else read_bytes(path, RECIPES)
        is_ours = found.startswith(WRITTEN.encode()) or found == recipe.encode()
        foreign = [] if is_ours else [path]
    else:
        foreign = [folder / name for name in FILES if (folder / name).exists()]
    if foreign:
        raise InvalidInput(
            "out",
            got=f"{foreign[0]}, which no run of this folder wrote and which training would replace",
            expected="a folder without such a file",
            fix="choose another folder for --out, or move that file elsewhere",
        )
    checkpoint.write_text(path, with_seal(WRITTEN + recipe))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE.yaml", help="a recipe; flags override it"
    )
    parser.add_argument("--out", type=str, help="run folder; by default a new one under runs/")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out, or start it if there is none yet",
    )
    parser.add_argument(
        "--num_samples", type=int, default=1000, help="draws for the log-likelihood at the end"
    )
    parser.add_argument("--limit", type=int, default=1000, help="test data scored at the end")
    add_format_argument(parser)
    parser.add_argument(
        "--log",
        type=str,
        default="",
        help=f"what tracks the run, separated by commas: {', '.join(TRACKERS)}; each is an extra "
        "of the package",
    )
    add_trust_argument(parser)
    add_process_arguments(parser)


def _trackers(names: str) -> list[Callback]:
    """The trackers that ``--log`` names.

    Raises:
        InvalidInput: for one that is not known, or not installed.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        check_choice("log", name, TRACKERS)
    return [TRACKERS[name]() for name in dict.fromkeys(chosen)]


def _layers(given: dict[str, str], argv: list[str]) -> Values:
    """The recipes that flags override: the resumed run's, then the one named.

    They may name components of the modules that the user named, by --trust or in a flag.
    """
    trust = [*trusted(given.get("--trust", "")), *modules_of_flags(argv)]
    if "--resume" in given and "--out" not in given:
        raise InvalidInput(
            "resume",
            got="no run folder",
            expected="--out RUN",
            fix="add --out with the folder of the run",
        )
    layers: Values = {}
    if "--resume" in given and (Path(given["--out"]) / "recipe.yaml").exists():
        layers = read_recipe(Path(given["--out"]) / "recipe.yaml", trust, inside=given["--out"])
    if "recipe" in given:
        layers = {**layers, **read_recipe(given["recipe"], trust)}
    flags = [token[2:].partition("=")[0].partition(".")[0] for token in argv if token[:2] == "--"]
    data = given.get("--data") or layers.get("data", Recipe.data)
    return {**suited_to(data, [*layers, *flags]), **layers}


def _check(namespace: Namespace) -> None:
    """Raise `InvalidInput` on an impossible number, before anything is loaded."""
    check_count("num_samples", namespace.num_samples)
    check_count("limit", namespace.limit)
    levels = namespace.latent if isinstance(namespace.latent, list) else [namespace.latent]
    for latent in levels or [0]:
        for size in (latent if isinstance(latent, list) else [latent]) or [0]:
            check_count("latent", size)
    check_count("validation", namespace.validation, minimum=0)
    for name, value in vars(namespace).items():
        if isinstance(value, int) and abs(value) >= 2**63:
            raise InvalidInput(
                name, got=f"{value:.3g}", expected="an integer below 2**63", fix="lower it"
            )
    settings = {name: namespace[name] for name in SETTINGS}
    check_settings(has_validation=namespace.validation > 0, **settings)
    choose_device(namespace.device)


def load_parts(recipe: Recipe) -> Parts:
    """The training, validation and test data."""
    data, test = datasets.load(
        recipe.data,
        binarize=recipe.binarize,
        root=recipe.data_root,
        **reading_of(vars(recipe)),
        vocabulary=words_of_start(recipe.start),
        missing=recipe.missing,
        missing_fraction=recipe.missing_fraction,
        labelled=recipe.labelled,
        labelled_seed=recipe.seed,
    )
    validation = None
    if recipe.validation:
        data, validation = data.hold_out(recipe.validation, recipe.seed)
    # Repeated after the split, so that no copy of a training datum is held out.
    return data.repeat_labelled(recipe.labelled_repeats), validation, test


def _new_folder(root: Path, name: str) -> Path:
    names = (name, *(f"{name}-{i}" for i in range(2, 10**6)))
    return root / next(name for name in names if not checkpoint.exists(root / name, "program"))
