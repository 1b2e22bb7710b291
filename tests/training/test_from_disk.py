"""Training and scoring of data on disk: each datum once, resumed to the bit, equal to memory."""

import threading

import numpy as np
import pytest
import torch
from stored_kinds import Watched

import pyro_vae as pv
from pyro_vae.ranks.group import Group
from pyro_vae.training import feed
from pyro_vae.training.feed import FromDisk, order_on_disk, read_ahead
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def data_on_disk(number=50, policy="dynamic", context=True, **options):
    grey = np.random.default_rng(0).uniform(size=(number, 6)).astype(np.float32)
    labels = torch.arange(number) % 3 if context else None
    return [
        pv.datasets.Dataset(x, labels, binarize=policy, **options) for x in (Watched(grey), grey)
    ]


def program(context=True, dtype=torch.float32):
    torch.manual_seed(0)
    labels = pv.networks.OneHot(3) if context else None
    width = 3 if context else 0
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(6, MLP(2, [8], context=width)),
        pv.posteriors.DiagonalNormal(2, MLP(6, [8], context=width)),
        context=labels,
    ).to(dtype)


SETTINGS = {"batch_size": 8, "progress": False, "compile": "off", "device": "cpu"}


@pytest.mark.parametrize("number", [1, 7, 48, 49, 200])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_order_is_a_permutation_by_seed_and_epoch(number, chunk):
    def order(seed, epoch):
        return np.concatenate([*order_on_disk(number, chunk, seed, epoch)])

    assert sorted(order(0, 0)) == list(range(number))
    assert np.array_equal(order(3, 2), order(3, 2))
    if number > 6:
        different = {tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
        assert len(different) == 4


def test_chunks_are_far_apart_and_rows_are_mixed():
    (first, *_), number = list(order_on_disk(100_000, 10, 0, 0)), 100_000
    assert len(first) == 10 * feed.MIXED
    assert np.ptp(first) > number / 2  # from all over the data
    assert len(set(first[:10] // 10)) > 3  # not chunk by chunk


@pytest.mark.parametrize("batches_at_once", [1, 2, 16])
def test_an_epoch_visits_each_datum_once(batches_at_once, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", 3 * 24)  # chunks of three data
    disk, memory = data_on_disk(policy="none")
    stream, rows, sizes = FromDisk(disk, 8, batches_at_once, 0, None), [], []
    held = stream.data._stored
    for batches in stream.epoch(0):
        for places in batches:
            x, labels = stream.data.batch(places)
            here = [int((memory.x == row).all(1).nonzero()[0]) for row in x]
            assert torch.equal(labels, memory.context[here])
            rows, sizes = rows + here, [*sizes, len(places)]
    assert sorted(rows) == list(range(50)) and sizes == [8] * 6 + [2]
    assert stream.data._stored is held  # the memory that a graph has captured


def test_each_process_reads_its_own_rows():
    whole, _ = data_on_disk(51)
    reference = [x.clone() for x in batches_of(FromDisk(whole, 8, 2, 0, None))]
    read = []
    for rank in (0, 1, 2):
        disk, _ = data_on_disk(51)
        group = Group(rank, 3)
        stream = FromDisk(disk, 8, 2, 0, group)
        disk._stored.source.seen.clear()
        for ours, x in zip(batches_of(stream), reference):
            own = list(group.rows(len(x)))
            assert torch.equal(ours[own], x[own])
        read.append(set(disk._stored.source.seen))
    assert sum(map(len, read)) <= 51 + 3 and set.union(*read) == set(range(51))


def batches_of(stream):
    for batches in stream.epoch(0):
        for places in batches:
            yield stream.data._stored[places]


def test_what_a_reading_thread_raises_is_raised_here_and_it_ends():
    def broken():
        yield 1
        raise OSError("no disk")

    before = threading.active_count()
    with pytest.raises(OSError, match="no disk"):
        list(read_ahead(broken(), 2))
    endless = read_ahead(iter(int, 1), 2)
    assert next(endless) == 0
    endless.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("policy", ["dynamic", "fixed"])
def test_a_resumed_run_ends_as_an_unbroken_one(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", 3 * 24)
    disk, _ = data_on_disk(policy=policy)
    train, validation = disk.hold_out(10)
    unbroken, resumed = program(), program()
    options = {**SETTINGS, "validation": validation, "warmup": 2, "seed": 4}
    whole = pv.fit(unbroken, train, epochs=4, **options)
    pv.fit(program(), train, epochs=2, out=tmp_path / "run", **options)
    again = pv.fit(resumed, train, epochs=4, out=tmp_path / "run", resume=True, **options)
    assert whole["objective"] == again["objective"]
    assert whole["validation_elbo"] == again["validation_elbo"]
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_run_on_disk_is_not_continued_in_memory(tmp_path):
    disk, memory = data_on_disk()
    pv.fit(program(), disk, epochs=1, out=tmp_path / "run", **SETTINGS)
    with pytest.raises(InvalidInput, match=r"in_memory: got None, expected 'off, by \d+ rows'"):
        pv.fit(program(), memory, epochs=2, out=tmp_path / "run", resume=True, **SETTINGS)


def test_one_batch_of_all_trains_as_in_memory():
    disk, memory = data_on_disk(context=False)  # a batch is a set: the order makes no difference
    histories = [
        pv.fit(program(False, torch.float64), data, epochs=1, **{**SETTINGS, "batch_size": 50})
        for data in (disk, memory)
    ]
    sizes = [history["objective"][0] for history in histories]
    assert abs(sizes[0] - sizes[1]) < 0.5  # other draws for other places
    assert all(np.isfinite(sizes))


def test_a_captured_step_is_an_eager_one(monkeypatch):
    """The graph is interpreted: compiled code is tested with the other steps."""
    monkeypatch.setattr("pyro_vae.compilation.capture.Captured.compile", lambda *args: None)
    monkeypatch.setattr("pyro_vae.compilation.optimizer.Update.compile", lambda *args: None)
    disk, _ = data_on_disk()
    fitted = []
    for compile in ("off", "on"):
        vae = program()
        history = pv.fit(vae, disk, epochs=2, **{**SETTINGS, "compile": compile})
        fitted.append((history["objective"], vae.state_dict()))
    assert fitted[0][0] == fitted[1][0]
    for name, value in fitted[0][1].items():
        assert torch.equal(value, fitted[1][1][name])


@pytest.mark.parametrize("policy", ["dynamic", "none"])
def test_scores_are_those_in_memory_to_the_bit(policy, monkeypatch):
    monkeypatch.setattr("pyro_vae.datasets.on_disk.MOST_AT_ONCE", 0)  # nothing reads all
    monkeypatch.setattr("pyro_vae.runtime.blocks.BLOCK_BYTES", {"cpu": 2**14, "cuda": 2**14})
    disk, memory = data_on_disk(policy=policy)
    if policy == "none":
        vae = program()
        vae.likelihood = pv.likelihoods.Beta(6, MLP(2, [8], context=3))
    else:
        vae = program()
    for score in (pv.elbo, pv.log_likelihood):
        ours, theirs = (score(vae, data, 20, compile="off") for data in (disk, memory))
        assert torch.equal(ours.values, theirs.values) and ours.sha256 == theirs.sha256
    _ = disk.sha256  # the pass over all
    disk._stored.source.read_at_once.clear()
    for look in (pv.encode, pv.reconstruct):
        ours, theirs = (look(vae, data) for data in (disk, memory))
        ours, theirs = (v["z"] if isinstance(v, dict) else v for v in (ours, theirs))
        assert torch.equal(ours, theirs)
    assert max(disk._stored.source.read_at_once) < 50


def test_missing_entries_and_several_parts(monkeypatch):
    monkeypatch.setattr("pyro_vae.datasets.on_disk.MOST_AT_ONCE", 0)
    x = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    x[::4, 2] = np.nan
    torch.manual_seed(0)
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Missing(pv.likelihoods.Normal(6, MLP(2, [8]))),
        pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(6, MLP(12, [8]))),
    )
    disk, memory = (pv.datasets.Dataset(each, missing=True) for each in (Watched(x), x))
    assert pv.fit(vae, disk, epochs=1, **SETTINGS)["objective"][0] < 0
    assert torch.equal(pv.elbo(vae, disk, 5).values, pv.elbo(vae, memory, 5).values)
    pair = pv.datasets.Dataset({"a": pv.datasets.Dataset(Watched(x), missing=True), "b": x[:, :1]})
    assert pair.is_on_disk and pair[:4].event_shape == {"a": (6,), "b": (1,)}
    assert pair.sha256 == pv.datasets.Dataset({"a": x, "b": x[:, :1]}, missing=True).sha256


AT_41 = np.arange(50)[:, None] == 41
CHECKED = {
    "not finite": (
        lambda x: np.where(np.arange(50)[:, None] == 41, np.inf, x),
        "first in datum 41",
    ),
    "outside": (lambda x: np.where(AT_41, 2.0, x), "(datum 41|to 2)"),
    "grey": (lambda x: x, "binarize='dynamic'"),
}


@pytest.mark.parametrize("case", CHECKED)
def test_values_are_checked_as_in_memory(case):
    change, line = CHECKED[case]
    x = np.random.default_rng(0).uniform(size=(50, 6)).astype(np.float32)
    x = (x if case == "grey" else x.round()).astype(np.float32)
    changed = change(x).astype(np.float32)
    for values in (changed, Watched(changed)):
        with pytest.raises(InvalidInput, match=line):
            pv.fit(program(False), pv.datasets.Dataset(values), epochs=1, **SETTINGS)
