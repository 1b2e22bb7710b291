import copy
import errno
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from common import small_vae
from mutations import with_checksum

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.evaluation.comparison import load_scores, save_scores
from pyro_vae.validation import InvalidInput


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_saved_and_loaded_are_identical(tmp_path):
    vae, x = small_vae(), torch.zeros(3, 1, 8, 8)
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert same(vae, loaded)
    assert torch.equal(pv.elbo(loaded, x, 5).values, pv.elbo(vae, x, 5).values)
    assert not loaded.training


@pytest.mark.parametrize("bad", [None, 3, ["runs"]])
def test_a_path_that_is_none_is_refused_in_one_line(bad):
    vae = small_vae()
    options = dict(epochs=1, progress=False)
    calls = {
        "folder": [lambda: pv.load(bad), lambda: pv.save(vae, bad)],
        "path": [lambda: load_scores(bad), lambda: save_scores(bad, {})],
    }
    if bad is not None:
        calls["out"] = [lambda: pv.fit(vae, torch.zeros(2, 1, 8, 8), out=bad, **options)]
    for argument, each in calls.items():
        for call in each:
            with pytest.raises(InvalidInput, match=f"^{argument}: got a .*, expected a path; pass"):
                call()


def test_loading_leaves_the_random_state_alone(tmp_path):
    pv.save(small_vae(), tmp_path)
    state = torch.random.get_rng_state()
    pv.load(tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())


def test_double_precision_and_torch_layers_come_back(tmp_path):
    body = torch.nn.Sequential(
        torch.nn.Linear(5, 7, bias=False), torch.nn.LayerNorm(7), torch.nn.Tanh()
    )

    vae = pv.VAE(
        pv.priors.GaussianMixture(2, components=3),
        pv.likelihoods.Normal(
            5, pv.networks.MLP(2, [4], activation=torch.nn.Tanh), 0.3, "per_feature"
        ),
        pv.posteriors.DiagonalNormal(2, OutShape(body, 7)),
    ).double()
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    x = torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(pv.elbo(loaded, x, 5).values, pv.elbo(vae, x, 5).values)
    assert "bias" not in dict(loaded.posterior.network.body[0].named_parameters())


class OutShape(torch.nn.Module):
    def __init__(self, body, width):
        super().__init__()
        self.body, self.width, self.out_shape = body, width, (width,)

    def forward(self, x, context=None):
        return self.body(x)


class Pair(torch.nn.Module):
    """Two parts that share one network."""

    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right


def test_a_shared_module_stays_shared():
    network = pv.networks.MLP(3, [4])
    pair = checkpoint.build(checkpoint.describe(Pair(OutShape(network, 4), OutShape(network, 4))))
    assert pair.left.body is pair.right.body


def test_a_program_of_functions_is_loaded_into_one(tmp_path):
    layer = torch.nn.Linear(2, 2)
    program = pv.Program(lambda x: None, lambda x: None, modules=layer, event_shape=2)
    pv.save(program, tmp_path)
    kept = layer.weight.detach().clone()
    torch.nn.init.zeros_(layer.weight)
    with pytest.raises(checkpoint.CheckpointError, match=r"pv\.load\(folder, program"):
        pv.load(
            tmp_path
        )  # its functions would go on using this layer, whatever was loaded into another
    with pytest.raises(InvalidInput, match=r"methods of one nn\.Module"):
        copy.deepcopy(program)
    pv.load(tmp_path, program)
    assert torch.equal(layer.weight, kept)


def test_a_program_of_methods_is_copied_and_loaded_like_any_other(tmp_path):
    vae, x = small_vae(), torch.zeros(3, 1, 8, 8)
    program = pv.Program(vae.model, vae.guide, modules=vae, event_shape=(1, 8, 8))
    pv.save(program, tmp_path)
    expected = pv.elbo(program, x, 5).values
    for other in (pv.load(tmp_path), copy.deepcopy(program)):
        assert torch.equal(pv.elbo(other, x, 5).values, expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert not torch.equal(pv.elbo(other, x, 5).values, expected)
    assert torch.equal(pv.elbo(program, x, 5).values, expected)


def networks():
    act = torch.nn.Tanh()
    yield torch.nn.Sequential(
        torch.nn.Linear(5, 7), act, torch.nn.Linear(7, 7), act
    )  # one module in two places
    yield torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.Identity(), torch.nn.Hardtanh(-2.0, 2.0)
    )
    yield torch.nn.Sequential(
        torch.nn.ModuleDict(
            {"class": torch.nn.Linear(5, 7), "import": torch.nn.GRU(5, 7, bidirectional=True)}
        )["class"]
    )


