"""Every reader on mutated files: a right value or one line, nothing run, memory within bounds."""

import hashlib
import importlib.util
import json
import random
import resource
import shutil
import sys
import wave

import numpy as np
import pytest
import torch
import yaml
from conftest import small_vae
from mutations import mutated_archive, mutated_bytes, mutated_tree, with_checksum
from PIL import Image

import pyro_vae as pv
from pyro_vae.cli.runs import vocabulary_of
from pyro_vae.cli.scores import score_run
from pyro_vae.datasets.idx import read_idx_parts
from pyro_vae.datasets.named import load
from pyro_vae.evaluation.comparison import compare, load_scores
from pyro_vae.recipes.recipe import read_recipe, read_settings
from pyro_vae.report.page import report
from pyro_vae.validation import InvalidInput

FINDINGS = {
    "captions": {"a.png": "A figure."},
    "numbers": {
        "latent_dims": 2,
        "active_dims": 1,
        "has_means": True,
        "is_given_labels": False,
        "aggregate": {"accuracy": 0.5, "se": 0.1},
        "probes": [{"classifier": "k", "accuracy": 0.5, "se": 0.1, "num_data": 5, "num_train": 5}],
        "local_dimension": {"median": 2.0, "num_data": 5, "dim": 2, "label": None},
        "outliers": [],
        "reference": None,
    },
    "warnings": ["a warning"],
    "seed": 0,
}

RECIPE = (
    "data: digits\nprior: {class_path: GaussianMixture, init_args: {components: 3}}\nlatent: 2\n"
    "encoder: {class_path: MLP, init_args: {hidden: [16], activation: torch.nn.Tanh}}\n"
    "epochs: 1\nseed: 3\ndevice: cpu\nschedule: Cosine\n"
)


