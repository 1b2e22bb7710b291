import gzip
import hashlib
import io
import math
import os
import pickle
import wave
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
from common import DATA
from PIL import Image

from pyro_vae.datasets.binarize import batch_keys, uniform
from pyro_vae.datasets.dataset import Dataset, as_dataset
from pyro_vae.datasets.named import load, names
from pyro_vae.datasets.spectrograms import log_spectrogram, wav, waveform
from pyro_vae.datasets.splitting import split_in_place
from pyro_vae.validation import InvalidInput


def test_digits_are_there_without_a_download():
    train, test = load("digits")
    assert (
        train.event_shape == (1, 8, 8)
        and train.num_classes == 10
        and (len(train), len(test)) == (1437, 360)
    )
    assert (train.name, train.split, test.split, train.binarize) == (
        "digits",
        "train",
        "test",
        "dynamic",
    )


def test_the_hash_is_of_what_is_scored():
    train, test = load("digits")
    assert test.sha256 == load("digits")[1].sha256
    others = [
        train.sha256,
        test[:100].sha256,
        load("digits", binarize="none")[1].sha256,
        load("digits", binarize="dynamic", seed=1)[1].sha256,
    ]
    assert len({test.sha256, *others}) == 5
    # A test set is the same for everyone, however it was trained on.
    assert load("digits", binarize="fixed")[1].sha256 == test.sha256


def test_binarisation_follows_the_grey_values():
    grey = torch.rand(40, 3)
    fixed, dynamic = Dataset(grey, binarize="fixed"), Dataset(grey, binarize="dynamic")
    assert torch.equal(fixed.x, Dataset(grey, binarize="fixed").x) and set(
        fixed.x.unique().tolist()
    ) == {0.0, 1.0}
    assert torch.equal(fixed.batch(torch.arange(40))[0], fixed.x)
    index = torch.arange(40)
    mean = torch.stack([dynamic.batch(index)[0] for _ in range(4000)]).mean(0)
    assert ((mean - grey).abs() < 5 * (grey * (1 - grey) / 4000).sqrt() + 1e-9).all()
    sure = Dataset(torch.tensor([[0.0, 1.0]]).expand(1000, 2), binarize="dynamic")
    assert torch.equal(sure.batch(torch.arange(1000))[0], sure.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [1.0, 0.3])  # which is no multiple of 1 / 255
def test_grey_levels_kept_as_bytes_are_drawn_from_as_their_values_are(dtype, last):
    grey = (
        torch.cat([torch.arange(256).float() / 255, torch.tensor([last])]).expand(5000, -1).clone()
    )
    data = Dataset(grey, binarize="dynamic").to("cpu", dtype)
    values = Dataset(grey.to(dtype), binarize="dynamic")
    index, (keys,) = torch.randperm(5000), batch_keys(1)
    assert (data._stored.dtype != torch.uint8) == (last == 0.3)
    assert torch.equal(data.batch(index, keys)[0], values.batch(index, keys)[0])


def test_a_datums_fixed_draw_does_not_depend_on_its_neighbours():
    data = load("digits")[1]
    assert torch.equal(data[10:20].x, data.x[10:20])
    assert torch.equal(data[torch.tensor([5, 3])].x, data.x[[5, 3]])
    rest, held = data.hold_out(60)
    assert len(rest) == 300 and len(held) == 60 and held.split == "validation"
    assert torch.equal(torch.cat([rest.x, held.x]).sum(0), data.x.sum(0))
    x, label = data[7]
    assert torch.equal(x, data.x[7]) and label == data.context[7]


