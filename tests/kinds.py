"""Every kind of data, as an object and as a file: what it must become, or how it is refused.

``python tests/kinds.py`` writes the table of `docs/data-kinds.md`; a test feeds each and
holds the table there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
import torch.utils.data
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs" / "data-kinds.md"

X = np.array([[1.5, -2.0], [0.25, 3.0], [-1.0, 0.5], [2.0, 8.0]])
NAN = np.nan


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    Args:
        what: the kind in words.
        make: the object; of a file or folder, writes it to the path it is given.
        x: the values that it must become, or a part of the line that refuses it.
        y: the context that it must become.
        suffix: the ending of the file, "/" for a folder; none for an object.
        missing: whether entries become marked as missing.
        says: a part of what is logged, where something is left out or filled in.
        options: options of `load`.
        needs: the library that makes or reads it.
    """

    what: str
    make: Callable
    x: object
    y: object = None
    suffix: str | None = None
    missing: bool = False
    says: str = ""
    options: dict = field(default_factory=dict)
    needs: str = "numpy"

    @property
    def is_refused(self) -> bool:
        return isinstance(self.x, str)

    def row(self) -> str:
        form = "object" if self.suffix is None else f"`{self.suffix}`"
        result = f"refused: {self.x}" if self.is_refused else "works"
        says = f"; says: {self.says}" if self.says else ""
        options = ", ".join(f"`{name}={value!r}`" for name, value in self.options.items())
        return f"| {self.what} | {form} | {options} | {result}{says} |"


# data sets of torch


