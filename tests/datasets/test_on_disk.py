"""Data that stay on disk are those in memory: values, hash, context, batches, binarisation."""

from functools import partial

import numpy as np
import pytest
import stored_kinds
import torch

import pyro_vae as pv
from pyro_vae.datasets import batch_keys
from pyro_vae.datasets.binarize import BLOCK
from pyro_vae.datasets.facts import PartFacts
from pyro_vae.datasets.on_disk import OnDisk
from pyro_vae.validation import InvalidInput


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pyro_vae" / "sha256"


def both(data, **options):
    """The training and test data, in memory and on disk."""
    memory = pv.datasets.load(data, in_memory="on", **options)
    disk = pv.datasets.load(data, in_memory="off", **options)
    return list(zip(memory, disk))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", stored_kinds.KINDS)
def test_a_kind_is_the_same_on_disk(kind, tmp_path, cache):
    make, options = stored_kinds.KINDS[kind]
    data = make(tmp_path)
    for memory, disk in both(data, **options):
        assert disk.is_on_disk and isinstance(disk.x, OnDisk) and not memory.is_on_disk
        assert (len(disk), disk.event_shape) == (len(memory), memory.event_shape)
        assert (disk.missing, disk.columns) == (memory.missing, memory.columns)
        assert disk.context_columns == memory.context_columns
        torch.testing.assert_close(disk.x[:], memory.x, rtol=0, atol=0, equal_nan=True)
        assert disk.x.dtype == memory.x.dtype
        if memory.context is None:
            assert disk.context is None
        else:
            assert torch.equal(disk.context, memory.context)
        assert disk.sha256 == memory.sha256
        places = torch.tensor([len(disk) - 1, 0, 3, 3])
        for few, whole in zip(disk.batch(places), memory.batch(places)):
            if whole is None:
                assert few is None
            else:
                torch.testing.assert_close(few, whole, rtol=0, atol=0, equal_nan=True)
    is_file = isinstance(data, type(tmp_path))
    assert len(list(cache.glob("*.json")) if cache.exists() else []) == 2 * is_file
    whole = pv.datasets.load_whole(data, in_memory="off", **options)
    assert whole.sha256 == pv.datasets.load_whole(data, in_memory="on", **options).sha256


@pytest.mark.parametrize("policy", ["dynamic", "fixed"])
@pytest.mark.parametrize("kind", ["bytes", "floats", "gaps"])
def test_binarisation_is_the_same_on_disk(policy, kind, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, size=(2 * BLOCK + 5, 3)).astype(np.uint8)
    options = {"binarize": policy, "missing": kind == "gaps"}
    if kind == "bytes":
        options["scale"] = 255
    else:
        grey = grey.astype(np.float32) / 255
    if kind == "gaps":
        grey[::7, 1] = np.nan
    np.save(tmp_path / "grey.npy", grey)
    keys = batch_keys(1)[0]
    for memory, disk in both(tmp_path / "grey.npy", **options):
        assert disk.sha256 == memory.sha256
        for part in (slice(0, 9), slice(-9, None), [5, 1, 400]):
            same(disk[part].x[:], memory[part].x)
            same(disk.x[part], memory.x[part])
        places = torch.tensor([700, 2, 2, 5])
        same(disk.batch(places, keys)[0], memory.batch(places, keys)[0])
        moved = [each.to("cpu", torch.float64).batch(places, keys)[0] for each in (disk, memory)]
        same(*moved)


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_tensor_on_disk_is_read_by_index(tmp_path):
    x = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    np.save(tmp_path / "x.npy", x)
    tensor = pv.datasets.load_whole(tmp_path / "x.npy", in_memory="off").x
    assert isinstance(tensor, torch.Tensor) and repr(tensor) == "OnDisk((8, 3), torch.float32, cpu)"
    whole = torch.from_numpy(x)
    assert len(tensor) == 8 and tensor.shape == whole.shape and tensor.nbytes == whole.nbytes
    places = torch.tensor([7, 0, 0])
    indices = [slice(2, 5), [4, 1], places, whole[:, 0] > 9, (slice(1, 3), 2), (5, 1)]
    for index in indices:
        same(tensor[index], whole[index])
    same(tensor[3], whole[3])
    same(tensor.index_select(0, places), whole[places])
    same(tensor.double()[1:], whole.double()[1:])
    same((1 + tensor).sum(0), (1 + whole).sum(0))
    same(torch.cat([tensor, tensor]), torch.cat([whole, whole]))
    same(tensor.chosen(slice(1, 7, 2)).chosen([2, 0])[:], whole[[5, 1]])