@pytest.mark.parametrize("index", [slice(40, 9000, 7), torch.tensor([8191, 3, 4096, 3, 4095])])
def test_a_draw_made_in_blocks_is_one_draw_and_bytes_are_numbers(index):
    levels = torch.randint(0, 256, (9001, 3), dtype=torch.uint8)
    kept = Dataset(levels, binarize="dynamic", scale=255)
    numbers = Dataset(levels.float() / 255, binarize="dynamic")
    drawn = torch.rand(9001, 3, generator=torch.Generator().manual_seed(777))
    whole = (drawn < levels.float() / 255).float()
    assert kept._stored.dtype == torch.uint8 and torch.equal(kept.values, numbers.values)
    for data in (kept, numbers):
        part = data[index]  # before the whole is drawn, and after
        assert torch.equal(part[1:].x, whole[index][1:]) and torch.equal(data.x, whole)
        assert torch.equal(data[index].x, whole[index])
    assert kept.sha256 == numbers.sha256
    batch, keys = torch.tensor([5, 2]), batch_keys(1)[0]
    assert torch.equal(kept.batch(batch, keys)[0], numbers.batch(batch, keys)[0])
    in_double = kept.to("cpu", torch.float64)
    assert in_double.values.dtype == in_double.x.dtype == torch.float64
    assert torch.equal(in_double.x.float(), whole)


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_a_split_in_place_is_that_of_copies(binarize):
    levels = torch.randint(0, 256, (200_003, 2), dtype=torch.uint8)
    data = Dataset(levels.clone(), torch.arange(200_003), binarize=binarize, scale=255)
    train, test = data.hold_out(20_000, seed=5)
    before = train.sha256, test.sha256
    again = split_in_place(Dataset(levels, torch.arange(200_003), binarize=binarize, scale=255),
                           20_000, 5)  # fmt: skip
    assert (again[0].sha256, again[1].sha256) == before


def test_data_in_every_form(tmp_path):
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    for data in (
        (x, y),
        [x, y],
        (x.numpy(), y.numpy()),
        torch.utils.data.TensorDataset(x, y),
        Dataset(x, y),
    ):
        dataset = as_dataset(data)
        assert torch.equal(dataset.x, x) and torch.equal(dataset.context, y)
    assert as_dataset(x).context is None
    assert as_dataset(torch.utils.data.TensorDataset(x)).context is None
    with pytest.raises(InvalidInput, match="a set"):
        as_dataset({x})


def test_npz_files(tmp_path):
    path = tmp_path / "mine.npz"
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    np.savez(path, x=x, y=y)
    train, test = load(str(path))
    assert (len(train), len(test), train.name, train.binarize) == (45, 5, "mine", "none")
    assert test.sha256 == load(str(path))[1].sha256
    np.savez(path, x=x, x_test=x[:7])
    train, test = load(str(path))
    assert len(train) == 50 and np.allclose(test.x, x[:7])
    np.savez(path, x=x, x_validation=-x[:20], y=y, y_validation=y[:20])
    train, test = load(str(path))
    rest, held = train.hold_out(20, seed=3)
    assert rest is train and (len(rest), len(test), held.split) == (45, 5, "validation")
    assert np.allclose(held.x, -x[:20]) and held.context.tolist() == y[:20].tolist()
    with pytest.raises(InvalidInput, match="1 to 20 data held out of 20"):
        train.hold_out(21)
    np.savez(path, x=np.array([[0, 255]], dtype=np.uint8).repeat(20, 0))
    assert load(str(path))[0].x[0].tolist() == [0.0, 255.0]
    assert load(str(path), binarize="dynamic", scale=255)[0].x[0].tolist() == [0.0, 1.0]
    with pytest.raises(InvalidInput, match="scale=255"):
        load(str(path), binarize="dynamic")


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda p: np.savez(p, z=np.zeros(3)), "array named x"),
        (lambda p: np.savez(p, x=np.zeros((3, 2)), y=np.zeros(2)), "2 labels"),
        (lambda p: np.savez(p, x=np.array(["a", "b"])), "numbers"),
        (lambda p: np.savez(p, x=np.array([{}, []], dtype=object)), "without pickles"),
        (lambda p: p.write_bytes(b"PK nonsense"), "cannot be read"),
        (lambda p: None, "does not exist"),
    ],
)
def test_bad_npz_files(tmp_path, write, message):
    write(tmp_path / "bad.npz")
    with pytest.raises(InvalidInput, match=message):
        load(str(tmp_path / "bad.npz"))


