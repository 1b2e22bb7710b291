"""A run as the commands read it: folder, program, data, and a context for sampling."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from jsonargparse import ArgumentParser, Namespace

from pyro_vae import checkpoint, datasets
from pyro_vae.cli.options import explaining
from pyro_vae.cli.parsers import new_parser
from pyro_vae.cli.run_data import read_data
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.named import policy_of
from pyro_vae.datasets.sources import Binarize
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.files.reading import MEGABYTE, Kind, checked, parsing, read_text
from pyro_vae.programs import as_program
from pyro_vae.recipes.build import rebuild_program
from pyro_vae.recipes.data import reading_of
from pyro_vae.recipes.own import takes_parts
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import Values, read_recipe, read_settings
from pyro_vae.report.run_files import FILES, read_file
from pyro_vae.runtime.environment import choose_device
from pyro_vae.training.convergence import is_out_of_patience
from pyro_vae.validation import InvalidInput, check_seed

# What is said of files, which data sets that are known by name do not need.
OF_FILES = ("key", "scale", "resize", "channels", "target", "columns")
SPLITS = ["train", "test", "all"]
VOCABULARY = "vocabulary.txt"  # of a run on text, a word on each line
WORDS = Kind(
    "run", "the words of the run, as train writes them", "restore it from a copy", 64 * MEGABYTE
)


def add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    add_loading_arguments(parser)


def add_loading_arguments(parser: ArgumentParser) -> None:
    """What `load_run` needs beside the run's folder."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    add_trust_argument(parser)


def add_trust_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        type=str,
        default="",
        help="modules of your own, separated by commas, whose classes the run or recipe may name",
    )


def trusted(names: str) -> list[str]:
    """The modules that ``--trust`` names."""
    return [name for name in names.split(",") if name]


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=str, default=None, help="data to use instead of the run's")
    parser.add_argument(
        "--data_root", type=str, default=None, help="folder of the data sets' files"
    )


def add_split_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--split", type=str, default="test", help="train, test or all")


def load_run(options: Namespace) -> tuple[Path, ProgramLike]:
    check_seed(options.seed)
    device = choose_device(options.device)
    folder = Path(options.run)
    program = program_of(folder, trusted(options.trust))
    program.to(device)
    _say_if_unfinished(folder)
    return folder, program


def program_of(folder: Path, trust: Sequence[str]) -> ProgramLike:
    """The program of a run."""
    return as_program(checkpoint.load(folder, _own_program_of(folder, trust), trust=trust))


def _own_program_of(folder: Path, trust: Sequence[str]) -> ProgramLike | None:
    """The program of a run's recipe where it is of the user's own and is not built from parts.

    The recipe says how it is made, whether or not its class keeps its arguments.
    """
    shape, named = read_data(folder).event_shape, recipe_of(folder).get("program")
    path = named.get("class_path") if isinstance(named, dict) else named
    if shape is None or not isinstance(path, str) or path.startswith("pyro_vae."):
        return None
    values = read_recipe(folder / "recipe.yaml", trust, inside=folder)
    parser = new_parser("train", "")
    recipes = RecipeParser(parser)
    with explaining(parser):  # the rest of the recipe is not read
        recipe = recipes.recipe(recipes.parse([], {"program": values["program"]}))
    return None if takes_parts(recipe.program) else rebuild_program(recipe, shape)


def data_of(folder: Path, options: Namespace) -> dict[str, Dataset]:
    """The training and the test data of a run, or the data of --data in the run's units."""
    name, reading = _reading_of(folder, options)
    changes = _changes_of(folder, options)
    train_set, test_set = datasets.load(name, **reading, **changes, fetch=False)
    check_vocabulary(folder, test_set)
    if _are_the_runs(folder, options):
        _say_if_changed(folder, test_set)
    return {"train": train_set, "test": test_set}


def split_of(folder: Path, options: Namespace) -> Dataset:
    """The data that --split names: train, test, or all of them in their order."""
    if options.split != "all":
        return data_of(folder, options)[options.split]
    name, reading = _reading_of(folder, options)
    whole = datasets.load_whole(name, **reading, **_changes_of(folder, options))
    check_vocabulary(folder, whole)
    return whole


def _are_the_runs(folder: Path, options: Namespace) -> bool:
    return options.data in (None, recipe_of(folder).get("data"))


class _Changes(TypedDict):
    binarize: Binarize | None
    missing: bool
    missing_fraction: float


def _changes_of(folder: Path, options: Namespace) -> _Changes:
    """How data are binarised, and whether entries are missing or are to be removed.

    Other data are binarised as the run's own are, which leaves 0 and 1 as they are. They keep all
    their entries: those of the run's own are removed to learn how well gaps are filled in.
    """
    recipe, are_the_runs = recipe_of(folder), _are_the_runs(folder, options)
    return {
        "binarize": recipe.get("binarize") or policy_of(str(recipe.get("data"))),
        "missing": recipe.get("missing", False),
        "missing_fraction": recipe.get("missing_fraction", 0.0) if are_the_runs else 0.0,
    }


