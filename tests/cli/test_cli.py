import json
import math
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pictures
import pytest
import torch
from commands import FAST, FEW, fails
from scipy.io import wavfile

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.options import as_options
from pyro_vae.cli.scores import print_scores
from pyro_vae.evaluation.comparison import save_scores
from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.evaluation.proposals import Guide, Refitted, Widened
from pyro_vae.evaluation.scores import Score


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pictures.saved_as(pictures.savefig):
        assert main(["train", "--out", str(folder), "--binarize", "dynamic", *FAST]) == 0
    return folder


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "conditional"
    assert main(["train", "--context", "labels", "--out", str(folder), *FAST]) == 0
    return folder


def test_train_writes_the_run_folder(run):
    for name in ("recipe.yaml", "program.json", "training.json", "metrics.csv", "evaluation.json"):
        assert (run / name).stat().st_size > 0
    for name in ("training", "reconstructions", "samples", "latents"):
        png = (run / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and png != pictures.PIXEL


def test_evaluate_writes_scores_that_are_those_of_python(run, capsys):
    assert main(["evaluate", str(run), "--num-samples", "200", "--limit", "50"]) == 0
    assert "log p(x)" in capsys.readouterr().out
    result = json.loads((run / "evaluation.json").read_text())
    test = pv.datasets.load("digits")[1][:50]
    scores = pv.evaluation.evaluate(pv.load(run), test, 200)
    assert result["elbo"]["mean"] == pytest.approx(scores["elbo"].mean)
    assert result["log_likelihood"] == pytest.approx(
        {
            "mean": scores["log_likelihood"].mean,
            "se": scores["log_likelihood"].se,
            "mc_se": scores["log_likelihood"].mean_mc_se,
            "num_samples": 200,
        }
    )
    assert result["num_data"] == 50 and result["data"] == {
        "name": "digits",
        "split": "test",
        "binarize": "dynamic",
        "sha256": test.sha256,
    }
    assert result["bits_per_dim"] == pytest.approx(-scores["log_likelihood"].mean / 64 / np.log(2))
    assert set(result["pareto_k"]) >= {"median", "max", "above_threshold"}


def test_evaluate_takes_a_proposal_by_name_and_leaves_the_elbo_to_the_guide(run):
    results = []
    for flags in (
        [],
        ["--proposal", "Widened", "--proposal.factor", "1.5"],
        ["--proposal=Refined", "--proposal.steps", "5"],
        ["--proposal", "Widened", "--proposal.of", "Refitted", "--proposal.of.steps=5"],
    ):
        assert main(["evaluate", str(run), "--num-samples", "100", "--limit", "20", *flags]) == 0
        results.append(json.loads((run / "evaluation.json").read_text()))
    assert results[1]["proposal"]["name"] == "Widened" and results[1]["proposal"]["factor"] == "1.5"
    assert len({result["elbo"]["mean"] for result in results}) == 1
    assert len({result["log_likelihood"]["mean"] for result in results}) == 4
    assert "Refitted" in results[3]["proposal"]["of"] and "5" in results[3]["proposal"]["of"]
    program, test = pv.load(run), pv.datasets.load("digits")[1][:20]
    widened = pv.evaluation.evaluate(
        program, test, 100, proposal=pv.evaluation.proposals.Widened(1.5)
    )["log_likelihood"]
    assert results[1]["log_likelihood"]["mean"] == pytest.approx(widened.mean)


def test_what_cannot_be_measured_is_null(run):
    assert (
        main(["evaluate", str(run), "--num-samples", "1", "--limit", "1", "--split", "train"]) == 0
    )
    result = json.loads((run / "evaluation.json").read_text())
    assert (
        result["elbo"]["se"] is None
        and result["pareto_k"]["max"] is result["pareto_k"]["above_threshold"] is None
        and result["data"]["split"] == "train"
    )


def test_sample_writes_pictures_and_arrays(run, tmp_path):
    assert main(["sample", str(run), "--num", "5"]) == 0
    assert (run / "samples.png").exists()
    assert main(["sample", str(run), "--num", "5", "--out", str(tmp_path / "a.npz")]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].shape == (5, 1, 8, 8) and 0 < arrays["x"].min() < arrays["x"].max() < 1
        assert "context" not in arrays
    assert (
        main(["sample", str(run), "--num", "5", "--draws", "--out", str(tmp_path / "b.npz")]) == 0
    )
    with np.load(tmp_path / "b.npz") as arrays:
        assert set(np.unique(arrays["x"])) == {0.0, 1.0}


def test_samples_of_spectrograms_are_written_as_sound(run, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(20, 129, 4)))
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "x.npz"),
                "--likelihood",
                "Normal",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    for name in ("a", "b"):
        assert (
            main(
                [
                    "sample",
                    str(tmp_path / "run"),
                    "--num",
                    "3",
                    "--out",
                    str(tmp_path / f"{name}.wav"),
                ]
            )
            == 0
        )
    with wave.open(str(tmp_path / "a.wav")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 3 * 3 * 64)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert "spectrogram: got shape (3, 1, 8, 8)" in fails(
        capsys, "sample", run, "--num", "3", "--out", tmp_path / "c.wav"
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_waveforms_are_written_as_sounds(tmp_path, channels):
    loud = np.random.default_rng(0).uniform(-1, 1, (60, channels, 200)).astype("float32")
    np.savez(tmp_path / "x.npz", x=loud)
    run, target = str(tmp_path / "run"), str(tmp_path / "a.wav")
    data = ["--data", str(tmp_path / "x.npz"), "--likelihood", "Normal"]
    assert main(["train", *data, "--out", run, *FAST]) == 0
    new = ["sample", run, "--num", "3", "--draws"]
    assert main([*new, "--out", target, "--rate", "16000"]) == 0
    assert main([*new, "--out", str(tmp_path / "a.npz")]) == 0
    rate, written = wavfile.read(target)
    x = np.load(tmp_path / "a.npz")["x"]
    sound = np.concatenate(list(x), axis=-1).T
    sound = sound / max(1.0, np.abs(sound).max())
    assert rate == 16000
    np.testing.assert_allclose(written.reshape(-1, channels) / 32767, sound, atol=1e-4)


def test_clips_are_drawn_as_film_strips(tmp_path, real_figures):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).uniform(size=(300, 5, 4, 4)))
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "x.npz"),
                "--binarize",
                "dynamic",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    assert main(["inspect", str(tmp_path / "run"), "--reference", "0", "--num-samples", "5"]) == 0
    assert (tmp_path / "run" / "inspection" / "interpolation.png").exists()