def test_a_folder_of_images(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.fromarray(np.full((6, 5), 20 * i, dtype=np.uint8)).save(
                tmp_path / label / f"{i}.png"
            )
    train, test = load(str(tmp_path))
    assert (
        train.event_shape == (1, 6, 5)
        and train.num_classes == 2
        and (len(train), len(test)) == (18, 2)
    )
    assert train.x.max() == pytest.approx(180 / 255)
    Image.fromarray(np.zeros((7, 5), dtype=np.uint8)).save(tmp_path / "cat" / "zz.png")
    with pytest.raises(InvalidInput, match="one size"):
        load(str(tmp_path))
    (tmp_path / "cat" / "aa.png").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match=r"aa\.png"):
        load(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="without images"):
        load(str(tmp_path / "empty"))


def test_colour_images_have_three_channels(tmp_path):
    for i in range(3):
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    assert load(str(tmp_path))[0].event_shape == (3, 4, 4)


def test_unknown_names_and_policies():
    with pytest.raises(InvalidInput, match="did you mean 'fashion_mnist'"):
        load("fashion-mnist")
    with pytest.raises(InvalidInput, match="did you mean 'dynamic'"):
        load("digits", binarize="dynamical")
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        Dataset(torch.randn(10, 2), binarize="dynamic")


# real data

needs_data = pytest.mark.skipif(
    DATA is None, reason="PYRO_VAE_DATA names no folder with the real data"
)

SHAPES = {
    "mnist": (60000, 10000, (1, 28, 28)),
    "fashion_mnist": (60000, 10000, (1, 28, 28)),
    "binarized_mnist": (50000, 10000, (1, 28, 28)),
    "frey_faces": (1769, 196, (1, 28, 20)),
    "omniglot": (19280, 13180, (1, 28, 28)),
}


@needs_data
@pytest.mark.parametrize("name", SHAPES)
def test_real_data(name):
    train, test = load(name)
    assert (len(train), len(test), train.event_shape) == SHAPES[name]
    assert train.values.min() >= 0 and train.values.max() <= 1
    assert name in names()


