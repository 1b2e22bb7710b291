"""Every reader on mutated files: a right value or one line, nothing run, memory within bounds."""

import gc
import hashlib
import importlib.util
import json
import os
import random
import shutil
import wave

import numpy as np
import pytest
import yaml
from common import small_vae
from mutations import mutated_archive, mutated_bytes, mutated_tree, with_checksum
from PIL import Image
from torture.watched import watched

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli.run_data import read_data, write_data
from pyro_vae.cli.runs import vocabulary_of
from pyro_vae.cli.scores import score_run
from pyro_vae.datasets.idx import read_idx_parts
from pyro_vae.datasets.named import load
from pyro_vae.evaluation.comparison import compare, load_scores
from pyro_vae.recipes.recipe import read_recipe, read_settings
from pyro_vae.report.page import report

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


TABLE = "a,b,age,kind\n" + "".join(f"{i / 3},{i % 2},{20 + i},k{i % 3}\n" for i in range(30))

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
    (folder / "table.csv").write_text(TABLE)
    write_data(folder, *load(str(folder / "table.csv"), context=["age", "kind"]))
    journal = {"token": "0123456789abcdef", "files": ["evaluation.json", "recipe.yaml"]}
    (folder / ".commit.json").write_text(json.dumps(journal))
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


IMAGES = ("png", "tif", "gif", "bmp", "jpg", "webp", "ppm")


def data_files(folder):
    """A file of each other kind of data, written by the libraries that are there."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("f4")
    for name in ("deep", "sounds", *IMAGES):
        (folder / name).mkdir(parents=True)
    np.save(folder / "x.npy", x)
    (folder / "x.csv").write_text("a,b\n" + "".join(f"{row[0]},c{row[1]}\n" for row in x))
    (folder / "x.txt").write_text("the cat sat\n" * 20)
    for ending in IMAGES:
        for i in range(3):
            pixels = np.full((4, 5), 40 * i, np.uint8)
            Image.fromarray(pixels).save(folder / ending / f"{i}.{ending}")
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
    "metrics.csv": the_training,
    "data.json": read_data,
    ".commit.json": lambda folder: (
        checkpoint.current(folder, "recipe.yaml"), checkpoint.commit(folder, {"a.json": b"{}"})
    ),
    "table.csv": lambda folder: load(str(folder / "table.csv"), context=["age", "kind"]),
    **{f"data/{name}": the_data(name) for name in ("x.npy", "x.csv", "x.txt", "x.h5", "x.h5ad",
                                                   "x.parquet")},
    "data/x.zarr/x/zarr.json": the_data("x.zarr"),
    "data/x.zarr/x/c/0/0": the_data("x.zarr"),
    "data/saved/state.json": the_data("saved"),
    "data/saved/dataset_info.json": the_data("saved"),
    "data/saved/data-00000-of-00001.arrow": the_data("saved"),
    **{f"data/{ending}/0.{ending}": the_data(ending) for ending in IMAGES},
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


COUNT = int(os.environ.get("TORTURE_MUTATIONS", "20000"))  # of the long form, over all readers
WHOLE = ("training.json", "metrics.csv", ".commit.json", "data/saved")  # what writes, or is many


@pytest.fixture(scope="module")
def warm(whole, tmp_path_factory):
    """A folder in which every reader has read its file once, so that a fork imports nothing."""
    folder = tmp_path_factory.mktemp("warm") / "run"
    shutil.copytree(whole, folder)
    for reader in READERS.values():
        reader(folder)
    (folder.parent / "trap.py").write_text("import os\nos.system('true')\n")
    gc.collect()
    gc.freeze()  # so that the children's collectors copy no pages
    yield folder
    gc.unfreeze()


def torture(whole, folder, name, numbers, monkeypatch):
    """Run a reader on mutations of its file; return what went wrong, and how many were read."""
    monkeypatch.syspath_prepend(folder.parent)  # where the module ``trap`` lies
    wrong, read, peak, seconds = [], 0, 0, 0.0
    for number in numbers:
        mutate(folder, name, random.Random(f"{name} {number}"))
        seen = watched(lambda: READERS[name](folder), folder.parent)
        read, peak = read + (not seen.words), max(peak, seen.peak)
        seconds = max(seconds, seen.seconds)
        if seen.wrong:
            wrong.append(f"{name} {number}: {seen.wrong}")
        if name.startswith(WHOLE) or not (whole / name).is_file():
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
        else:
            shutil.copy2(whole / name, folder / name)
    print(
        f"{name}: {len(numbers)} mutations, {read} read, {len(wrong)} wrong, "
        f"at most {peak / 2**20:.0f} MB and {seconds:.1f} s",
        flush=True,
    )
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_no_reader_fails_otherwise_than_in_one_line(whole, warm, monkeypatch):
    """Three mutations of each file."""
    assert not [
        line for name in READERS for line in torture(whole, warm, name, range(3), monkeypatch)
    ]


@pytest.mark.filterwarnings("ignore")
def test_what_a_reader_must_not_do_is_seen(warm, tmp_path, monkeypatch):
    """That the watch itself sees programs, imports, files and memory."""
    monkeypatch.syspath_prepend(warm.parent)
    for work, words in (
        (lambda: os.system("true"), "os.system"),
        (lambda: importlib.import_module("trap"), "os.system"),
        (lambda: (tmp_path / "out").write_text("x"), "open to write"),
        (lambda: np.load(warm / "objects.npy", allow_pickle=True), "pickle.find_class"),
        (lambda: bytearray(2100 * 2**20), " GB"),
        (lambda: {}["x"], "KeyError"),
    ):
        np.save(warm / "objects.npy", np.array([{}, os], object)[:1], allow_pickle=True)
        assert words in str(vars(seen := watched(work, warm.parent))) + seen.wrong


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_twenty_thousand_mutations(whole, warm, name, monkeypatch):
    """Of all readers together, `COUNT` of them; `-k` chooses a reader."""
    wrong = torture(whole, warm, name, range(-(-COUNT // len(READERS))), monkeypatch)
    assert not wrong, "\n".join(wrong)