def test_labels_that_a_run_lacks_are_refused_with_one_that_it_has(conditional, tmp_path, capsys):
    for context, got in (
        ("12", "label 12"),
        ("1,2", "shape (4, 2)"),
        ("-1", "label -1, of a datum without one"),
    ):
        line = fails(capsys, "sample", conditional, "--num", "4", f"--context={context}")
        expected = "expected one label of 0 to 9; pass for instance --context 0"
        assert f"context: got {got}, {expected}" in line
    names = np.array(["a disc", "square"])[np.arange(40) % 2]
    x = np.random.default_rng(0).random((40, 1, 4, 4)) < 0.5
    np.savez(tmp_path / "named.npz", x=x.astype("float32"), y=names)
    run, named = tmp_path / "run", ["--data", str(tmp_path / "named.npz"), "--context", "labels"]
    assert main(["train", *named, "--out", str(run), *FAST]) == 0
    capsys.readouterr()
    for context, expected in (
        ("circle", "got 'circle', expected one of a disc, square"),
        ("7", "got label 7, expected one label of 0 to 1, or its name"),
    ):
        line = fails(capsys, "sample", run, "--num", "4", "--context", context)
        assert f"context: {expected}; pass for instance --context 'a disc'" in line
    assert main(["sample", str(run), "--num", "4", "--context", "a disc"]) == 0


