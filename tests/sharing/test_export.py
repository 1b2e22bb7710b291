"""Exported parts give what the program gives, for data that they were not checked on."""

import json

import pytest
import safetensors.torch
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.checkpoint import CheckpointError
from pyro_vae.sharing import export, load_exported
from pyro_vae.sharing.noise import GivenNoise
from pyro_vae.validation import InvalidInput

NET = pv.networks.MLP


def digits_with(prior):
    vae = small_vae(hidden=8)
    return pv.VAE(prior, vae.likelihood, vae.posterior)


def conditional():
    return pv.VAE(
        pv.priors.ConditionalNormal(2, 3),
        pv.likelihoods.Bernoulli(4, NET(2, [8], context=3)),
        pv.posteriors.DiagonalNormal(2, NET(4, [8], context=3)),
        pv.networks.OneHot(3),
    )


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_parts_give_what_the_program_gives(form, tmp_path):
    vae, x = conditional(), torch.rand(7, 4).round()
    labels = torch.arange(7) % 3
    export(vae, (x[:3], labels[:3]), tmp_path, form)
    made = load_exported(tmp_path, trust=form == "torch")
    assert made.parts.keys() == {"encoder", "decoder", "sampler"} and not made.left_out
    mean, scale = made.parts["encoder"](x, labels)
    torch.testing.assert_close(mean, pv.encode(vae, (x, labels))["z"], atol=1e-6, rtol=1e-5)
    exact = vae.posterior(x, context=vae.context(labels)).stddev
    torch.testing.assert_close(scale, exact, atol=1e-6, rtol=1e-5)
    (decoded,) = made.parts["decoder"](mean, labels)
    ours = pv.decode(vae, mean, context=labels)
    torch.testing.assert_close(decoded, ours, atol=1e-6, rtol=1e-5)
    # A normal p(z | y) is its mean plus its scale times the noise.
    noise, prior = torch.randn(7, made.noise_size), vae.prior(context=vae.context(labels))
    z = prior.mean + prior.stddev * noise
    (new,) = made.parts["sampler"](noise, labels)
    torch.testing.assert_close(
        new, pv.decode(vae, z.detach(), context=labels), atol=1e-6, rtol=1e-5
    )


def test_a_mixture_draws_components_by_their_weights():
    prior = pv.priors.GaussianMixture(2, components=3)
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            if parameter.shape == (3,):
                parameter.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
            elif "loc" in name:
                parameter.copy_(torch.tensor([[-50.0, 0.0], [0.0, 0.0], [50.0, 0.0]]))
    torch.manual_seed(0)
    with GivenNoise(5) as given:
        prior().sample(torch.Size([5]))
    assert sorted(given.sizes) == [1, 6]  # a category, and two normals of each component
    with GivenNoise(2000, torch.randn(2000, 7), given.sizes):
        z = prior().sample(torch.Size([2000]))
    shares = torch.stack([(z[:, 0] < -25), z[:, 0].abs() < 25, z[:, 0] > 25]).double().mean(1)
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]).double(), atol=0.04, rtol=0)


def test_noise_becomes_every_kind_of_draw():
    torch.manual_seed(0)
    with GivenNoise(4000, torch.randn(4000, 4)):
        bits = torch.bernoulli(torch.full((4000, 1), 0.3))
        laplace = torch.distributions.Laplace(1.0, 2.0).sample((4000,))
        normal = torch.distributions.Normal(3.0, 0.5).sample((4000,))
        uniform = torch.rand(4000)
    assert abs(bits.mean() - 0.3) < 0.03
    assert abs(laplace.mean() - 1) < 0.2 and abs(laplace.var() - 8) < 1
    assert abs(normal.mean() - 3) < 0.04 and abs(normal.std() - 0.5) < 0.03
    assert abs(uniform.var() - 1 / 12) < 0.01 and 0 < uniform.min() < uniform.max() < 1


def test_what_is_no_function_of_its_inputs_is_left_out(tmp_path):
    made = export(digits_with(pv.priors.StudentT(2)), torch.zeros(2, 1, 8, 8), tmp_path)
    assert made.parts.keys() == {"encoder", "decoder"} and made.left_out.keys() == {"sampler"}


def test_an_altered_part_is_refused(tmp_path):
    export(digits_with(pv.priors.StudentT(2)), torch.zeros(2, 1, 8, 8), tmp_path)
    example = safetensors.torch.load_file(tmp_path / "check.safetensors")
    example["decoder.x"] = example["decoder.x"] + 0.01
    safetensors.torch.save_file(example, tmp_path / "check.safetensors")
    with pytest.raises(CheckpointError, match="other values than the program"):
        load_exported(tmp_path, trust=True)
    (tmp_path / "decoder.pt2").unlink()
    with pytest.raises(CheckpointError):
        load_exported(tmp_path, trust=True)
    (tmp_path / "export.json").write_text(json.dumps({"format": "pickle"}))
    with pytest.raises(InvalidInput):
        load_exported(tmp_path, trust=True)