@needs_data
@pytest.mark.parametrize("name", SHAPES)
def test_the_first_so_many_are_like_all_of_them(name):
    ink = load(name, binarize="none")[1].values.double().flatten(1).mean(1)
    few = ink[: max(100, len(ink) // 10)]
    assert (
        abs(few.mean() - ink.mean()) < 0.3 * ink.std()
    )  # the first of MNIST are thinner, by 0.23 of it


@needs_data
def test_mnist_is_bit_exact():
    data = load("mnist", binarize="none")[1]
    raw = (data.values * 255).round().to(torch.uint8).numpy().tobytes()
    idx = (DATA / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert hashlib.sha256(raw).hexdigest() == hashlib.sha256(idx).hexdigest()


def test_kmnist_reads_torchvisions_layout(tmp_path):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, num in (("train", 6), ("t10k", 4)):
        images, labels = np.arange(num * 784).astype(np.uint8), np.arange(num, dtype=np.uint8)
        header = np.array([0x803, num, 28, 28], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, num], dtype=">i4").tobytes() + labels.tobytes()
        )
    train, test = load("kmnist", root=tmp_path)
    assert len(train) == 6 and len(test) == 4 and test.context.tolist() == [0, 1, 2, 3]


def write_idx(raw, counts=(6, 4), opened=open):
    """Torchvision's files of a data set: bytes that count, with the labels 0, 1, ..."""
    raw.mkdir(parents=True)
    for prefix, num in zip(("train", "t10k"), counts):
        images, labels = np.arange(num * 784).astype(np.uint8), np.arange(num, dtype=np.uint8)
        for name, magic, array in (
            ("images-idx3", [0x803, num, 28, 28], images),
            ("labels-idx1", [0x801, num], labels),
        ):
            suffix = ".gz" if opened is not open else ""
            with opened(raw / f"{prefix}-{name}-ubyte{suffix}", "wb") as file:
                file.write(np.array(magic, dtype=">i4").tobytes() + array.tobytes())


def test_packed_files_are_read_like_plain_ones(tmp_path):
    write_idx(tmp_path / "a" / "KMNIST" / "raw")
    write_idx(tmp_path / "b" / "KMNIST" / "raw", opened=gzip.open)
    plain, packed = (load("kmnist", root=tmp_path / name)[0] for name in "ab")
    assert plain.sha256 == packed.sha256


def test_no_pickle_of_torchvisions_is_read(tmp_path, monkeypatch):
    """Its readers take processed/training.pt, where there is one, instead of the raw files."""

    class Bomb:
        def __reduce__(self):
            return (tmp_path / "exploded").mkdir, ()

    for name in ("training.pt", "test.pt"):
        path = tmp_path / "MNIST" / "processed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(Bomb()))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(InvalidInput, match="no train-images-idx3-ubyte there"):
        load("mnist", root=tmp_path, fetch=False)
    write_idx(tmp_path / "MNIST" / "raw")
    assert len(load("mnist", root=tmp_path)[0]) == 6
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        lambda path: path.write_bytes(b"\0\0\x0d\3" + path.read_bytes()[4:]),
        lambda path: path.write_bytes(path.read_bytes()[:4] + b"\xff" * 12),
        lambda path: path.write_bytes(path.read_bytes()[:4] + b"\0\0\0\5" + path.read_bytes()[8:]),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (
            path.unlink(),
            path.with_name(path.name + ".gz").write_bytes(b"\x1f\x8b\x08"),
        ),
    ],
)
def test_damaged_idx_files_are_one_line(tmp_path, damage):
    write_idx(tmp_path / "MNIST" / "raw")
    damage(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte")
    with pytest.raises(InvalidInput, match="data-root: got"):
        load("mnist", root=tmp_path)


def test_who_has_no_home_is_told_how_to_name_a_folder(monkeypatch):
    monkeypatch.delenv("PYRO_VAE_DATA", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(load("digits")[0]) == 1437
    with pytest.raises(InvalidInput, match="PYRO_VAE_DATA or --data-root"):
        load("mnist", fetch=False)


def test_missing_files_name_the_folder(tmp_path):
    with pytest.raises(InvalidInput, match="PYRO_VAE_DATA"):
        load("frey_faces", root=tmp_path)


# real data that need no download


@pytest.mark.parametrize(
    "name, shape",
    [("wine", (143, 35, 13)), ("wine_and_class", (143, 35, 14)), ("breast_cancer", (456, 113, 30))],
)
def test_tables_are_standardised_by_their_training_rows(name, shape):
    train, test = load(name)
    assert (
        len(train),
        len(test),
        *train.event_shape,
    ) == shape and train.num_classes == test.num_classes
    assert train.sha256 == load(name)[0].sha256 and (train.binarize, test.split) == ("none", "test")
    columns = train.x[:, :-1] if name == "wine_and_class" else train.x
    torch.testing.assert_close(columns.mean(0), torch.zeros(columns.shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        columns.std(0, correction=0), torch.ones(columns.shape[1]), rtol=0, atol=1e-4
    )
    if name == "wine_and_class":
        assert torch.equal(train.x[:, -1].long(), train.context)


def test_topics_are_counts_of_words():
    train, test = load("topics")
    assert train.event_shape == (500,) and len(train) > 3 * len(test) > 100
    for part in (train, test):
        assert (
            torch.equal(part.x, part.x.round())
            and part.x.min() == 0
            and (part.x.sum(1) > 0).all()
            and part.x.sum(1).max() <= 100
        )
    assert train.sha256 == load("topics")[0].sha256
    assert (train.x.sum(0) > 0).all()


def test_the_uniform_numbers_of_a_batch_are_uniform_and_independent():
    keys = batch_keys(40)
    drawn = torch.stack([uniform((5000,), key) for key in keys]).double()
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn, 100, 0, 1)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
    for lagged in (
        drawn[:, 1:],
        drawn[:, 28:],
        drawn.roll(1, 0),
    ):  # neighbours in a row and in a column; the next batch
        pairs = torch.stack([drawn[:, : lagged.shape[1]].flatten(), lagged.flatten()])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 4 / math.sqrt(pairs.shape[1])
    bits = (drawn * 2**24).long()[..., None] >> torch.arange(24) & 1
    assert (bits.double().mean((0, 1)) - 0.5).abs().max() < 4 * 0.5 / math.sqrt(drawn.numel())
    assert torch.equal(uniform((50, 100), keys[0]).flatten(), uniform((5000,), keys[0]))


def test_a_spectrogram_of_a_recording_is_scipys_and_comes_back_as_sound(float64):
    """Griffin-Lim recovers the spectrogram, though not the phases, of a chirp."""
    t = torch.arange(4032) / 8000
    chirp = torch.sin(2 * torch.pi * (300 + 800 * t) * t)
    spectrogram = log_spectrogram(chirp)
    assert spectrogram.shape == (129, 64)
    padded = np.pad(chirp.numpy(), 128, mode="reflect")
    frames = np.stack(
        [padded[64 * i : 64 * i + 256] * scipy.signal.get_window("hann", 256) for i in range(64)],
        axis=1,
    )
    np.testing.assert_allclose(
        spectrogram.numpy(), np.log(np.abs(np.fft.rfft(frames, axis=0)) + 0.01), atol=1e-9
    )
    sound = waveform(torch.stack([spectrogram, spectrogram]))
    assert sound.shape == (2, 4032)
    error = (log_spectrogram(sound).exp() - spectrogram.exp()).square().sum() / (
        2 * spectrogram.exp().square().sum()
    )
    assert error < 0.01
    with wave.open(io.BytesIO(wav(4 * chirp))) as file:
        heard = np.frombuffer(file.readframes(10_000), dtype=np.int16) / 32767
        assert (
            file.getframerate() == 8000
            and np.abs(heard).max() <= 1
            and np.corrcoef(heard, chirp.numpy())[0, 1] > 0.999
        )


@pytest.mark.skipif(DATA is None, reason="needs PYRO_VAE_DATA")
@pytest.mark.parametrize(
    "name, shape, sizes",
    [
        ("spoken_digits", (129, 64), (2700, 300)),
        ("moving_digits", (8, 32, 32), (10_000, 2_000)),
        ("coloured_digits", (3, 28, 28), (60_000, 10_000)),
    ],
)
def test_sounds_clips_and_colours(name, shape, sizes):
    train, test = load(name, binarize="none")
    assert (
        train.event_shape == shape and (len(train), len(test)) == sizes and train.num_classes == 10
    )
    assert train.x.isfinite().all()
    if name == "moving_digits":  # a whole digit in every frame, and it moves
        mass = test.x.sum((2, 3))
        torch.testing.assert_close(mass, mass[:, :1].expand_as(mass))
        assert (test.x[:, 0] != test.x[:, -1]).flatten(1).any(1).float().mean() > 0.95
    if (
        name == "coloured_digits"
    ):  # one colour for each image, its strongest channel as bright as the digit was
        assert ((test.x * 255).round() / 255 == test.x).all()
        grey = load("mnist", binarize="none")[1].x
        torch.testing.assert_close(test.x.amax(1, keepdim=True), grey, atol=0.003, rtol=0)


@pytest.mark.parametrize("data", ["digits", "sentences", torch.rand(6, 1, 4, 4)])
def test_a_size_that_nothing_would_be_resized_to_is_refused(data):
    with pytest.raises(InvalidInput, match="no folder of images"):
        load(data, resize=(4, 4))