def test_sample_asks_for_a_label(conditional, tmp_path):
    assert (
        main(
            [
                "sample",
                str(conditional),
                "--num",
                "4",
                "--context",
                "7",
                "--out",
                str(tmp_path / "a.npz"),
            ]
        )
        == 0
    )
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["context"].tolist() == [7] * 4
    assert main(["sample", str(conditional), "--num", "20", "--out", str(tmp_path / "b.npz")]) == 0
    with np.load(tmp_path / "b.npz") as arrays:
        assert arrays["context"].tolist() == [i // 2 for i in range(20)]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    flags = [
        "--warmup",
        "2",
        "--prior",
        "GaussianMixture",
        "--validation",
        "100",
        "--patience",
        "9",
    ]
    assert main(["train", "--out", str(tmp_path / "whole"), *flags, *FAST, "--epochs", "4"]) == 0
    assert main(["train", "--out", str(tmp_path / "parts"), *flags, *FAST, "--epochs", "2"]) == 0
    assert main(["train", "--out", str(tmp_path / "parts"), "--resume", *FEW, "--epochs", "4"]) == 0
    whole, parts = (pv.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_recipe_a_flag_and_python_build_the_same_program(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "prior: {class_path: GaussianMixture, init_args: {components: 3}}\nlatent: 2\nepochs: 1\n"
        "encoder: {class_path: MLP, init_args: {hidden: [16]}}\nbatch-size: 64\n"
        "decoder: {class_path: ConvTranspose, init_args: {channels: [4], hidden: [8]}}\n"
    )
    assert (
        main(
            [
                "train",
                str(recipe),
                "--out",
                str(tmp_path / "a"),
                "--limit",
                "5",
                "--num-samples",
                "5",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "train",
                "--prior",
                "GaussianMixture",
                "--prior.components",
                "3",
                "--latent=2",
                "--epochs",
                "1",
                "--encoder.hidden",
                "[16]",
                "--batch-size",
                "64",
                "--decoder",
                "ConvTranspose",
                "--decoder.channels",
                "[4]",
                "--decoder.hidden",
                "[8]",
                "--out",
                str(tmp_path / "b"),
                "--limit",
                "5",
                "--num-samples",
                "5",
            ]
        )
        == 0
    )
    assert (tmp_path / "a" / "recipe.yaml").read_text() == (
        tmp_path / "b" / "recipe.yaml"
    ).read_text()
    a, b = (pv.load(tmp_path / name) for name in "ab")
    assert a.prior.components == 3 and all(
        torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items()
    )
    # A flag's component takes nothing over from the recipe's, and keeps what its own flags say.
    assert (
        main(
            [
                "train",
                str(recipe),
                "--decoder",
                "MLP",
                "--prior.components",
                "5",
                "--out",
                str(tmp_path / "c"),
                "--limit",
                "5",
                "--num-samples",
                "5",
            ]
        )
        == 0
    )
    c = pv.load(tmp_path / "c")
    assert c.likelihood.network.hidden == [400] and c.prior.components == 5


MYLAB = """
import torch
from torch import distributions as td, nn

class MyPrior(nn.Module):
    def __init__(self, latent, df: float = 5.0):
        super().__init__(); self.latent, self.df = latent, df
        self.loc = nn.Parameter(torch.zeros(latent))
    def forward(self, *, context=None):
        return td.Independent(td.StudentT(self.df, self.loc), len(self.latent))

class MyLikelihood(nn.Module):
    def __init__(self, event_shape, network, scale: float = 1.0):
        super().__init__(); self.event_shape, self.network, self.scale = event_shape, network, scale
        self.out = nn.Linear(network.out_shape[0], 64)
    def forward(self, z, *, context=None):
        loc = self.out(self.network(z)).unflatten(-1, self.event_shape)
        return td.Independent(td.Laplace(loc, self.scale), 3)

class MyPosterior(nn.Module):
    def __init__(self, latent, network):
        super().__init__(); self.latent, self.network = latent, network
        self.out = nn.Linear(network.out_shape[0], 2 * latent[0])
    def forward(self, x, *, context=None):
        loc, raw = self.out(self.network(x)).chunk(2, -1)
        return td.Independent(td.Laplace(loc, raw.exp()), 1)
"""


# The installed command, then the module, as Python starts them; libraries are imported once.
STARTS = """
import os, runpy, sys
scripts, at, others = sys.argv[1], sys.argv.index("evaluate"), sys.path[1:]
for run, name, place, words in (
    (runpy.run_path, f"{scripts}/pyro-vae", scripts, sys.argv[2:at]),
    (runpy.run_module, "pyro_vae", os.getcwd(), sys.argv[at:]),
):
    sys.argv, sys.path[:] = [name, *words], [place, *others]
    try:
        run(name, run_name="__main__")
    except SystemExit as ended:
        assert ended.code == 0
    sys.modules.pop("mylab")  # each finds it anew
"""


def test_components_outside_the_package_are_chosen_by_import_path(tmp_path):
    (tmp_path / "mylab.py").write_text(MYLAB)
    (tmp_path / "recipe.yaml").write_text(
        "likelihood: mylab.MyLikelihood\nprior: mylab.MyPrior\nbinarize: none\n"
    )
    parts = ["--prior.df", "4", "--posterior", "mylab.MyPosterior", "--likelihood.scale", "0.5"]
    train = ["train", "recipe.yaml", *parts, "--out", "run", *FAST]
    score = ["evaluate", "run", "--num-samples", "7", "--limit", "5", "--trust", "mylab"]
    start = [sys.executable, "-W", "ignore", "-c", STARTS, Path(sys.executable).parent]
    subprocess.run([*start, *train, *score], cwd=tmp_path, check=True, capture_output=True)
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["log_likelihood"]["num_samples"] == 7 and result["bits_per_dim"] is None
    described = json.loads((tmp_path / "run" / "program.json").read_text())["program"]["args"]
    assert described["prior"] == {"class": "mylab.MyPrior", "args": {"latent": [2], "df": 4.0}}
    assert described["likelihood"]["args"]["scale"] == 0.5


def test_data_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "table.npz",
        x=rng.normal(size=(60, 5)).astype(np.float32),
        y=rng.normal(size=60).astype(np.float32),
    )
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "table.npz"),
                "--likelihood",
                "Normal",
                "--likelihood.learn_scale",
                "per_feature",
                "--context",
                "covariates",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    program = pv.load(tmp_path / "run")
    assert program.event_shape == (5,) and program.likelihood.sigma.raw.shape == (5,)
    for value in ("0.5", "-0.5"):
        out = tmp_path / "x.npz"
        argv = ["sample", str(tmp_path / "run"), "--num", "3", "--context", value]
        assert main([*argv, "--out", str(out)]) == 0
        with np.load(out) as arrays:
            assert arrays["context"].tolist() == [float(value)] * 3


