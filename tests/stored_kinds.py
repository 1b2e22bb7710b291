"""A data set of every kind that can stay on disk, small, with labels where the kind has them."""

import numpy as np
import torch
import torch.utils.data

from pyro_vae.datasets.stored import Rows

N = 60


class Watched(Rows):
    """Rows in memory that note how many are read at once."""

    def __init__(self, values):
        super().__init__(values.shape, values.dtype)
        self.values, self.read_at_once, self.seen = values, [], []

    def rows(self, places):
        self.read_at_once.append(len(places))
        self.seen += places.tolist()
        return self.values[places]


def numbers():
    x = np.random.default_rng(0).normal(size=(N, 3, 2)).astype(np.float32)
    return x, np.arange(N) % 3


def npy(folder):
    np.save(folder / "mine.npy", numbers()[0])
    return folder / "mine.npy"


def whole_numbers(folder):
    x = np.random.default_rng(1).integers(-5, 2**25, size=(N, 4))  # float32 cannot hold all
    np.save(folder / "whole.npy", x.astype(">i4"))
    return folder / "whole.npy"


def npz(folder):
    x, y = numbers()
    np.savez(folder / "mine.npz", x=x, y=y, x_test=x[:7], y_test=y[:7], other=np.zeros(3))
    return folder / "mine.npz"


def hdf5(folder):
    import h5py

    x, y = numbers()
    with h5py.File(folder / "mine.h5", "w") as file:
        file.create_dataset("images", data=x, chunks=(7, 3, 2), compression="gzip")
        file["y"] = np.array([b"cat", b"dog", b"emu"])[y]
    return folder / "mine.h5"


def zarr(folder):
    import zarr

    x, y = numbers()
    group = zarr.open_group(folder / "mine.zarr", mode="w")
    group.create_array("x", data=x, chunks=(7, 3, 2))
    group.create_array("y", data=y)
    return folder / "mine.zarr"


def frame():
    import pandas

    random = np.random.default_rng(2)
    table = pandas.DataFrame(
        {
            "mass": np.exp(random.normal(size=N)),
            "height": random.normal(size=N),
            "eggs": random.poisson(2, N),
            "sex": random.choice(["f", "m"], N),
            "colour": random.choice(["red", "green", "blue"], N),
        }
    )
    table.loc[[3, 40], "height"] = None
    table.loc[[4, 41], "sex"] = None
    return table


def parquet(folder):
    frame().to_parquet(folder / "birds.parquet", row_group_size=13)
    return folder / "birds.parquet"


def parquets(folder):
    (folder / "birds.parquet").mkdir()
    for i, part in enumerate((frame()[:25], frame()[25:])):
        part.to_parquet(folder / "birds.parquet" / f"{i}.parquet", row_group_size=13)
    return folder / "birds.parquet"


def pictures():
    return np.random.default_rng(3).integers(0, 256, size=(N, 5, 4)).astype(np.uint8)


def hub(folder):
    import datasets
    from PIL import Image

    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    images = [Image.fromarray(each) for each in pictures()]
    data = datasets.Dataset.from_dict(
        {"image": images, "label": [i % 2 for i in range(N)]}, features=datasets.Features(kinds)
    )
    data.save_to_disk(str(folder / "hub"))
    return folder / "hub"


def hub_table(folder):
    import datasets

    data = datasets.Dataset.from_pandas(frame())
    parts = datasets.DatasetDict({"train": data, "test": data.select(range(9))})
    parts.save_to_disk(str(folder / "hub_table"))
    return folder / "hub_table"


def images(folder):
    from PIL import Image

    for i, each in enumerate(pictures()):
        place = folder / "pets" / ("cat" if i % 3 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(place / f"{i}.png")
    return folder / "pets"


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        x, y = numbers()
        return torch.from_numpy(x[i]), int(y[i])


def items(folder):
    return Items()


KINDS = {
    "npy": (npy, {}),
    "whole numbers": (whole_numbers, {}),
    "npz": (npz, {}),
    "hdf5": (hdf5, {"key": "images"}),
    "zarr": (zarr, {}),
    "parquet": (parquet, {"target": "colour"}),
    "parquet, context": (parquet, {"context": ["eggs", "colour"]}),
    "parquet folder": (parquets, {"columns": {"eggs": "real", "mass": "drop"}}),
    "hub": (hub, {}),
    "hub table": (hub_table, {"target": "sex"}),
    "images": (images, {}),
    "images, resized": (images, {"resize": (3, 3)}),
    "torch": (items, {}),
}