class Dictionaries(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {self.x: torch.from_numpy(X[i]), self.y: i % 2}


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return Image.fromarray(np.full((2, 3), 51 * i, dtype=np.uint8)), i


class Unequal(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return torch.ones(i + 1)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(2)


class Ends(torch.utils.data.IterableDataset):
    def __len__(self):
        return len(X)

    def __iter__(self):
        return iter(torch.from_numpy(X))


# other libraries, each imported where it is needed


def pandas():
    import pandas

    return pandas


FRAME = {"height": [1.5, None, -2.0, 0.5], "species": ["b", "a", None, "b"], "eggs": [3, 0, 2, 7]}
NUMBERS = [[1.5, 1, 3], [NAN, 0, 0], [-2.0, NAN, 2], [0.5, 1, 7]]


def polars_frame():
    import polars

    return polars.DataFrame(FRAME)


def arrow_table():
    import pyarrow

    return pyarrow.table(FRAME)


def cells():
    import anndata
    import scipy.sparse

    obs = pandas().DataFrame({"batch": ["p", "q", "p", "q"]}, index=list("1234"))
    return anndata.AnnData(scipy.sparse.csr_matrix(np.abs(np.round(X))), obs=obs)


def hub_images():
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    pictures = [Image.fromarray(np.full((2, 3), 51 * i, dtype=np.uint8)) for i in range(3)]
    return datasets.Dataset.from_dict({"image": pictures, "label": [1, 0, 1]}, features=features)


def hub_table():
    import datasets

    return datasets.Dataset.from_dict(FRAME)


def scipy_sparse(kind):
    def make():
        import scipy.sparse

        return vars(scipy.sparse)[kind](X)

    return make


def nested():
    parts = [torch.ones(1, 2), 2 * torch.ones(2, 2)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


def two_tables():
    return {"train": pandas().DataFrame({"a": [1.5]}), "test": pandas().DataFrame({"b": [1.5]})}


def polars_enum():
    import polars

    sizes = polars.Series(["large", "small", "large"], dtype=polars.Enum(["small", "mid", "large"]))
    return polars.DataFrame({"size": sizes})


def polars_lazy():
    import polars

    return polars.LazyFrame(FRAME)


def arrow_bytes():
    import pyarrow

    return pyarrow.table({"a": [b"v", b"u", None]})


def put_aside(path):
    """An AnnData with other matrices beside X."""
    found = cells()
    found.raw = found.copy()
    found.X = found.X * 0.5
    found.layers["counts"], found.obsm["pca"] = found.X * 4, X
    found.write_h5ad(path)


def hub_with(**columns):
    def make():
        import datasets

        return datasets.Dataset.from_dict(columns)

    return make


def hub_stream():
    return list(hub_table().to_iterable_dataset().take(4))


class WithCovariates(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], {"sex": "fm"[i % 2], "age": 30.0 + i}


def pictures(batch):
    return [image for image, _ in batch]


LOADER, TENSORS = torch.utils.data.DataLoader, torch.utils.data.TensorDataset
T = torch.from_numpy(X)
PADDED = np.array([[1.0, NAN], [1.0, 1.0]])
GREYS = np.stack([np.full((1, 2, 3), 0.2 * i) for i in range(3)])
MASKED = np.ma.masked_equal([[1.0, -9999.0], [2.0, 3.0]], -9999.0)
RECORDS = np.array([(1.5, 3), (-2.0, 0)], dtype=[("a", ">f8"), ("b", "<i4")])

OBJECTS = [
    Kind("tensor", lambda: T, X),
    Kind("tensor with a gradient", lambda: T.clone().requires_grad_(), X),
    Kind("tensor of half precision", lambda: T.half(), X),
    Kind("tensor of bfloat16", lambda: T.bfloat16(), X),
    Kind("array", lambda: X, X),
    Kind("array of the other byte order", lambda: X.astype(">f8"), X),
    Kind("array of big-endian integers", lambda: np.array([[3], [5]], dtype=">i2"), [[3], [5]]),
    Kind("array of unsigned 16 bits", lambda: np.array([[3], [65535]], np.uint16), [[3], [65535]]),
    Kind("array of truth values", lambda: X > 0, X > 0),
    Kind("array of long double", lambda: X.astype(np.longdouble), X),
    Kind("array in reverse", lambda: X[::-1], X[::-1]),
    Kind("array of 8-bit floats", lambda: T.to(torch.float8_e5m2), X.clip(-2, 8)),
    Kind("array of decimals", lambda: np.array([[Decimal("1.5")], [Decimal("2")]], object),
         [[1.5], [2]]),
    Kind("decimals that float64 rounds", lambda: [[Decimal("0.1")], [Decimal(2)]], [[0.1], [2]],
         says="numbers of class Decimal are rounded"),
    Kind("integers beyond 2^53", lambda: np.array([[2**53 + 1]]), [[2**53]],
         says="integers beyond 2^53 are rounded"),
    Kind("a buffer of bytes", lambda: memoryview(X), X),
    Kind("array of texts", lambda: np.array([["a"], ["b"]]), "an array of <U1"),
    Kind("list of texts", lambda: ["a b", "c"], "a sequence with a str"),
    Kind("array without columns", lambda: np.zeros((3, 0)), "without a number"),
    Kind("array with a mask", lambda: MASKED, [[1, NAN], [2, 3]], missing=True,
         says="1 masked entries are missing"),
    Kind("array of records", lambda: RECORDS, [[1.5, 3], [-2, 0]]),
    Kind("array of objects", lambda: np.array([[1, None], [2, 3]], object), [[1, NAN], [2, 3]],
         missing=True),
    Kind("bytes 0 and 1", lambda: np.array([[0, 1]], np.uint8), [[0.0, 1.0]]),
    Kind("integers beyond 2^24", lambda: np.array([[2**24 + 1]]), [[2**24 + 1]]),
    Kind("array without dimensions", lambda: np.array(3.0), "a single number"),
    Kind("array without rows", lambda: np.zeros((0, 3)), "no data"),
    Kind("complex array", lambda: X + 1j, "an array of complex128"),
    Kind("array of dates", lambda: np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
    Kind("integers beyond 2^63", lambda: np.array([[2**63]], np.uint64), "integers up to"),
    Kind("nested lists", lambda: X.tolist(), X),
    Kind("list of tensors", lambda: list(T), X),
    Kind("lists of unequal length", lambda: [[1.0], [1.0, 1.0]], PADDED, missing=True,
         says="sequences of 1 to 2 steps"),
    Kind("lists, one without a step", lambda: [[], [1.0, 1.0]], [[NAN, NAN], [1, 1]], missing=True,
         says="sequences of 0 to 2 steps"),
    Kind("packed sequences", lambda: torch.nn.utils.rnn.pack_sequence(
         [torch.ones(2), torch.ones(1)]), PADDED[::-1], missing=True,
         says="sequences of 1 to 2 steps"),
    Kind("list of two arrays", lambda: [T, T], "a list of two arrays"),
    Kind("pair", lambda: (T, [0, 1, 0, 2]), X, [0, 1, 0, 2]),
    Kind("pair with names for labels", lambda: (X, ["b", "a", "a", "b"]), X, [1, 0, 0, 1]),
    Kind("pair with an unknown label", lambda: (X, [0, None, 1, 1]), X, [0, -1, 1, 1]),
    Kind("pair with missing names", lambda: (X, ["b", NAN, None, "a"]), X, [1, -1, -1, 0]),
    Kind("pair with masked names", lambda: (X, np.ma.array(list("baab"), mask=[0, 0, 1, 0])), X,
         [1, 0, -1, 1], says="1 masked entries"),
    Kind("pair with bytes for labels", lambda: (X, [b"b", b"a", b"a", b"b"]), X, [1, 0, 0, 1]),
    Kind("pair with truth values", lambda: (X, X[:, 0] > 0), X, [1, 1, 0, 1]),
    Kind("pair with numbers for names", lambda: (X, ["9", "10", "9", "10"]), X, [0, 1, 0, 1]),
    Kind("pair with names beside numbers", lambda: (X, ["b", 1, "a", 2]), "texts beside an int"),
    Kind("pair with a series of categories", lambda: (X, pandas().Series(pandas().Categorical(
         list("zyyz"), ["z", "y", "x"]))), X, [0, 1, 1, 0], needs="pandas"),
    Kind("pair with a table", lambda: (X, pandas().DataFrame({"sex": list("fmfm"),
         "age": [30, 40, 50, 60]})), X, [[0, 30], [1, 40], [0, 50], [1, 60]], needs="pandas"),
    Kind("pair of a table and names", lambda: (pandas().DataFrame(X, columns=["a", "b"]),
         ["b", "a", "a", "b"]), X, [1, 0, 0, 1], needs="pandas"),
    Kind("pair of a matrix of scipy and names", lambda: (scipy_sparse("csr_matrix")(),
         ["b", "a", "a", "b"]), X, [1, 0, 0, 1], needs="scipy"),
    Kind("pair of AnnData and names", lambda: (cells(), ["b", "a", "a", "b"]), np.abs(np.round(X)),
         [1, 0, 0, 1], says="obs columns batch", needs="anndata"),
    Kind("pair with contexts of unequal length", lambda: (X, [[1.0], [1.0, 2.0], [1.0], [1.0]]),
         "data of shapes (1,) and (2,)"),
    Kind("list of pairs", lambda: [(row, i % 2) for i, row in enumerate(T)], X, [0, 1, 0, 1]),
    Kind("list of rows by name", lambda: [{"a": 1.5, "b": "v"}, {"a": -1.0, "b": "u"}],
         [[1.5, 1], [-1, 0]], says="b binary"),
    Kind("list of data sets", lambda: torch.utils.data.random_split(TENSORS(T), [2, 2]),
         "a list of 2 data sets"),
    Kind("three arrays", lambda: (T, T, T), "3 arrays"),
    Kind("dictionary of x and y", lambda: {"x": T, "y": [0, 1, 0, 1]}, X, [0, 1, 0, 1]),
    Kind("dictionary of splits", lambda: {"train": X, "test": X}, X),
    Kind("dictionary of splits and another", lambda: {"train": X, "test": X, "w": X},
         "train, test, w"),
    Kind("dictionary of splits of two shapes", lambda: {"train": X, "test": X[:, :1]},
         "data of shape (1,) in test"),
    Kind("dictionary of splits, one with y", lambda: {"train": (X, [0, 1, 0, 1]), "test": X},
         "a context of some splits"),
    Kind("dictionary of tables of other columns", two_tables, "column 'a' in one of",
         needs="pandas"),
    Kind("dictionary of x, y and context", lambda: {"x": X, "y": X, "context": X},
         "both y and context"),
    Kind("dictionary of series", lambda: {name: pandas().Series(entries)
         for name, entries in FRAME.items()}, NUMBERS, missing=True, needs="pandas"),
    Kind("dictionary of columns of unequal length", lambda: {"a": [1, 2], "b": [1]},
         "columns of lengths"),
    Kind("dictionary of columns", lambda: FRAME, NUMBERS, missing=True),
    Kind("scipy, sparse matrix", scipy_sparse("csr_matrix"), X, needs="scipy"),
    Kind("scipy, dictionary of keys", scipy_sparse("dok_matrix"), X, needs="scipy"),
    Kind("scipy, sparse array", scipy_sparse("coo_array"), X, needs="scipy"),
    Kind("torch, sparse", lambda: T.to_sparse(), X),
    Kind("nested tensor", nested, [[[1, 1], [NAN, NAN]], [[2, 2], [2, 2]]], missing=True,
         says="sequences of 1 to 2 steps"),
    Kind("images of Pillow", lambda: [Pictures()[i][0] for i in range(3)], GREYS),
    Kind("images of Pillow, transparent", lambda: [Image.new("LA", (3, 2), (51, 9))],
         GREYS[1:2], says="the transparency of 1 images"),
    Kind("images of Pillow, two modes", lambda: [Image.new("L", (3, 2)), Image.new("RGB", (3, 2))],
         "images of shapes (1, 2, 3) and (3, 2, 3)"),
    Kind("channels last, one channel", lambda: np.zeros((5, 28, 28, 1)), "channels come last"),
    Kind("films, channels last", lambda: np.zeros((2, 5, 9, 9, 3)), "channels come last"),
    Kind("channels last", lambda: torch.zeros(5, 28, 28, 3), "channels come last"),
    Kind("pandas, table", lambda: pandas().DataFrame(FRAME), NUMBERS, missing=True,
         needs="pandas"),
    Kind("pandas, series", lambda: pandas().Series([1.0, 2.0]), [1.0, 2.0], needs="pandas"),
    Kind("pandas, numbers with gaps", lambda: pandas().DataFrame({"a": [1, None]}, dtype="Int64"),
         [[1], [NAN]], missing=True, needs="pandas"),
    Kind("pandas, dates", lambda: pandas().DataFrame({"d": pandas().to_datetime(["2020-01-01"])}),
         "datetime64", needs="pandas"),
    Kind("pandas, dates as objects", lambda: pandas().DataFrame({"d": [date(2020, 1, 1)]}),
         "entries of date", needs="pandas"),
    Kind("pandas, lists in a column", lambda: pandas().DataFrame({"a": [[1], [2]]}),
         "entries of list", needs="pandas"),
    Kind("pandas, numbers as texts", lambda: pandas().DataFrame({"a": ["01", "02"]}),
         "numbers written as texts", needs="pandas"),
    Kind("pandas, infinite", lambda: pandas().DataFrame({"a": [1.5, np.inf]}), "inf in row 1",
         needs="pandas"),
    Kind("pandas, all true", lambda: pandas().DataFrame({"a": [True, True]}), [[1], [1]],
         says="a binary", needs="pandas"),
    Kind("pandas, integers beyond 2^53", lambda: pandas().DataFrame({"a": [2**53 + 1, -1]}),
         [[2**53], [-1]], says="beyond 2^53 in a", needs="pandas"),
    Kind("pandas, array with gaps", lambda: pandas().array([1, None], dtype="Int64"), [1, NAN],
         missing=True, needs="pandas"),
    Kind("polars, categories in order", polars_enum, [[2], [0], [2]], says="size category",
         needs="polars"),
    Kind("polars, lazy", polars_lazy, "data.collect()", needs="polars"),
    Kind("pyarrow, bytes", arrow_bytes, [[1], [0], [NAN]], missing=True, says="a binary",
         needs="pyarrow"),
    Kind("polars, table", polars_frame, NUMBERS, missing=True, needs="polars"),
    Kind("pyarrow, table", arrow_table, NUMBERS, missing=True, needs="pyarrow"),
    Kind("AnnData", cells, np.abs(np.round(X)), says="obs columns batch are left out",
         needs="anndata"),
    Kind("AnnData, split by split", lambda: {"train": cells(), "test": cells()},
         np.abs(np.round(X)), says="obs columns batch", needs="anndata"),
    Kind("Hugging Face, first of a stream", hub_stream, NUMBERS, missing=True, needs="datasets"),
    Kind("Hugging Face, without an entry", hub_with(x=[[1.0], None]), "no x in row 1",
         needs="datasets"),
    Kind("Hugging Face, images", hub_images, GREYS, [1, 0, 1], needs="datasets"),
    Kind("Hugging Face, table", hub_table, NUMBERS, missing=True, needs="datasets"),
    Kind("Hugging Face, a stream", lambda: hub_table().to_iterable_dataset(), "without a length",
         needs="datasets"),
    Kind("torch data set, tensors", lambda: TENSORS(T, torch.arange(4)), X, [0, 1, 2, 3]),
    Kind("torch data set, three tensors", lambda: TENSORS(T, T, T), "3 arrays"),
    Kind("torch data set, images of Pillow", Pictures, GREYS, [0, 1, 2]),
    Kind("torch data set, x and y by name", lambda: Dictionaries("x", "y"), X, [0, 1, 0, 1]),
    Kind("torch data set, covariates by name", WithCovariates, X,
         {"sex": [0, 1, 0, 1], "age": [30, 31, 32, 33]}, says="sex: f, m are 0, 1"),
    Kind("torch data set, other names", lambda: Dictionaries("image", "label"), "dictionaries"),
    Kind("torch data set, unequal lengths", Unequal, PADDED, missing=True,
         says="sequences of 1 to 2 steps"),
    Kind("torch data set, a stream that ends", Ends, X),
    Kind("torch data set, a stream without a length", Endless, "without a length"),
    Kind("loader", lambda: LOADER(TENSORS(T, torch.arange(4)), batch_size=3), X, [0, 1, 2, 3]),
    Kind("loader, one by one", lambda: LOADER(TENSORS(T), batch_size=None), X),
    Kind("loader of covariates", lambda: LOADER(WithCovariates(), batch_size=3), X,
         {"sex": [0, 1, 0, 1], "age": [30, 31, 32, 33]}, says="sex: f, m are 0, 1"),
    Kind("loader of images", lambda: LOADER(Pictures(), batch_size=2, collate_fn=pictures), GREYS),
    Kind("loader of sequences filled by batch", lambda: LOADER(Unequal(), batch_size=1),
         "data of shapes (1,), (2,)"),
    Kind("loader of batches that drop the last", lambda: LOADER(TENSORS(T), batch_sampler=
         torch.utils.data.BatchSampler(range(4), 3, drop_last=True)), X[:3],
         says="leaves 1 of 4 data out"),
    Kind("loader that drops the last", lambda: LOADER(TENSORS(T), batch_size=3, drop_last=True),
         X[:3], says="drop_last leaves 1 of 4 data out"),
    Kind("loader of a stream", lambda: LOADER(Endless()), "without a length"),
    Kind("generator", lambda: (x for x in X), "without a length"),
    Kind("a path", lambda: "data.npz", "not their name or path"),
    Kind("something else", lambda: torch.nn.Linear(2, 2), "a Linear"),
]  # fmt: skip


# files


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def text(written):
    return lambda path: path.write_text(written)


def image_folder(**images):
    """A folder of images, each named with ``__`` for a slash and one for a dot before its type."""

    def make(folder):
        for name, image in images.items():
            path = folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, bytes):
                path.write_bytes(image)
            else:
                image.save(path)

    return make


def grey(level, dtype=np.uint8, size=(2, 3)):
    return Image.fromarray(np.full(size, level, dtype=dtype))


def deep_colours(level) -> bytes:
    """A PNG of 2x3 pixels of 16-bit colours."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body)
        )  # fmt: skip

    rows = 2 * (b"\0" + struct.pack(">9H", *[level] * 9))
    head = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def hdf5(**arrays):
    def make(path):
        import h5py

        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name.replace("__", "/")] = array

    return make


def zarr_group(path):
    import zarr

    zarr.save_group(str(path), x=X, y=np.arange(4))


def waves(*lengths, rates=(8000,)):
    def make(folder):
        from scipy.io import wavfile

        folder.mkdir()
        for i, length in enumerate(lengths):
            rate = rates[i % len(rates)]
            wavfile.write(folder / f"{i}.wav", rate, np.full(length, 2**14, np.int16))

    return make


def constant(*levels, shape=(1, 2, 3)):
    return np.stack([np.full(shape, level) for level in levels])


def sparse_file(path):
    import scipy.sparse

    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(X))


def hdf5_outside(path):
    import h5py

    other = path.with_name("other.bin")
    other.write_bytes(b"1234")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4,), dtype="u1", external=[(str(other), 0, 4)])


UNTURNED = np.arange(6).reshape(2, 3)
TURNED = np.rot90(UNTURNED, -1)[None, None].repeat(2, 0)


def turned(dtype):
    """A PNG and a TIFF that say that they lie on their left side."""

    def make(folder):
        folder.mkdir()
        image = Image.fromarray(UNTURNED.astype(dtype))
        exif = image.getexif()
        exif[0x0112] = 6
        for name in ("a.png", "b.tif"):
            image.save(folder / name, exif=exif)

    return make


def transparent_level(folder):
    folder.mkdir()
    for name in "ab":
        grey(51).save(folder / f"{name}.png", transparency=51)


def signed_tiff(folder):
    folder.mkdir()
    Image.fromarray(np.full((4, 4), 5, np.int16)).save(folder / "a.tif")


def white_first(folder):
    import tifffile

    folder.mkdir()
    levels = np.full((4, 4), 13107, np.uint16)
    tifffile.imwrite(folder / "a.tif", levels, photometric="miniswhite")


PGM = b"P5\n2 1\n65535\n" + struct.pack(">2H", 13107, 65535)


def frames_in_gif(folder):
    folder.mkdir()
    grey(0).save(folder / "a.gif", save_all=True, append_images=[grey(200)])


def depths(folder):
    import soundfile

    folder.mkdir()
    for name, kind in (("a", "PCM_U8"), ("b", "PCM_24"), ("c", "PCM_32")):
        soundfile.write(folder / f"{name}.wav", np.full(5, 0.5), 8000, subtype=kind)


def stereo(folder):
    from scipy.io import wavfile

    folder.mkdir()
    left = np.full(5, 2**14, np.int16)
    wavfile.write(folder / "a.wav", 8000, np.stack([left, -left], 1))


def cut_short(folder):
    waves(5)(folder)
    path = folder / "0.wav"
    path.write_bytes(path.read_bytes()[:-4])


WITH_Y = dict(x=X, y=np.arange(4) % 2)
CSV = "height,species,eggs\n1.5,b,3\n,a,0\n-2,,2\n0.5,b,7\n"
SPLITS = {f"{split}__{label}__{i}_png": grey(51 * i) for split in ("train", "test", "val")
          for i, label in enumerate("ab")}  # fmt: skip

FILES = [
    Kind("arrays x and y", npz(**WITH_Y), X, [0, 1, 0, 1], ".npz"),
    Kind("arrays and others", npz(w=X, **WITH_Y), X, [0, 1, 0, 1], ".npz",
         says="arrays w are left out"),
    Kind("names for labels", npz(x=X, y=np.array(list("baab"))), X, [1, 0, 0, 1], ".npz"),
    Kind("bytes as they are", npz(x=np.array([[0], [200]], np.uint8)), [[0], [200]], None, ".npz"),
    Kind("bytes over 255", npz(x=np.array([[0], [51]], np.uint8)), [[0], [0.2]], None, ".npz",
         options={"scale": 255}),
    Kind("channels last", npz(x=np.zeros((2, 5, 5, 3))), np.zeros((2, 3, 5, 5)), None, ".npz",
         options={"channels": "last"}),
    Kind("no array x", npz(z=X), "key='z'", None, ".npz"),
    Kind("another array as x", npz(z=X, w=X), X, None, ".npz", options={"key": "z"},
         says="arrays w are left out"),
    Kind("pickles", npz(x=np.array([{}], object)), "without pickles", None, ".npz"),
    Kind("one datum", npz(x=X[:1]), "with one datum", None, ".npz"),
    Kind("arrays by split", npz(x_train=X[:3], x_test=X[3:]), X, None, ".npz"),
    Kind("another array, by split", npz(z=X[:3], z_test=X[3:]), X, None, ".npz",
         options={"key": "z"}),
    Kind("arrays of splits, one with y", npz(x=X, y=[0, 1, 0, 1], x_test=X), "a context of some",
         None, ".npz"),
    Kind("arrays of splits of two shapes", npz(x=X, x_test=X[:, :1]), "of shape (1,) in test", None,
         ".npz"),
    Kind("sparse matrix", sparse_file, X, None, ".npz", needs="scipy"),
    Kind("records", npz(x=RECORDS), [[1.5, 3], [-2, 0]], None, ".npz", says="a real"),
    Kind("a size for arrays", npz(x=X), "a folder of images", None, ".npz",
         options={"resize": [4, 4]}),
    Kind("a name for one array", lambda path: np.save(path, X), "a file of named arrays", None,
         ".npy", options={"key": "z"}),
    Kind("one array", lambda path: np.save(path, X), X, None, ".npy"),
    Kind("big-endian array", lambda path: np.save(path, X.astype(">f4")), X, None, ".npy"),
    Kind("table", text(CSV), NUMBERS, None, ".csv", missing=True, says="species binary"),
    Kind("table, a label", text(CSV.replace("-2,,2", "-2,c,2")),
         [[1.5, 3], [NAN, 0], [-2, 2], [0.5, 7]], [1, 0, 2, 1], ".csv", missing=True,
         options={"target": "species"}, says="height real"),
    Kind("table, covariates", text("a,b,c\n1.5,u,3\n0.5,v,0\n"), [[3], [0]], [[1.5, 0], [0.5, 1]],
         ".csv", options={"context": ["a", "b"]}, says="c count"),
    Kind("table, a column left out", text("a,b\n1.5,u\n-1,v\n"), [[1.5], [-1]], None, ".csv",
         options={"columns": {"b": "drop"}}, says="left out as asked: b"),
    Kind("table, a whole number as context", text("a,age\n1.5,30\n-1,40\n"), [[1.5], [-1]],
         [[30], [40]], ".csv", options={"context": ["age"]}, says="context: age real"),
    Kind("table, categories in order", text("a\nmid\nhigh\nlow\n"), [[1], [2], [0]], None, ".csv",
         options={"columns": {"a": "low<mid<high"}}, says="a ordinal"),
    Kind("table, an order that is not said", text("a\nmid\nhigh\nlow\n"), "texts without an order",
         None, ".csv", options={"columns": {"a": "ordinal"}}),
    Kind("table, a kind that does not hold", text("a\n1.5\n-1\n"), "-1 in row 1", None, ".csv",
         options={"columns": {"a": "positive"}}),
    Kind("table, two numbers said binary", text("a\n1\n2\n"), [[0], [1]], None, ".csv",
         options={"columns": {"a": "binary"}}, says="a binary"),
    Kind("table, semicolons", text("a;b\n1,5;u\n"), "separated by ';'", None, ".csv"),
    Kind("table, commas for tabs", text("a,b\n1.5,u\n"), "separated by ','", None, ".tsv"),
    Kind("table, spaces after commas", text("a, b\n1.5, u\n-1,u\n"), [[1.5, 0], [-1, 0]], None,
         ".csv", says="b category"),
    Kind("table, leading zeros", text("zip,a\n01234,1.5\n99999,-1\n"), [[1234, 1.5], [99999, -1]],
         None, ".csv", says="numbers in zip lose their leading zeros"),
    Kind("table, infinite", text("a\ninf\n1.5\n"), "inf in row 0", None, ".csv"),
    Kind("table, another encoding", lambda path: path.write_bytes("a\n\xfc\n".encode("latin-1")),
         "'utf-8' codec", None, ".csv"),
    Kind("table with row numbers", text(",a\n0,1.5\n1,-1\n"), [[1.5], [-1]], None, ".csv",
         says="numbers rows"),
    Kind("table without names", text("1.5,2\n3,4\n"), "first line is numbers", None, ".csv"),
    Kind("table, a name twice", text("a,a\n1,2\n"), "two columns named 'a'", None, ".csv"),
    Kind("table, fields too many", text("a,b\n1,2,3\n4,5,6\n"), "cannot be read", None, ".csv"),
    Kind("table, texts among numbers", text("a\n1\nx\n3\n"), "numbers beside texts", None, ".csv"),
    Kind("table without rows", text("a,b\n"), "without rows", None, ".csv"),
    Kind("table, tabs", text(CSV.replace(",", "\t")), NUMBERS, None, ".tsv", missing=True,
         says="species binary"),
    Kind("table, Parquet", lambda path: pandas().DataFrame(FRAME).to_parquet(path), NUMBERS, None,
         ".parquet", missing=True, says="species binary", needs="pyarrow"),
    Kind("AnnData", lambda path: cells().write_h5ad(path), np.abs(np.round(X)), [0, 1, 0, 1],
         ".h5ad", options={"target": "batch"}, needs="anndata"),
    Kind("AnnData, counts put aside", put_aside,
         np.abs(np.round(X)), None, ".h5ad", options={"key": "raw"}, says="obs columns batch",
         needs="anndata"),
    Kind("AnnData, a layer", put_aside, 2 * np.abs(np.round(X)),
         None, ".h5ad", options={"key": "counts"}, says="obs columns batch", needs="anndata"),
    Kind("AnnData, an embedding", put_aside, X, None, ".h5ad",
         options={"key": "pca"}, says="obs columns batch", needs="anndata"),
    Kind("AnnData, no such layer", put_aside, "did you mean 'counts'",
         None, ".h5ad", options={"key": "count"}, needs="anndata"),
    Kind("Zarr", zarr_group, X, [0, 1, 2, 3], ".zarr", needs="zarr"),
    Kind("HDF5", hdf5(x=X, y=[0, 1, 0, 1]), X, [0, 1, 0, 1], ".h5", needs="h5py"),
    Kind("HDF5, texts for labels", hdf5(x=X, y=["b", "a", "a", "b"]), X, [1, 0, 0, 1], ".h5",
         needs="h5py"),
    Kind("HDF5, arrays in other files", hdf5_outside, "lies in other files", None, ".h5",
         needs="h5py"),
    Kind("HDF5, one array", hdf5(a__b=X), X, None, ".h5", needs="h5py"),
    Kind("HDF5, which array", hdf5(a=X, b=X), "key='a'", None, ".h5", needs="h5py"),
    Kind("HDF5, named array", hdf5(a=X, b=X), X, None, ".h5", options={"key": "a"},
         says="arrays b are left out", needs="h5py"),
    Kind("data set of Hugging Face", lambda path: hub_table().save_to_disk(str(path)), NUMBERS,
         None, "/", missing=True, says="species binary", needs="datasets"),
    Kind("an empty file", text(""), "which is empty", None, ".csv"),
    Kind("another kind than it says", text("nonsense"), "cannot be read", None, ".parquet",
         needs="pyarrow"),
    Kind("no file", lambda path: None, "does not exist", None, ".npz"),
    Kind("unknown ending", text("1"), "a file that ends in", None, ".xyz"),
    Kind("images of 8 bits", image_folder(a_png=grey(0), b_bmp=grey(51), c_tif=grey(255)),
         constant(0, 0.2, 1), None, "/"),
    Kind("images of 16 bits", image_folder(a_png=grey(0, np.uint16), b_tif=grey(13107, np.uint16)),
         constant(0, 0.2), None, "/"),
    Kind("images of 8 and 16 bits", image_folder(a_png=grey(51), b_tif=grey(13107, np.uint16)),
         constant(0.2, 0.2), None, "/"),
    Kind("images of 16-bit colours", image_folder(a_png=deep_colours(0),
         b_png=deep_colours(13107)), constant(0, 0.2, shape=(3, 2, 3)), None, "/"),
    Kind("images of 1 bit", image_folder(a_png=grey(255).convert("1"), b_png=grey(0).convert("1")),
         constant(0, 1), None, "/"),
    Kind("images on their side", turned(np.uint8), TURNED / 255, None, "/"),
    Kind("images of 16 bits on their side", turned(np.uint16), TURNED / 65535, None, "/"),
    Kind("images with a transparent level", transparent_level, constant(0.2, 0.2), None, "/",
         says="the transparency of 2 images"),
    Kind("images with levels below zero", signed_tiff, "without a highest level", None, "/"),
    Kind("images of 16 bits, zero is white", white_first, constant(0.8, shape=(1, 4, 4)), None,
         "/", needs="tifffile"),
    Kind("images, PGM of 16 bits", image_folder(a_pgm=PGM), [[[[0.2, 1.0]]]], None, "/"),
    Kind("images, splits in a folder", image_folder(**{f"all__{name}": image
         for name, image in SPLITS.items()}), constant(0, 0.2), [0, 1], "/"),
    Kind("images, splits within labels", image_folder(cat__train__a_png=grey(0),
         dog__test__b_png=grey(51)), "in a folder", None, "/"),
    Kind("images in labels 9 and 10", image_folder(**{"9__a_png": grey(0), "10__b_png": grey(51)}),
         constant(0, 0.2), [0, 1], "/"),
    Kind("images and hidden copies", image_folder(a_png=grey(0), _hidden__a_png=grey(255)),
         constant(0), None, "/"),
    Kind("images of several frames", frames_in_gif, "of several frames", None, "/"),
    Kind("images, a size without width", image_folder(a_png=grey(0)), "a height and a width", None,
         "/", options={"resize": [8]}),
    Kind("images in train, val, test", image_folder(**SPLITS), constant(0, 0.2),
         [0, 1], "/"),
    Kind("images by label", image_folder(cat__a_png=grey(0), dog__b_png=grey(51)),
         constant(0, 0.2), [0, 1], "/"),
    Kind("images, some without label", image_folder(u__a_png=grey(0), v__b_png=grey(51),
         c_png=grey(255)), constant(0, 0.2, 1), [0, 1, -1], "/", says="no label's folder"),
    Kind("images and other files", image_folder(a_png=grey(0), b_png=grey(51), c_txt=b"x"),
         constant(0, 0.2), None, "/", says="left out 1 file that is no data of a split: c.txt"),
    Kind("transparent images", image_folder(a_png=grey(0).convert("RGBA"),
         b_png=grey(51).convert("RGBA")), constant(0, 0.2, shape=(3, 2, 3)), None, "/",
         says="the transparency of 2 images"),
    Kind("images of two sizes", image_folder(a_png=grey(0), b_png=grey(0, size=(4, 4))),
         "of shape (1, 4, 4)", None, "/"),
    Kind("images of two sizes, resized", image_folder(a_png=grey(0), b_png=grey(51, size=(4, 4))),
         constant(0, 0.2, shape=(1, 4, 4)), None, "/", options={"resize": [4, 4]},
         says="images are resized to (4, 4)"),
    Kind("a test folder alone", image_folder(test__a_png=grey(0)), "but no train", None, "/"),
    Kind("a damaged image", image_folder(a_png=grey(0), b_png=b"no image"), "cannot be read", None,
         "/"),
    Kind("an empty folder", lambda path: path.mkdir(), "without images or sounds", None, "/"),
    Kind("sounds", waves(5, 5), np.full((2, 1, 5), 0.5), None, "/"),
    Kind("sounds of unequal length", waves(1, 2), [[[0.5, NAN]], [[0.5, 0.5]]], None, "/",
         missing=True, says="sounds of 1 to 2 samples"),
    Kind("sounds of 8, 24 and 32 bits", depths, np.full((3, 1, 5), 0.5), None, "/",
         needs="soundfile"),
    Kind("sounds in stereo", stereo, [[[0.5] * 5, [-0.5] * 5]], None, "/"),
    Kind("a sound cut short", cut_short, "bytes lack at the end", None, "/"),
    Kind("sounds of two rates", waves(5, 5, rates=(8000, 16000)), "16000 samples a second", None,
         "/"),
]  # fmt: skip

INTRODUCTION = """# Kinds of data

What `pv.datasets.load` and `as_dataset` make of each kind of data, and what `--data` makes of each
file. `python tests/kinds.py` writes this table; a test feeds each kind and compares every
value. A refusal is one line that names the argument, what was got, what is expected and a fix.

| kind | as | with | result |
|---|---|---|---|
"""


def table() -> str:
    rows = [kind.row() for kind in (*OBJECTS, *FILES)]
    return INTRODUCTION + "\n".join(row.replace("  |", " |") for row in rows) + "\n"


if __name__ == "__main__":
    DOCS.write_text(table())