def test_without_out_each_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *FAST]) == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"digits", "digits-2"}


@pytest.mark.parametrize(
    "argv, words",
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--data", "mnits"], "did you mean 'mnist'"),
        (["train", "--prior", "GausianMixture"], "did you mean 'GaussianMixture'"),
        (["train", "--prior", "nolab.MyPrior"], "No module named 'nolab'"),
        (["train", "--prior", "math.MyPrior"], "a name that math does not have"),
        (
            ["train", "--prior", "GaussianMixture", "--prior.componets", "3"],
            "did you mean 'components'",
        ),
        (["train", "--epocs", "3"], "did you mean '--epochs'"),
        (["calibrate", "nowhere", "--num-data", "3"], "did you mean '--simulated'"),
        (["gaps", "nowhere", "--num-data", "3"], "did you mean '--limit'"),
        (["sample", "nowhere", "--count", "3"], "--count: got an unknown option"),
        (["train", "--epo", "3"], "did you mean '--epochs'"),
        (["train", "--prior.comp", "3", "--prior", "GaussianMixture"], "choose one of components"),
        (["evaluate", "nowhere", "--num=3"], "did you mean '--num-samples'"),
        (["train", "--epochs", "three"], "epochs: got 'three', expected int"),
        (["train", "--epochs", "0"], "epochs: got 0"),
        (["train", "--latent", "0"], "latent: got 0"),
        (["train", "--binarize", "maybe"], "binarize: got 'maybe'"),
        (["train", "--optimizer.lr", "0.1"], "--learning-rate 0.1"),
        (["train", "--resume"], "add --out"),
        (["train", "none.yaml"], "none.yaml, which does not exist"),
        (["train", "--binarize", "none"], "binarise grey values"),
        (["train", "--encoder", "ConvTranspose"], "size"),
        (["train", "--decoder", "Conv"], "in_shape"),
        (["train", "--device", "gpu"], "device: got 'gpu'"),
        (
            ["train", "--prior", "StudentT", "--prior.df", "four"],
            "prior.df: got 'four', expected float",
        ),
        (["train", "--encoder.hidden", "400"], "encoder.hidden: got '400'"),
        (["train", "--encoder.hidden", "[-4]"], "hidden: got [-4]"),
        (
            ["train", "--encoder.activation", "torch.nn.Linear"],
            "missing 2 required positional arguments",
        ),
        (["train", "--encoder.activation", "torch.nn.Foo"], "no attribute 'Foo'"),
        (["train", "--encoder.dropout", "1.5"], "dropout: got 1.5"),
        (["train", "--encoder.context", "3"], "encoder.context: got 3"),
        (["train", "--objective.beta", "-1"], "beta: got -1"),
        (["train", "--seed", str(2**63)], "below 2**63"),
        (["train", "--optimizer", "LBFGS"], "LBFGS"),
        (["train", "--program", "HierarchicalVAE"], "--latent '[40, 20]'"),
        (["train", "--latent", "[4, 2]"], "--program HierarchicalVAE"),
        (
            ["train", "--program", "Refined"],
            "choose one of HierarchicalVAE, LadderVAE, MultimodalVAE, SemiSupervisedVAE, VAE",
        ),
        (["train", "--validation", "9999"], "validation: got 9999"),
        (["evaluate"], "RUN"),
        (["evaluate", "nowhere"], "nowhere, which does not exist"),
        (["sample", "nowhere"], "nowhere, which does not exist"),
    ],
)
def test_mistakes_end_in_one_line(capsys, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *argv)
    assert not list(tmp_path.rglob("program.json"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("epocs: 3", "did you mean 'epochs'"),
        ("prior: Nope", "prior: got 'Nope'"),
        ("[1, 2]", "no keys"),
        ("a: b: c", "cannot be read"),
        ("epochs: many", "epochs: got"),
        (
            "prior: {class_path: GaussianMixture, init_args: {component: 3}}",
            "did you mean 'components'",
        ),
    ],
)
def test_mistakes_in_a_recipe(capsys, tmp_path, text, words):
    (tmp_path / "r.yaml").write_text(text)
    assert words in fails(capsys, "train", tmp_path / "r.yaml", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    "argv, words",
    [
        (["evaluate", "RUN", "--num-samples", "0"], "num_samples: got 0"),
        (["evaluate", "RUN", "--split", "tset"], "did you mean 'test'"),
        (["evaluate", "RUN", "--limit", "0"], "limit: got 0"),
        (["evaluate", "RUN", "--proposal", "Refind"], "did you mean 'Refitted'"),
        (["evaluate", "RUN", "--proposal", "Widened", "--proposal.factor", "-1"], "factor: got -1"),
        (
            ["evaluate", "RUN", "--proposal", "Widened", "--proposal.factr", "2"],
            "did you mean 'factor'",
        ),
        (["evaluate", "RUN", "--data", "mnits"], "did you mean 'mnist'"),
        (["sample", "RUN", "--num", "0"], "num: got 0"),
        (["sample", "RUN", "--context", "3"], "not conditional"),
        (["sample", "RUN", "--out", "a.gif"], "out: got '.gif'"),
        (["train", "--out", "RUN"], "holds a run already"),
        (["train", "--out", "RUN", "--resume", "--seed", "5"], "seed: got 5"),
    ],
)
def test_mistakes_about_a_run(capsys, run, argv, words):
    kept = {path: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    assert words in fails(capsys, *(str(run) if word == "RUN" else word for word in argv))
    assert all(path.read_bytes() == content for path, content in kept.items())


@pytest.mark.parametrize(
    "label, words",
    [("10", "label 10"), ("-1", "label -1"), ("x", "context: got 'x'"), ("0.5", "label 0.5")],
)
def test_mistakes_about_a_label(capsys, conditional, label, words):
    assert words in fails(capsys, "sample", conditional, f"--context={label}")


def test_labels_that_are_no_numbering_are_refused(capsys, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 3)), y=np.arange(20) * 10**8)
    assert "number them anew" in fails(
        capsys,
        "train",
        "--data",
        tmp_path / "x.npz",
        "--context",
        "labels",
        "--out",
        tmp_path / "run",
    )