FIT = dict(epochs=1, batch_size=20, seed=0, progress=False, compile="off")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with one good file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    vae, data = small_vae(), load("digits")[1][:20]
    pv.fit(vae, data, out=folder, **FIT)
    score_run(vae, data, 30, folder, 0)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "inspection").mkdir()
    (folder / "inspection" / "inspection.json").write_text(json.dumps(FINDINGS))
    (folder / "inspection" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and more")
    (folder / "vocabulary.txt").write_text("the\ncat\n")
    np.savez(folder / "data.npz", x=np.random.rand(30, 3).astype("f4"), y=np.arange(30) % 3)
    data_files(folder / "data")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            b"\0\0\x08\3\0\0\0\2\0\0\0\x1c\0\0\0\x1c" + bytes(2 * 784)
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\2\1\2")
    return folder


def data_files(folder):
    """A file of each other kind of data, written by the libraries that are there."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("f4")
    for name in ("images", "deep", "sounds"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "x.npy", x)
    (folder / "x.csv").write_text("a,b\n" + "".join(f"{row[0]},c{row[1]}\n" for row in x))
    (folder / "x.txt").write_text("the cat sat\n" * 20)
    for i, ending in enumerate(("png", "tif", "gif", "bmp", "jpg")):
        Image.fromarray(np.full((4, 5), 40 * i, np.uint8)).save(folder / "images" / f"{i}.{ending}")
    for i in range(3):
        with wave.open(str(folder / "sounds" / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(200))
    for name, write in WRITERS.items():
        if importlib.util.find_spec(name):
            write(folder, x)


def write_hdf5(folder, x):
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(5, 3), compression=1)
        file["y"] = np.arange(20) % 3


def write_cells(folder, x):
    import anndata

    anndata.AnnData(x, obs={"kind": ["a", "b"] * 10}).write_h5ad(folder / "x.h5ad")


def write_zarr(folder, x):
    import zarr

    zarr.save_group(str(folder / "x.zarr"), x=x, y=np.arange(20) % 3)


def write_parquet(folder, x):
    import pyarrow.parquet

    table = pyarrow.table({"a": x[:, 0], "b": ["u", "v"] * 10})
    pyarrow.parquet.write_table(table, folder / "x.parquet")


def write_saved(folder, x):
    import datasets

    rows = {"a": x[:, 0], "b": ["u", "v"] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "saved"))


def write_deep(folder, x):
    import tifffile

    levels = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)
    for i in range(3):
        tifffile.imwrite(folder / "deep" / f"{i}.tif", levels, photometric="rgb")


WRITERS = {
    "h5py": write_hdf5,
    "anndata": write_cells,
    "zarr": write_zarr,
    "pyarrow": write_parquet,
    "datasets": write_saved,
    "tifffile": write_deep,
}


def the_training(folder):
    """Training that continues where it has ended, or soon will."""
    pv.fit(small_vae(), load("digits")[1][:20], out=folder, resume=True, **FIT)


def the_data(name):
    return lambda folder: load(str(folder / "data" / name))


def the_report(folder):
    page = report(folder, small_vae())
    assert "/etc/passwd" not in page or "root:" not in page
    page.encode("utf-8", "surrogateescape")


def the_scores(folder):
    scores = load_scores(folder / "evaluation.npz")
    for score in scores.values():
        compare(score, score)


READERS = {
    "program.json": lambda folder: pv.load(folder),
    "weights": lambda folder: pv.load(folder),
    "recipe.yaml": lambda folder: (
        read_settings(folder / "recipe.yaml", folder),
        read_recipe(folder / "recipe.yaml", (), folder),
    ),
    "evaluation.json": the_report,
    "inspection/inspection.json": the_report,
    "evaluation.npz": the_scores,
    "data.npz": lambda folder: load(str(folder / "data.npz")),
    "vocabulary.txt": vocabulary_of,
    "MNIST/raw/train-images-idx3-ubyte": lambda folder: read_idx_parts("MNIST", folder),
    "MNIST/raw/t10k-labels-idx1-ubyte": lambda folder: read_idx_parts("MNIST", folder),
    "training.json": the_training,
    **{f"data/{name}": the_data(name) for name in ("x.npy", "x.csv", "x.txt", "x.h5", "x.h5ad",
                                                   "x.parquet")},
    "data/x.zarr/x/zarr.json": the_data("x.zarr"),
    "data/x.zarr/x/c/0/0": the_data("x.zarr"),
    "data/saved/state.json": the_data("saved"),
    "data/saved/dataset_info.json": the_data("saved"),
    "data/saved/data-00000-of-00001.arrow": the_data("saved"),
    **{f"data/images/{name}": the_data("images") for name in ("0.png", "1.tif", "2.gif", "4.jpg")},
    "data/deep/0.tif": the_data("deep"),
    "data/sounds/0.wav": the_data("sounds"),
}  # fmt: skip


def mutate(folder, name, draw):
    """Replace a file of a folder by a mutation of it, with whatever checksums a forger writes."""
    if name == "weights":
        index = json.loads((folder / "program.json").read_text())
        path = folder / index["weights"]
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
        if draw.random() < 0.8:
            index["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            (folder / "program.json").write_text(json.dumps(with_checksum(index)))
        return
    path = folder / name
    data, is_tree = path.read_bytes(), draw.random() < 0.7
    if name.endswith(".json") and is_tree:
        tree = mutated_tree(json.loads(data), draw)
        tree = with_checksum(tree) if isinstance(tree, dict) else tree
        path.write_text(json.dumps(tree))
    elif name.endswith(".yaml") and is_tree:
        path.write_text(yaml.safe_dump(mutated_tree(yaml.safe_load(data), draw)), errors="replace")
    elif name.endswith(".npz") and is_tree:
        path.write_bytes(mutated_archive(data, draw))
    else:
        path.write_bytes(mutated_bytes(data, draw))


def torture(whole, folder, count, seed):
    """Run every reader on ``count`` mutated files; return what went wrong."""
    draw, wrong, before = random.Random(seed), [], {*sys.modules}
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    for number in range(count):
        name = [*READERS][number % len(READERS)]
        mutate(folder, name, draw)
        try:
            READERS[name](folder)
        except InvalidInput as error:
            if "\n" in str(error):
                wrong.append((number, name, f"lines: {error}"))
        except Exception as error:
            trace, place = error.__traceback__, ""
            while trace:
                code = trace.tb_frame.f_code
                if "pyro_vae/" in code.co_filename:
                    place = f"{code.co_filename.split('pyro_vae/')[-1]}:{trace.tb_lineno}"
                trace = trace.tb_next
            wrong.append((number, name, f"{type(error).__name__}: {str(error)[:90]} at {place}"))
        if (whole / name).is_file() and READERS[name] is not the_training:
            shutil.copy2(whole / name, folder / name)
        else:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
    strange = [
        name for name in {*sys.modules} - before if name.split(".")[0] in ("os", "antigravity")
    ]
    assert not strange
    return wrong


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """What a mutated program says when it is scored is not looked at."""
    monkeypatch.setattr(torch, "load", None)


@pytest.mark.filterwarnings("ignore")
def test_no_reader_fails_otherwise_than_in_one_line(whole, tmp_path):
    assert not torture(whole, tmp_path / "run", 100, seed=0)


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 11))
def test_twenty_thousand_mutations(whole, tmp_path, seed):
    """Ten times two thousand; the largest memory of the process is asserted, too."""
    wrong = torture(whole, tmp_path / "run", 2000, seed)
    assert not wrong, "\n".join(map(str, wrong))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20  # in KB