def test_what_would_read_all_is_refused(tmp_path):
    with open(tmp_path / "large.npy", "wb") as file:  # sparse: it takes no room
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 100)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 2**20 * 100)
    train, _ = pv.datasets.load(tmp_path / "large.npy", in_memory="off")
    with pytest.raises(InvalidInput, match=r"all 0.4 GB of data on disk.*data\[:10_000\]"):
        train.x.sum()
    assert train.x[[5, 900_000]].sum() == 0


REFUSED = {
    "compressed": (
        lambda path: np.savez_compressed(path.with_suffix(".npz"), x=np.zeros((5, 2))),
        ".npz",
        r"whose x is compressed.*numpy.savez",
    ),
    "columns first": (
        lambda path: np.save(path, np.asfortranarray(np.ones((5, 2)))),
        ".npy",
        "ascontiguousarray",
    ),
    "objects": (lambda path: np.save(path, np.array([{}, {}])), ".npy", "pickles"),
    "records": (
        lambda path: np.save(path, np.zeros(4, dtype=[("a", float)])),
        ".npy",
        "to_parquet",
    ),
    "a table of text": (
        lambda path: path.with_suffix(".csv").write_text("a\n1\n"),
        ".csv",
        "in_memory: got 'off'.*parquet",
    ),
    "a large group": (
        lambda path: stored_kinds.frame().to_parquet(path.with_suffix(".parquet")),
        ".parquet",
        "row_group_size",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_stay_on_disk_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_vae.datasets.stored_parquet.GROUP_BYTES", 100)
    write, suffix, line = REFUSED[case]
    write(tmp_path / "mine.npy")
    with pytest.raises(InvalidInput, match=line):
        pv.datasets.load(tmp_path / f"mine{suffix}", in_memory="off")


def test_names_and_what_looks_at_all_are_refused(tmp_path):
    path = stored_kinds.npy(tmp_path)
    with pytest.raises(InvalidInput, match="in_memory: got 'off' for digits"):
        pv.datasets.load("digits", in_memory="off")
    with pytest.raises(InvalidInput, match=r"missing_fraction.*--in-memory on"):
        pv.datasets.load(path, in_memory="off", missing_fraction=0.1)
    with pytest.raises(InvalidInput, match=r"did you mean 'off'"):
        pv.datasets.load(path, in_memory="of")


class Restless(stored_kinds.Items):
    def __getitem__(self, i):
        return torch.rand(3)


def test_random_transforms_are_refused():
    with pytest.raises(InvalidInput, match=r"another each time.*random transforms"):
        pv.datasets.load(Restless(), in_memory="off")


def test_a_file_that_changes_is_refused_or_hashed_anew(tmp_path, cache):
    path = stored_kinds.npy(tmp_path)
    before, _ = pv.datasets.load(path, in_memory="off")
    first = before.sha256
    x = stored_kinds.numbers()[0] + 1
    np.save(path, x)
    with pytest.raises(InvalidInput, match="changed while it was in use"):
        _ = before[:50].sha256
    again, _ = pv.datasets.load(path, in_memory="off")
    assert again.sha256 != first
    assert again.sha256 == pv.datasets.load(path, in_memory="on")[0].sha256


def test_a_file_cut_short_is_refused(tmp_path):
    path = stored_kinds.npy(tmp_path)
    train, _ = pv.datasets.load(path, in_memory="off")
    with open(path, "r+b") as file:
        file.truncate(400)
    with pytest.raises(InvalidInput, match="ends too soon"):
        _ = train.x[:]


def test_the_cache_is_no_more_than_a_cache(tmp_path, cache, monkeypatch):
    path = stored_kinds.npy(tmp_path)
    sha256 = pv.datasets.load(path, in_memory="off")[0].sha256
    (kept,) = cache.glob("*.json")
    kept.write_text(kept.read_text().replace(sha256[:6], "000000"))  # altered: not believed
    assert pv.datasets.load(path, in_memory="off")[0].sha256 == sha256

    def again(*args):
        raise AssertionError("the values were read again")

    monkeypatch.setattr("pyro_vae.datasets.facts.PartFacts.see", again)
    assert pv.datasets.load(path, in_memory="off")[0].sha256 == sha256


def test_a_user_without_a_home_has_no_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError()))
    path = stored_kinds.npy(tmp_path)
    assert len(pv.datasets.load(path, in_memory="off")[0].sha256) == 64