def test_labels_that_are_not_there(capsys, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 3)))
    assert "--context out" in fails(
        capsys,
        "train",
        "--data",
        tmp_path / "x.npz",
        "--context",
        "labels",
        "--out",
        tmp_path / "run",
    )
    x = np.zeros((20, 3))
    x[:, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=x)
    assert "datum 0" in fails(
        capsys,
        "train",
        "--data",
        tmp_path / "nan.npz",
        "--out",
        tmp_path / "run",
        "--likelihood",
        "Normal",
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_cuda(capsys, run):
    assert "no usable CUDA GPU" in fails(capsys, "train", "--device", "cuda")
    assert "no usable CUDA GPU" in fails(capsys, "sample", run, "--device", "cuda")


def test_help_names_the_components_and_not_every_class_of_torch(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "GaussianMixture" in text and "--batch-size" in text
    assert "torch.nn.Linear" not in text and "_samples" not in text
    assert main([]) == 0 and "evaluate RUN" in capsys.readouterr().out
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--latent", "[4, 3]"],
        [
            "--latent",
            "[4, 3, 2]",
            "--program.skip",
            "true",
            "--context",
            "labels",
            "--level-network.hidden",
            "[8]",
        ],
        [
            "--latent",
            "[4, 3, 2]",
            "--program.inference",
            "top_down",
            "--prior",
            "VampPrior",
            "--prior.components",
            "5",
        ],
        [
            "--latent",
            "[4, 3, 2]",
            "--program.inference",
            "top_down",
            "--program.skip",
            "true",
            "--context",
            "labels",
        ],
    ],
)
def test_a_hierarchy_is_one_flag(tmp_path, flags):
    levels = json.loads(flags[1])
    assert (
        main(
            ["train", "--out", str(tmp_path / "run"), *FAST, "--program", "HierarchicalVAE", *flags]
        )
        == 0
    )
    program = pv.load(tmp_path / "run")
    test = pv.datasets.load("digits")[1][:3]
    assert {name: z.shape for name, z in pv.encode(program, test).items()} == {
        f"z{level}": (3, size) for level, size in enumerate(levels, start=1)
    }
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", *FEW, "--epochs", "3"]) == 0


