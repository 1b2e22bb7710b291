"""Data from a stranger lead to no other file, run no other program, and keep within their size."""

import io
import json
import os
import socket
import struct
import wave
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from pyro_vae.datasets.files import KINDS_OF_FILES, read_path
from pyro_vae.datasets.named import load
from pyro_vae.files import reading
from pyro_vae.validation import InvalidInput

X = np.arange(12.0).reshape(4, 3)


def refused(path, *words):
    """The one line that refuses a path."""
    with pytest.raises(InvalidInput) as error:
        load(str(path))
    said = str(error.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


# HDF5


def external(file, other):
    file.create_dataset("x", (5,), dtype="f8", external=[(str(other), 0, 40)])


def virtual(file, other):
    h5py = pytest.importorskip("h5py")
    layout = h5py.VirtualLayout((5,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(other), "x", (5,))
    file.create_virtual_dataset("x", layout)


def virtual_without_end(file, other):
    h5py = pytest.importorskip("h5py")
    layout = h5py.VirtualLayout((5,), dtype="f8", maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource(str(other), "x", (5,), maxshape=(None,))[
        : h5py.h5s.UNLIMITED
    ]
    file.create_virtual_dataset("x", layout)


def external_link(file, other):
    file["x"] = pytest.importorskip("h5py").ExternalLink(str(other), "x")


def soft_link(file, other):
    file["other"] = pytest.importorskip("h5py").ExternalLink(str(other), "/")
    file["x"] = pytest.importorskip("h5py").SoftLink("/other/x")


def gigabytes(file, other):
    file.create_dataset("x", (10**5, 10**5), dtype="f4", chunks=(10, 10))


def a_large_chunk(file, other):
    file.create_dataset("x", (1, 1), dtype="f4", chunks=(2**14, 2**14), maxshape=(None, None))


def a_large_text(file, other):
    file.create_dataset("x", (3,), dtype="S2000000000", chunks=(1,))


HDF5 = {
    function.__name__: function
    for function in (
        external, virtual, virtual_without_end, external_link, soft_link, gigabytes, a_large_chunk,
        a_large_text,
    )
}  # fmt: skip


@pytest.mark.parametrize("how", HDF5)
def test_an_hdf5_file_holds_its_numbers_itself(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_dataset("x", data=np.arange(5.0), maxshape=(None,), chunks=(5,))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        HDF5[how](file, tmp_path / "other.h5")
    elsewhere = how in ("external", "virtual", "virtual_without_end", "external_link", "soft_link")
    refused(tmp_path / "data.h5", "lies in" if elsewhere else "claim to hold")


def test_lists_that_are_all_the_same_long_one_are_counted(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(reading, "SPARE", 2**20)
    monkeypatch.setattr(reading, "UNPACKED", 4)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        many = file.create_dataset("x", (2**10,), dtype=h5py.vlen_dtype(np.uint8))
        many[0] = np.zeros(2**16, np.uint8)
        place = many.id.get_offset()
    data = bytearray((tmp_path / "data.h5").read_bytes())
    first = data[place : place + 16]  # the length, and where the list is
    data[place : place + 16 * 2**10] = first * 2**10
    (tmp_path / "data.h5").write_bytes(data)
    refused(tmp_path / "data.h5", "claim to hold")


def test_an_hdf5_file_may_have_links_that_are_not_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = X
        file["elsewhere"] = h5py.ExternalLink("none.h5", "x")
    assert np.array_equal(read_path(tmp_path / "data.h5").parts["train"].x, X)


@pytest.mark.parametrize("how", ["link", "circle", "external", "twice", "wide"])
def test_single_cells_hold_their_numbers_themselves(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    anndata = pytest.importorskip("anndata")
    scipy = pytest.importorskip("scipy.sparse")
    path = tmp_path / "cells.h5ad"
    (tmp_path / "secret").write_bytes(X.tobytes())
    anndata.AnnData(scipy.csr_matrix(X.astype("f4"))).write_h5ad(path)
    with h5py.File(path, "a") as file:
        if how == "link":
            del file["obs"]
            file["obs"] = h5py.ExternalLink("other.h5ad", "obs")
        elif how == "circle":
            file["uns/a"] = h5py.SoftLink("/uns")
        elif how == "external":
            del file["X"]
            storage = [(str(tmp_path / "secret"), 0, 96)]
            made = file.create_dataset("X", (4, 3), dtype="f8", external=storage)
            made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
        elif how == "twice":
            file["uns/a"], file["uns/b"] = file["uns"], file["uns"]
        else:
            for name, shape in (("obs", 2**16), ("var", 2**16)):
                del file[name]["_index"]
                index = file[name].create_dataset("_index", (shape,), dtype="S1", compression=1)
                index.attrs["encoding-type"] = "string-array"
                index.attrs["encoding-version"] = "0.2.0"
            file["X"].attrs["shape"] = [2**16, 2**16]
            del file["X/indptr"]
            file["X"].create_dataset("indptr", (2**16 + 1,), dtype="i4", compression=1)
    refused(path, "" if how == "wide" else "in")


# Zarr


@pytest.fixture
def zarr_data(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "data.zarr"
    zarr.save_group(str(path), x=X)
    assert np.array_equal(read_path(path).parts["train"].x, X)
    return path


def described(path, **changes):
    """Change what a Zarr array's metadata say."""
    file = path / "x" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_a_zarr_folder_holds_its_chunks_itself(tmp_path, zarr_data, kind):
    (chunk,) = [path for path in (zarr_data / "x" / "c").rglob("*") if path.is_file()]
    (tmp_path / "secret").mkdir()
    chunk.rename(tmp_path / "secret" / chunk.name)
    if kind == "pipe":
        os.mkfifo(chunk)
    elif kind == "file":
        chunk.symlink_to(tmp_path / "secret" / chunk.name)
    else:
        chunk.parent.rmdir()
        chunk.parent.symlink_to(tmp_path / "secret")
    refused(zarr_data, "a pipe, a device" if kind == "pipe" else "a link to a file outside")


@pytest.mark.parametrize(
    "changes",
    [
        {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
        {"codecs": [{"name": "numcodecs.json2"}, {"name": "bytes"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [4, 3],
                     "codecs": [{"name": "mine"}], "index_codecs": [{"name": "bytes"}]}}]},
        {"codecs": ["mine"]},
        {"storage_transformers": [{"name": "mine"}]},
        {"chunk_key_encoding": {"name": "mine"}},
        {"shape": [10**6, 10**6], "chunk_grid": {"name": "regular",
                                                 "configuration": {"chunk_shape": [4, 3]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20]}}},
        {"codecs": None}, {"codecs": "\0"}, {"shape": "x"}, {"shape": [-1, 3]},
    ],
)  # fmt: skip
def test_what_a_zarr_array_says_of_itself_is_checked(zarr_data, changes):
    described(zarr_data, **changes)
    refused(zarr_data)


@pytest.mark.parametrize("filters", [[{"id": "pickle"}], [{"id": "mine"}], [{"id": "json2"}]])
def test_codecs_of_the_second_zarr_are_checked(tmp_path, filters):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "data.zarr"
    zarr.create_array(str(path), data=X, zarr_format=2)
    assert np.array_equal(read_path(path).parts["train"].x, X)
    file = path / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"filters": filters}))
    refused(path, "a codec")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_name_no_array_outside(tmp_path, zarr_data):
    zarr = pytest.importorskip("zarr")
    zarr.save_group(str(tmp_path / "secret.zarr"), x=X + 1)
    zarr.consolidate_metadata(str(zarr_data))
    file = zarr_data / "zarr.json"
    whole = json.loads(file.read_text())
    arrays = whole["consolidated_metadata"]["metadata"]
    arrays["../secret.zarr/x"] = arrays.pop("x")
    file.write_text(json.dumps(whole))
    assert np.array_equal(read_path(zarr_data).parts["train"].x, X)


# data sets of Hugging Face


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    pixels = io.BytesIO()
    Image.fromarray(np.full((2, 3), 51, np.uint8)).save(pixels, "png")
    Image.fromarray(np.full((2, 3), 51, np.uint8)).save(tmp_path / "secret.png")

    def make(image, feature=None):
        features = datasets.Features(
            {"image": feature or datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        )
        rows = {"image": [image, image], "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    make.whole = {"bytes": pixels.getvalue(), "path": None}
    return make


def test_images_that_lie_in_a_saved_data_set_are_read(saved):
    x = read_path(saved(saved.whole)).parts["train"].x
    assert [image.size for image in x] == [(3, 2), (3, 2)]
    train, _ = load(str(saved(saved.whole)))
    assert train.event_shape == (1, 2, 3) and float(train.x.mean()) == pytest.approx(0.2)


@pytest.mark.parametrize("path", ["secret.png", "/secret.png", "http://127.0.0.1:9/a.png", "pipe"])
def test_a_saved_data_set_names_no_image_elsewhere(tmp_path, saved, path):
    pytest.importorskip("pyarrow")
    os.mkfifo(tmp_path / "pipe")
    name = path if "//" in path else f"{tmp_path}/{path.strip('/')}"
    folder = saved(saved.whole)
    rewritten(folder, {"bytes": None, "path": name})
    refused(folder, "images lie in other files")


def test_a_program_in_place_of_a_saved_image_is_not_run(saved, monkeypatch):
    folder = saved(saved.whole)
    rewritten(folder, {"bytes": POSTSCRIPT, "path": None})
    refused(folder, "cannot identify")


def rewritten(folder, image):
    """Put other images into a saved data set's table."""
    pyarrow = pytest.importorskip("pyarrow")
    (path,) = folder.glob("*.arrow")
    with pyarrow.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    column = pyarrow.array([image] * len(table), table.schema.field("image").type)
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table.set_column(0, table.schema.field("image"), column))


@pytest.mark.parametrize(
    "file, content",
    [
        ("state.json", '{"_data_files": [{"filename": "../other.arrow"}]}'),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}'),
        ("state.json", '{"_data_files": 3}'),
        ("state.json", "[" * 10**5),
        ("dataset_dict.json", '{"splits": ["../other"]}'),
        ("dataset_dict.json", "{}"),
    ],
)
def test_a_saved_data_set_names_its_own_files(tmp_path, file, content):
    (tmp_path / file).write_text(content)
    refused(tmp_path)


@pytest.mark.parametrize("kind", ["Audio", "Video", "Pdf", "Nifti", "ThreadPool", "Features"])
def test_a_saved_data_set_names_no_other_decoder(saved, kind):
    folder = saved(saved.whole)
    file = folder / "dataset_info.json"
    info = json.loads(file.read_text())
    info["features"]["image"] = {"_type": kind}
    file.write_text(json.dumps(info))
    refused(folder, f"a column of {kind}")


# images and sounds

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_program_in_place_of_an_image_is_not_run(tmp_path, name, monkeypatch):
    monkeypatch.setattr(os, "system", None)
    (tmp_path / name).write_bytes(POSTSCRIPT)
    refused(tmp_path, "identify")


@pytest.mark.parametrize("name", ["b.png", "b.wav", "b.txt", "sub"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "linked folder", "broken link"])
def test_a_folder_holds_its_files_itself(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "a.png")
    (tmp_path / "secret").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "others").mkdir()
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        bound(path)
    else:
        target = {"link": "secret", "linked folder": "others", "broken link": "none"}[kind]
        path.symlink_to(tmp_path / target)
    refused(folder, "outside" if "link" in kind else "a pipe, a device or a socket")


def test_a_link_within_a_folder_is_followed(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert len(read_path(tmp_path).parts["train"].x) == 2


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(path, depth=8):
    head = struct.pack(">IIBBBBB", 12_000, 12_000, depth, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(999)))
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("depth", [8, 16])
def test_an_image_has_no_more_pixels_than_its_size_accounts_for(tmp_path, depth):
    huge_png(tmp_path / "a.png", depth)
    refused(tmp_path, "claim to hold")


def test_many_images_together_neither(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "UNPACKED", 1)
    for i in range(8):
        Image.new("L", (60, 60)).save(tmp_path / f"{i}.png")
    most = 2 * 60 * 60  # each alone counts two bytes for each level
    monkeypatch.setattr(reading, "SPARE", most)
    refused(tmp_path, "claim to hold")
    monkeypatch.setattr(reading, "SPARE", 4 * most)
    assert len(load(str(tmp_path))[0]) == 7


def test_a_tiff_s_colours_lie_in_the_file_itself(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    colours = np.full((2, 3, 3), 13107, np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", np.full((2, 3, 3), 52428, np.uint16), photometric="rgb")
    secret = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="3" SizeY="2" SizeC="3" '
        'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" '
        'PlaneCount="1"><UUID FileName="b.tif">urn:uuid:00000000-0000-0000-0000-000000000000'
        "</UUID></TiffData></Pixels></Image></OME>"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(folder / name, colours, photometric="rgb", description=secret)
    x = read_path(folder).parts["train"].x
    assert x == pytest.approx(0.2) and x.shape == (2, 3, 2, 3)


def test_planes_of_a_tiff_are_its_colours(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    planes = np.arange(18, dtype=np.uint16).reshape(3, 2, 3) * 1000
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, planes, photometric="rgb", planarconfig="separate")
    assert read_path(tmp_path).parts["train"].x[0] * 65535 == pytest.approx(planes)


def test_a_sound_has_no_more_samples_than_its_size_accounts_for(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", np.zeros(8000), 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = bytes([data[21] | 0x0F]) + b"\xff\xff\xff\xff"  # 2^36 - 1 samples
    (tmp_path / "a.flac").write_bytes(data)
    refused(tmp_path, "262,144.0 MB")


def test_a_sound_is_cut_where_its_file_ends(tmp_path):
    for name in ("a.wav", "b.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(b"\0\x40" * 100)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:40] + b"\xff\xff\xff\x7f" + data[44:])
    assert read_path(tmp_path).parts["train"].x.shape[-1] == 100


# numbers and tables


@pytest.mark.parametrize("shape", [(10**9, 10**9), (10**30,), (-1, -12), (2**62, 4)])
@pytest.mark.parametrize("dtype", ["<f8", "|V0", "<U0", "|O"])
def test_an_array_has_the_size_that_it_states(tmp_path, shape, dtype):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    (tmp_path / "a.npy").write_bytes(file.getvalue() + X.tobytes())
    refused(tmp_path / "a.npy")


def test_an_archive_unpacks_to_no_more_than_its_size_accounts_for(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    place = data.rfind(b"PK\1\2")
    data[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", "claim to hold")


def test_a_table_has_no_more_rows_than_its_size_accounts_for(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.array(["x" * 2**10] * 2**13)
    parquet.write_table(pyarrow.table({"a": texts}), tmp_path / "a.parquet", compression="zstd")
    monkeypatch.setattr(reading, "SPARE", 2**20)
    refused(tmp_path / "a.parquet", "claim to hold")


def bound(path):
    """A socket in a folder, whose name must be short."""
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)


@pytest.mark.parametrize("suffix", sorted([*KINDS_OF_FILES, ".txt"]))
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory"])
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, suffix, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"a{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        bound(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    refused(path)