def test_auto_leaves_on_disk_what_does_not_fit(tmp_path, monkeypatch):
    path = stored_kinds.npz(tmp_path)
    assert not pv.datasets.load(path)[0].is_on_disk
    monkeypatch.setattr("pyro_vae.datasets.stored.free_memory", lambda: 2000.0)
    assert pv.datasets.load(path)[0].is_on_disk
    assert not pv.datasets.load(path, in_memory="on")[0].is_on_disk


def test_several_sites_are_on_disk_as_one_is(tmp_path, monkeypatch):
    np.savez(tmp_path / "two.npz", a=np.ones((50, 3), np.float32), b=np.zeros((50, 2), np.float32))
    load = partial(pv.datasets.load, tmp_path / "two.npz", key="a,b")
    assert not load()[0].is_on_disk
    with pytest.raises(InvalidInput, match=r"missing_fraction.*--in-memory on"):
        load(in_memory="off", missing_fraction=0.1)
    monkeypatch.setattr("pyro_vae.datasets.stored.free_memory", lambda: 500.0)
    assert load()[0].is_on_disk


def test_a_later_table_without_a_column_is_refused_by_its_name(tmp_path):
    train, _ = pv.datasets.load(stored_kinds.parquet(tmp_path), in_memory="off")
    other = stored_kinds.frame().rename(columns={train.columns.names[0]: "another"})
    other.to_parquet(tmp_path / "other.parquet")
    for in_memory in ("on", "off"):
        with pytest.raises(InvalidInput, match=f"columns: got '{train.columns.names[0]}'"):
            pv.datasets.load_whole(
                tmp_path / "other.parquet", like=train.columns, in_memory=in_memory
            )


def test_one_pass_is_made_and_said(monkeypatch, caplog):
    monkeypatch.setattr("pyro_vae.datasets.facts.LONG", 0)
    rows = stored_kinds.Watched(np.ones((70, 3), dtype=np.float32))
    train, _ = pv.datasets.Dataset(rows).hold_out(20)
    rows.seen.clear()
    assert len(train.sha256) == 64 and train.to("cpu", torch.float64).facts is train.facts
    assert len(rows.seen) == 50
    assert len([line for line in caplog.messages if "read once" in line]) == 1


def test_a_block_without_a_number_says_nothing():
    facts = PartFacts()
    for start, block in enumerate([[[torch.nan]], [[2.0]], [[torch.inf]], [[-1.0]]]):
        facts.see(start, torch.tensor(block))
    assert (facts.low, facts.high, facts.nan, facts.infinite) == (-1.0, 2.0, 1, 1)
    assert facts.telling == [0, 1, 3] and facts.extremes == [1, 3]


def test_what_the_values_are_is_found_in_the_same_pass(tmp_path):
    x = np.array([[1.0, 2.0], [np.nan, 3.5], [-7.0, 0.0], [np.inf, 1.0]], dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    data = pv.datasets.load_whole(tmp_path / "x.npy", in_memory="off")
    (facts,) = data.facts.parts.values()
    assert (facts.nan, facts.nan_at, facts.infinite, facts.infinite_at) == (1, 1, 1, 3)
    assert (facts.low, facts.low_at, facts.high, facts.high_at) == (-7.0, 2, 3.5, 1)
    assert facts.fraction_at == 1 and facts.telling == [1, 2]


def test_a_datum_without_a_number_stands_for_no_other():
    facts = PartFacts()
    facts.see(0, torch.tensor([[torch.nan], [-5.5], [3.0]]))
    assert (facts.low_at, facts.high_at, facts.fraction_at, facts.nan_at) == (1, 2, 1, 0)