def test_a_full_disk_at_resume_ends_in_one_line_and_harms_nothing(capsys, tmp_path, monkeypatch):
    for name in ("whole", "parts"):
        assert main(["train", "--out", str(tmp_path / name), *FAST]) == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "parts").glob("*.*")}

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pyro_vae.training.tensorboard.RecordWriter.write", full)
        capsys.readouterr()
        assert main(["train", "--out", str(tmp_path / "parts"), "--resume", "--epochs", "3",
                     "--log", "tensorboard"]) == 2  # fmt: skip
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert all(path.read_bytes() == content for path, content in kept.items())
    for name in ("whole", "parts"):
        assert (
            main(["train", "--out", str(tmp_path / name), "--resume", *FEW, "--epochs", "3"]) == 0
        )
    whole, parts = (pv.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_schedule_and_an_optimiser_by_name(tmp_path):
    assert (
        main(
            [
                "train",
                "--schedule",
                "Exponential",
                "--schedule.final",
                "0.01",
                "--optimizer",
                "SGD",
                "--optimizer.momentum",
                "0.5",
                "--objective.num_particles",
                "3",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    settings = json.loads((tmp_path / "run" / "training.json").read_text())["settings"]
    assert settings["schedule"] == {"class": "Exponential", "final": 0.01}
    assert settings["objective"]["num_particles"] == 3 and "momentum" in str(settings["optimizer"])


def test_one_datum_is_enough_to_score(tmp_path):
    assert (
        main(["train", "--out", str(tmp_path / "run"), *FAST, "--latent", "3", "--limit", "1"]) == 0
    )


def test_colour_images_are_trained_on_and_drawn(tmp_path, real_figures):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.fromarray(np.full((4, 4, 3), 10 * i, dtype=np.uint8)).save(
            tmp_path / "images" / f"{i}.png"
        )
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "images"),
                "--likelihood",
                "Normal",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    assert main(["sample", str(tmp_path / "run"), "--num", "3"]) == 0
    assert (tmp_path / "run" / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_with_the_test_data_is_said_before_training(capsys, tmp_path):
    x = np.zeros((20, 3))
    np.savez(tmp_path / "x.npz", x=x, x_test=np.zeros((5, 4)))
    assert "data of shape (4,) in test, expected (3,)" in fails(
        capsys,
        "train",
        "--data",
        tmp_path / "x.npz",
        "--likelihood",
        "Normal",
        "--out",
        tmp_path / "run",
    )


def test_resuming_with_other_arguments_of_a_component_is_refused(capsys, tmp_path):
    assert (
        main(
            [
                "train",
                "--prior",
                "StudentT",
                "--prior.df",
                "4",
                "--out",
                str(tmp_path / "run"),
                *FAST,
            ]
        )
        == 0
    )
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--prior.df", "7"]) == 2
    assert "program: got other components" in capsys.readouterr().err
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before


def test_a_full_disk_while_sampling_leaves_what_was_there(capsys, run, tmp_path, monkeypatch):
    target = tmp_path / "samples.png"
    assert main(["sample", str(run), "--num", "5", "--out", str(target)]) == 0
    before = target.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in fails(capsys, "sample", run, "--num", "9", "--out", target)
    assert target.read_bytes() == before


def test_vectors_are_no_label(capsys, conditional):
    assert "context" in fails(capsys, "sample", conditional, "--context", "1,2")


@pytest.mark.parametrize("value", ["-1,0,0", "-1", "-.5,2", "-x"])
def test_a_value_that_starts_with_a_minus_is_no_option(capsys, conditional, value):
    assert "context: got" in fails(capsys, "sample", conditional, "--context", value)


def test_options_keep_their_values():
    argv = ["RUN", "--learning-rate", "-1", "--resume", "-h", "--a-b=-c", "--num", "3", "-4,0"]
    assert as_options(argv) == [
        *("RUN", "--learning_rate=-1", "--resume", "-h", "--a_b=-c", "--num", "3", "-4,0")
    ]


def scores_with(tails, num_samples=1000, mean=-90.0):
    """Scores of three data whose weights have given Pareto k."""
    ll = ImportanceScore(
        values=mean + torch.arange(3.0),
        mc_se=torch.full((3,), 0.005),
        num_samples=num_samples,
        sha256="a",
        standard_error=torch.full((3,), 0.005),
        ess=torch.full((3,), num_samples / 5),
        pareto_k=torch.tensor(tails),
    )
    return {"elbo": Score(ll.values - 4, ll.mc_se, num_samples, sha256="a"), "log_likelihood": ll}


def test_a_score_whose_pareto_k_is_too_high_prints_as_a_bound(capsys, tmp_path):
    data = pv.datasets.Dataset(torch.zeros(3, 2))
    print_scores(scores_with([0.1, 0.2, 0.3]), data, tmp_path)
    believed = capsys.readouterr().out
    assert "-89.00" in believed and "0.003" in believed and ">=" not in believed
    print_scores(scores_with([0.1, 0.2, 0.9]), data, tmp_path)
    bound = capsys.readouterr().out
    assert ">= -89.00" in bound and "unknown" in bound and "log p(x) is at least -89.00" in bound
    print_scores(scores_with([math.nan] * 3, num_samples=10), data, tmp_path)
    few = capsys.readouterr().out
    assert ">= -89.00" in few and "10 draws are too few" in few and "About 223 would" in few


@pytest.mark.parametrize(
    "proposal,advised",
    [
        (Guide(), ["Widened", "Widened --proposal.of Refitted"]),
        (Widened(1.2), ["Widened --proposal.factor 1.6", "Widened --proposal.of Refitted"]),
        (Widened(1.2, of=Refitted()), ["Widened --proposal.factor 1.6 --proposal.of Refitted"]),
        (Refitted(), ["Widened --proposal.of Refitted"]),
        (Widened(2.0, of=Refitted()), []),
    ],
)
def test_advice_names_no_proposal_that_was_used(proposal, advised, capsys, tmp_path):
    data = pv.datasets.Dataset(torch.zeros(3, 2))
    print_scores(scores_with([0.1, 0.2, 0.9]), data, tmp_path, proposal=proposal)
    out = " ".join(capsys.readouterr().out.split())
    flags = ", or with ".join(f"--proposal {each}" for each in advised)
    assert (f"Evaluate with {flags}, or train" if advised else "pyro-vae anneal RUN") in out


def test_one_datum_is_told_of_in_the_singular(capsys, tmp_path):
    data = pv.datasets.Dataset(torch.zeros(3, 2))
    for tails, words in (
        ([0.9, 0.1, 0.1], ("1 datum has a Pareto k", "a few draws decide its estimate, which is")),
        (
            [0.9, 0.9, 0.1],
            ("2 data have a Pareto k", "a few draws decide their estimates, which are"),
        ),
    ):
        print_scores(scores_with(tails), data, tmp_path)
        said = " ".join(capsys.readouterr().out.split())
        assert all(each in said for each in words)
    print_scores(scores_with([0.1] * 3), data[:1], tmp_path)
    assert "data, train, 1 datum; nats per datum" in capsys.readouterr().out


def test_wider_proposals_are_not_advised_without_an_end(capsys, tmp_path):
    data = pv.datasets.Dataset(torch.zeros(3, 2))
    for proposal, goes_on in ((Guide(), True), (Widened(1.2), False)):
        scores = scores_with([0.9, 0.9, 0.1])
        print_scores(scores, data, tmp_path, proposal=proposal)
        out = " ".join(capsys.readouterr().out.split())
        assert ("Evaluate with" in out) == goes_on
        assert ("state the bound as one, or bracket" in out) != goes_on


def test_a_comparison_says_which_scores_are_bounds(capsys, tmp_path):
    for name, tails, mean in (
        ("a", [0.1] * 3, -90.0),
        ("b", [0.1, 0.1, 0.9], -91.0),
        ("c", [0.9] * 3, -92.0),
    ):
        save_scores(tmp_path / name / "evaluation.npz", scores_with(tails, mean=mean))
    compared = {}
    for runs in ("ab", "ba", "bc"):
        assert main(["compare", *(str(tmp_path / run) for run in runs)]) == 0
        compared[runs] = " ".join(capsys.readouterr().out.split())
    assert ">= -90.00" in compared["ab"] and ">= -1.00" in compared["ab"]
    assert "<= +1.00" in compared["ba"] and "~ -1.00" in compared["bc"]
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert ">=" not in capsys.readouterr().out