def test_files_that_run_code_are_read_only_if_they_are_trusted(tmp_path):
    export(digits_with(pv.priors.StudentT(2)), torch.zeros(2, 1, 8, 8), tmp_path)
    with pytest.raises(CheckpointError, match="pass trust=True if they are yours"):
        load_exported(tmp_path)
    assert load_exported(tmp_path, trust=True).parts


def test_onnx_reads_no_other_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    vae = digits_with(pv.priors.StandardNormal(2))
    export(vae, torch.zeros(2, 1, 8, 8), tmp_path, "onnx")
    path = tmp_path / "decoder.onnx"
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "secret").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "secret")
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_exported(tmp_path)


@pytest.mark.parametrize("name", ["decoder.pt2", "export.json", "check.safetensors"])
def test_an_export_replaces_nobodys_files(tmp_path, name):
    vae, x = digits_with(pv.priors.StudentT(2)), torch.zeros(2, 1, 8, 8)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidInput, match="no export of this folder wrote"):
        export(vae, x, tmp_path)
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / name).unlink()
    for _ in range(2):
        assert export(vae, x, tmp_path).parts


def test_what_cannot_be_exported_is_one_line(tmp_path):
    with pytest.raises(InvalidInput, match="expected a VAE"):
        export(pv.Program(print, print), torch.zeros(2, 3), tmp_path)
    sized = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Poisson(4, NET(2, [8]), size_factor="exposure"),
        pv.posteriors.DiagonalNormal(2, NET(4, [8])),
    )
    with pytest.raises(InvalidInput, match="a dictionary"):
        export(sized, (torch.ones(2, 4), {"size_factor": torch.ones(2)}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["StandardNormal", "GaussianMixture", "VampPrior", "Flow"])
def test_samplers_take_any_number_of_data(name, tmp_path):
    options = {"GaussianMixture": {"components": 4}, "VampPrior": {"components": 4}}.get(name, {})
    vae = pv.VAE(
        getattr(pv.priors, name)(2, **options),
        pv.likelihoods.Normal(4, NET(2, [8])),
        pv.posteriors.DiagonalNormal(2, NET(4, [8])),
    )
    made = export(vae, torch.rand(9, 4), tmp_path / "parts")
    for num in (1, 3, 64):
        (new,) = made.parts["sampler"](torch.randn(num, made.noise_size))
        assert new.shape == (num, 4) and new.isfinite().all()


def test_global_latents_are_refused(tmp_path):
    vae = pv.VAE(
        pv.priors.BayesianMixture(2),
        pv.likelihoods.Normal(4, NET(2, [8])),
        pv.posteriors.DiagonalNormal(2, NET(4, [8])),
    )
    with pytest.raises(InvalidInput, match="global latents"):
        export(vae, torch.rand(9, 4), tmp_path / "parts")


def test_sequences_are_decoded_in_any_number(tmp_path):
    """Step by step, which the graph of one number of data would not do."""
    network = NET(2, [8])
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.AutoregressiveCategorical(5, network, categories=4, width=8),
        pv.posteriors.DiagonalNormal(2, NET(5, [8])),
    )
    made = export(vae, torch.tensor([[1.0, 2, 0, 0, 0], [3, 1, 1, 2, 0]]), tmp_path / "parts")
    for num in (1, 3, 7):
        z = torch.randn(num, 2)
        assert torch.equal(made.parts["decoder"](z)[0], pv.decode(vae, z))


@pytest.mark.parametrize("name", ["Weibull", "Truncated"])
def test_a_part_that_onnx_cannot_express_is_left_out(name, tmp_path):
    options = {"Truncated": {"low": 0.0, "high": 1.0}}.get(name, {})
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        getattr(pv.likelihoods, name)(4, NET(2, [8]), **options),
        pv.posteriors.DiagonalNormal(2, NET(4, [8])),
    )
    x = torch.rand(4, 4) * 0.8 + 0.1
    made = export(vae, x, tmp_path, "onnx")
    assert "encoder" in made.parts and "decoder" in made.left_out
    assert "onnx cannot express it" in made.left_out["decoder"]
    again = load_exported(tmp_path)
    assert again.parts.keys() == made.parts.keys() and again.left_out == made.left_out
    torch.testing.assert_close(again.parts["encoder"](x)[0], pv.encode(vae, x)["z"])
    assert export(vae, x, tmp_path / "torch").parts.keys() == {"encoder", "decoder", "sampler"}