def whole_data_of(folder: Path, options: Namespace) -> Dataset:
    """All rows of a run's data, or of --data, in their order and in the run's units."""
    name, reading = _reading_of(folder, options)
    changes = _changes_of(folder, options) | {"missing_fraction": 0.0}
    return datasets.load_whole(name, **reading, **changes)


def outside_of(folder: Path, options: Namespace, test: Dataset) -> Dataset:
    """The data of --outside, read as a run's ``test`` data were."""
    given = Namespace(**{**vars(options), "data": options.outside})
    name, reading = _reading_of(folder, given)
    reading["key"] = ",".join(test.parts) or None
    changes = _changes_of(folder, given) | {"binarize": test.binarize, "missing": test.missing}
    outside = datasets.load(name, **reading, **changes, fetch=False)[1]
    check_vocabulary(folder, outside)
    return outside


def _reading_of(folder: Path, options: Namespace) -> tuple[str, dict[str, Any]]:
    """The name of the data, and how they are read."""
    recipe, known = recipe_of(folder), read_data(folder)
    name = options.data or recipe.get("data")
    if name is None:
        raise InvalidInput(
            "data",
            got=f"{folder} without a recipe",
            expected="data to score",
            fix="add --data NAME",
        )
    reading, are_the_runs = reading_of(recipe), _are_the_runs(folder, options)
    if recipe.get("start") or not are_the_runs:  # whose words are another text's
        reading["vocabulary"] = vocabulary_of(folder)
    if not are_the_runs:
        reading["in_memory"] = "auto"
        for setting in (*(OF_FILES if name in datasets.names() else ()), *_of_images(name)):
            reading.pop(setting, None)
    return name, {
        **reading,
        "root": options.data_root or recipe.get("data_root"),
        "like": known.columns,
        "context_like": known.context_columns,
    }


def _of_images(name: str) -> tuple[str, ...]:
    """What is said of folders of images alone, unless these are one."""
    return () if Path(name).is_dir() else ("resize",)


def recipe_of(folder: Path) -> Values:
    """The settings in a run's recipe; none where it has no recipe."""
    path = folder / "recipe.yaml"
    return read_settings(path, inside=folder) if os.path.lexists(path) else {}


def write_vocabulary(folder: Path, data: Dataset) -> None:
    """Save a text's vocabulary with the run, because the data set may be renumbered later."""
    if data.vocabulary is not None:
        checkpoint.write_text(
            folder / VOCABULARY, "".join(f"{word}\n" for word in data.vocabulary.words)
        )


class _Settings(TypedDict, total=False):
    warmup: int
    patience: int | None


class _Trained(TypedDict, total=False):
    """What ``training.json`` says of how far a run came."""

    history: list[object]  # a row for each epoch
    best: tuple[float, int] | None  # the best validation ELBO and its epoch
    settings: _Settings


def _say_if_unfinished(folder: Path) -> None:
    """Print a line if a run's training ended before its last epoch, and not by its patience."""
    planned = recipe_of(folder).get("epochs")
    with parsing(folder / "training.json", FILES):
        trained = checked(read_file(folder, "training.json"), _Trained)
    if not isinstance(planned, int) or not trained:
        return
    done, settings = len(trained.get("history", [])), trained.get("settings", _Settings())
    _, best = trained.get("best") or (None, None)
    if done >= planned or is_out_of_patience(
        done, best, settings.get("warmup", 0), settings.get("patience")
    ):
        return
    print(
        f"pyro-vae: warning: this run has {done} of its {planned} epochs: it was interrupted, has "
        "diverged, or is still being trained; pyro-vae train --resume --out "
        f"{shlex.quote(str(folder))} goes on with it",
        file=sys.stderr,
    )


def _say_if_changed(folder: Path, test: Dataset) -> None:
    """Print a line if the data that a run's recipe names are no longer what they were."""
    known = read_data(folder).sha256
    if known is not None and known != test.sha256:
        print(
            f"pyro-vae: warning: {test.name!r} is not the data of this run: its SHA-256 is "
            f"{test.sha256[:12]}..., and that of the run's test data {known[:12]!r}...; "
            "name the run's own with --data, or take the scores as those of other data",
            file=sys.stderr,
        )


def check_vocabulary(folder: Path, data: Dataset) -> None:
    """Raise `InvalidInput` unless the data's vocabulary is the one the run was trained with."""
    trained_on = vocabulary_of(folder)
    if trained_on is not None and (
        data.vocabulary is None or data.vocabulary.words != trained_on.words
    ):
        raise InvalidInput(
            "data",
            got=f"{data.name!r}, whose vocabulary differs from {folder / VOCABULARY}",
            expected="text in the vocabulary of the run",
            fix="use the Python version that it was trained with, or train anew"
            if data.name in datasets.names()
            else "restore the text as it was, or name a copy with --data, which is read in the "
            "words of the run",
        )


def vocabulary_of(folder: Path) -> Vocabulary | None:
    """The vocabulary of a run on text."""
    path = folder / VOCABULARY
    if not os.path.lexists(path):
        return None
    shape = read_data(folder).event_shape
    length = shape[0] if isinstance(shape, tuple) else None
    return Vocabulary(read_text(path, WORDS, inside=folder).splitlines(), length)