@pytest.mark.parametrize(
    "network", list(networks()), ids=["shared activation", "identity", "picked"]
)
def test_torch_networks_are_saved_with_the_shape_they_state(tmp_path, network):
    network.out_shape = (7,)
    q = pv.posteriors.DiagonalNormal(2, network)
    pv.save(q, tmp_path)
    loaded, x = pv.load(tmp_path), torch.randn(4, 5)
    assert torch.equal(
        loaded(x).base_dist.loc, q(x).base_dist.loc
    ) and loaded.network.out_shape == (7,)


class Holds(torch.nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.GRU(3, 4, num_layers=2),
        torch.nn.LSTM(3, 4, batch_first=True),
        torch.nn.Embedding(5, 2),
        Holds(
            torch.nn.ModuleDict({"class": torch.nn.Linear(2, 3), "import": torch.nn.Linear(1, 1)})
        ),
    ],
    ids=lambda m: type(m).__name__,
)
def test_layers_of_torch_come_back(tmp_path, module):
    pv.save(module, tmp_path)
    assert same(module, pv.load(tmp_path))


def test_tied_frozen_and_mixed_precision_tensors_come_back(tmp_path):
    vae = small_vae()
    vae.likelihood.requires_grad_(False)
    vae.posterior.network.register_buffer(
        "exact", torch.tensor(0.1, dtype=torch.float64), persistent=False
    )
    vae.likelihood.head.layer.bias = torch.nn.Parameter(
        vae.likelihood.head.layer.bias.double(), requires_grad=False
    )
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert same(vae, loaded) and loaded.likelihood.head.layer.bias.dtype == torch.float64
    assert [p.requires_grad for p in loaded.parameters()] == [
        p.requires_grad for p in vae.parameters()
    ]
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    pv.save(tied, tmp_path / "tied")
    assert same(tied, pv.load(tmp_path / "tied"))


@pytest.mark.parametrize("frozen", [0.5, "loc", [1.0], {"loc": 1}])
def test_what_is_frozen_is_a_list_of_names(tmp_path, frozen):
    pv.save(small_vae(), tmp_path)
    index = json.loads((tmp_path / "program.json").read_text()) | {"frozen": frozen}
    (tmp_path / "program.json").write_text(json.dumps(with_checksum(index)))
    with pytest.raises(checkpoint.CheckpointError, match="frozen"):
        pv.load(tmp_path)


def test_saving_deletes_nobody_elses_files(tmp_path):
    pv.save(small_vae(seed=1), tmp_path)
    (tmp_path / "program-my-backup.safetensors").write_text("mine")
    pv.save(small_vae(seed=2), tmp_path)
    assert (
        len(list(tmp_path.glob("program-*.safetensors"))) == 2
        and (tmp_path / "program-my-backup.safetensors").exists()
    )


def test_loading_into_a_program_that_does_not_fit_changes_nothing(tmp_path):
    pv.save(small_vae(hidden=16), tmp_path)
    other = small_vae(hidden=17)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(checkpoint.CheckpointError, match="do not fit"):
        pv.load(tmp_path, other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_what_cannot_be_imported_is_refused_before_anything_is_written(tmp_path):
    class Local(pv.priors.StandardNormal):
        pass

    vae = small_vae()
    vae.prior = Local(2)
    with pytest.raises(InvalidInput, match="file of its own"):
        pv.save(vae, tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Bomb:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["BOMB"])),)


def weights_file(folder):
    return next(folder.glob("program-*.safetensors"))


def damage_truncate(folder):
    weights_file(folder).write_bytes(weights_file(folder).read_bytes()[:-100])


def damage_flip(folder):
    data = bytearray(weights_file(folder).read_bytes())
    data[-5] ^= 1
    weights_file(folder).write_bytes(bytes(data))


def damage_pickle(folder):
    weights_file(folder).write_bytes(pickle.dumps(Bomb()))


def damage_pickle_with_its_hash(folder):
    import hashlib

    damage_pickle(folder)
    index = json.loads((folder / "program.json").read_text())
    index["sha256"] = hashlib.sha256(weights_file(folder).read_bytes()).hexdigest()
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


def damage_missing(folder):
    weights_file(folder).unlink()


def damage_index(folder):
    (folder / "program.json").write_text((folder / "program.json").read_text()[:200])


def damage_no_index(folder):
    (folder / "program.json").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps(Bomb()))


def damage_format(folder):
    index = json.loads((folder / "program.json").read_text())
    (folder / "program.json").write_text(json.dumps(index | {"format": 99}))


def damage_class(folder):
    index = json.loads((folder / "program.json").read_text())
    index["program"]["args"]["prior"] = {"class": "os.mkdir", "args": {"path": os.environ["BOMB"]}}
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


def damage_function(folder):
    index = json.loads((folder / "program.json").read_text())
    index["program"]["args"]["posterior"]["args"]["network"]["args"]["activation"] = {
        "import": "pyro.clear_param_store"
    }
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


def damage_nonsense(folder):
    index = json.loads((folder / "program.json").read_text())
    index["program"]["args"]["prior"]["args"]["latent"] = [-3]
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


def damage_path(folder):
    index = json.loads((folder / "program.json").read_text())
    index["program"]["class"] = "nodot"
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


def damage_structure(folder):
    index = json.loads((folder / "program.json").read_text())
    index["program"]["args"]["posterior"]["args"]["network"]["args"]["hidden"] = [3]
    (folder / "program.json").write_text(json.dumps(with_checksum(index)))


@pytest.mark.parametrize(
    "damage",
    [value for name, value in globals().items() if name.startswith("damage_")],
    ids=lambda f: f.__name__,
)
def test_a_damaged_checkpoint_is_refused_in_one_line_and_never_runs(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    pv.save(small_vae(), tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(checkpoint.CheckpointError) as error:
        pv.load(tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()


def test_one_bit_of_the_json_is_noticed(tmp_path):
    """One of a likelihood's scale moved log p(x) by nats, and nothing was said."""
    pv.save(small_vae(), tmp_path)
    path = tmp_path / "program.json"
    whole, (_, expected) = path.read_bytes(), checkpoint.read_state(tmp_path, "program")
    for place in range(0, len(whole), 5):
        bit = 1 << (place % 8)
        changed = bytes([*whole[:place], whole[place] ^ bit, *whole[place + 1 :]])
        path.write_bytes(changed)
        try:
            assert checkpoint.read_state(tmp_path, "program")[1] == expected  # of white space
        except checkpoint.CheckpointError as error:
            assert "\n" not in str(error)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    vae = small_vae()
    vae.posterior.head.layer.bias.data[0] = torch.nan
    pv.save(vae, tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match=r"NaN .* 'posterior\.head\.layer\.bias'"):
        pv.load(tmp_path)


@pytest.mark.parametrize(
    "put",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.touch()],
    ids=["fifo", "folder", "device", "empty"],
)
@pytest.mark.parametrize("name", ["program.json", "weights"])
def test_what_is_no_file_is_refused_at_once(tmp_path, put, name):
    pv.save(small_vae(), tmp_path)
    path = weights_file(tmp_path) if name == "weights" else tmp_path / name
    path.unlink()
    put(path)
    with pytest.raises(checkpoint.CheckpointError):
        pv.load(tmp_path)


def test_weights_outside_of_the_folder_are_not_read(tmp_path):
    pv.save(small_vae(), tmp_path / "run")
    weights = weights_file(tmp_path / "run")
    outside = weights.rename(tmp_path / weights.name)
    weights.symlink_to(outside)
    with pytest.raises(checkpoint.CheckpointError, match="outside of"):
        pv.load(tmp_path / "run")


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="does not exist"):
        pv.load(tmp_path / "none")


@pytest.mark.parametrize("fails_at", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, fails_at):
    good, better = small_vae(seed=1), small_vae(seed=2)
    pv.save(good, tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails_at, full)
    with pytest.raises(checkpoint.CheckpointError, match="No space left on device"):
        pv.save(better, tmp_path)
    monkeypatch.undo()
    assert same(pv.load(tmp_path), good)
    assert not list(tmp_path.glob(".*.tmp"))
    pv.save(better, tmp_path)
    assert same(pv.load(tmp_path), better)
    assert len(list(tmp_path.glob("program-*.safetensors"))) == 1


def test_a_write_that_dies_between_the_two_files_leaves_the_old_state(tmp_path, monkeypatch):
    pv.save(small_vae(seed=1), tmp_path)
    replace, calls = os.replace, []

    def dies_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*args)

    monkeypatch.setattr(os, "replace", dies_second)
    with pytest.raises(KeyboardInterrupt):
        pv.save(small_vae(seed=2), tmp_path)
    monkeypatch.undo()
    assert same(pv.load(tmp_path), small_vae(seed=1))


def test_a_saved_class_goes_by_the_name_of_its_family():
    """So that it is found again after it moved to another file of its package."""
    likelihood = pv.likelihoods.Normal(3, pv.networks.MLP(2, [4]))
    assert checkpoint.describe(likelihood)["class"] == "pyro_vae.likelihoods.Normal"
    assert checkpoint.describe(torch.nn.Tanh())["class"] == "torch.nn.Tanh"


def test_a_class_of_the_running_script_is_warned_of_when_saving(tmp_path, monkeypatch):
    class Mine(pv.priors.StandardNormal):
        pass

    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    monkeypatch.setattr(sys.modules["__main__"], "Mine", Mine, raising=False)
    program = small_vae()
    program.prior = Mine(2)
    with pytest.warns(UserWarning, match="Mine: defined in __main__") as caught:
        pv.save(program, tmp_path / "saved")
    assert "\n" not in str(caught[0].message) and caught[0].filename == __file__
    with pytest.warns(UserWarning, match="Mine: defined in __main__"):
        pv.fit(program, torch.zeros(8, 1, 8, 8), epochs=2, out=tmp_path / "run", progress=False)
    assert type(pv.load(tmp_path / "run").prior) is Mine
