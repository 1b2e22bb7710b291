"""The figures of a program, the commands inspect and report, and the page as a browser shows it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from cases import small_vae
from commands import FAST
from ladders import ladder
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae import plotting
from pyro_vae.cli import main
from pyro_vae.evaluation.arviz_compat import arviz, group_of
from pyro_vae.explorer import Explored
from pyro_vae.inspection.embedding import neighbours
from pyro_vae.inspection.geometry import TangentPlane
from pyro_vae.report.figures import Gallery, Subject
from pyro_vae.report.gallery import inspect
from pyro_vae.report.latent_figures import probe_labels
from pyro_vae.report.level_figures import show_levels
from pyro_vae.report.model_section import model_section
from pyro_vae.report.page import report
from pyro_vae.report.scores_section import score_warnings, scores_section
from pyro_vae.report.sentences import facts_of, warnings_of
from pyro_vae.training.history import History

BROWSER = shutil.which("chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--context", "labels", "--out", str(folder), *FAST]) == 0
    assert (
        main(
            [
                "inspect",
                str(folder),
                "--limit",
                "60",
                "--num-samples",
                "20",
                "--reference",
                "0",
                "--outside",
                "digits",
            ]
        )
        == 0
    )
    assert main(["report", str(folder)]) == 0
    return folder


class Page(HTMLParser):
    """The addresses, tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_inspect_writes_arviz_data_and_figures(run):
    idata = arviz().from_netcdf(str(run / "posterior.nc"))
    assert group_of(idata, "posterior")["z"].shape == (1, 20, 50, 2) and idata.attrs["run"] == "run"
    result = json.loads((run / "inspection" / "inspection.json").read_text())
    assert {
        "latents.png",
        "classes.png",
        "aggregate.png",
        "neighbours.png",
        "manifold.png",
        "interpolation.png",
        "traversals.png",
        "paths.png",
        "tangent.png",
        "graph.png",
        "metric.png",
        "anomaly_elbo.png",
    } <= result["captions"].keys()
    for name, caption in result["captions"].items():
        assert caption and (run / "inspection" / name).read_bytes().startswith(b"\x89PNG")
    by_elbo, _ = result["numbers"]["outliers"]
    assert (by_elbo["inside"], by_elbo["outside"]) == ("digits", "digits")
    assert by_elbo["auroc"] == pytest.approx(0.5, abs=1e-4), "the same data on both sides"
    assert any(probe["classifier"] == "linear probe" for probe in result["numbers"]["probes"])


def test_a_hierarchy_has_a_figure_of_its_levels(monkeypatch, tmp_path):
    """A row for the data, one for their reconstructions, and one for each level drawn anew."""
    drawn = []
    plot = plotting.plot_data

    def noted(images, ax, **options):
        drawn.append((len(images), options.get("rows")))
        return plot(images, ax, **options)

    monkeypatch.setattr(plotting, "plot_data", noted)
    _, test = pv.datasets.load("digits", binarize="fixed")
    for program, rows in ((ladder(), ["z2 anew", "z1 anew"]), (small_vae(), None)):
        drawn.clear()
        subject = Subject(program, test, test[:12], "z", torch.zeros(12, 2), 0)
        gallery = Gallery(tmp_path)
        show_levels(subject, gallery)
        if rows is None:
            assert not drawn and not gallery.captions
        else:
            assert drawn == [(40, ["x", "reconstructed", *rows])]
            assert list(gallery.captions) == ["levels.png"]


def test_a_page_needs_nothing_else_and_says_what_the_files_say(run):
    text = (run / "report.html").read_text()
    page = Page(text)
    assert (
        not page.open
        and all(address.startswith("data:") for address in page.addresses)
        and "<script" not in text
    )
    figures = len(list((run / "figures").glob("*.png"))) + len(
        list((run / "inspection").glob("*.png"))
    )
    assert sum(address.startswith("data:image/png") for address in page.addresses) == figures
    assert sum(address.startswith("data:image/svg") for address in page.addresses) == 3, (
        "the formulas of p(z), p(x | z), q(z | x)"
    )
    assert text.count("<figure class=broad>") >= 1, "reconstructions, in the width of the page"
    words = " ".join(" ".join(page.words).split())
    assert "activation=ReLU" in words, "a class by its name"
    scores = json.loads((run / "evaluation.json").read_text())
    program = pv.load(run)
    for expected in (
        "CVAE on digits",
        scores["data"]["sha256"],
        f"{scores['elbo']['mean']:.2f}",
        f"{scores['log_likelihood']['se']:.2f}",
        f"{sum(p.numel() for p in program.parameters()):,} parameters",
        "StandardNormal",
        "p(x | z)",
        "pyro-vae train recipe.yaml",
        "epochs: 2",
        "linear probe",
    ):
        assert expected in words, expected
    above = scores["pareto_k"]["above_threshold"]
    assert (f"for {above} of 30 data: their log p(x) is likely too low" in words) == bool(above)
    assert "too few draws to state an error" in words, "K = 20"


@pytest.mark.parametrize(
    "tail, shown",
    [
        ({"above_threshold": 0, "share_of_bounds": 0.0}, "-27.64 0.19 0.0016"),
        ({"above_threshold": 0}, "-27.64 0.19 0.0016"),  # as version 0.1.0 wrote it
        ({"above_threshold": 3, "share_of_bounds": 0.1}, "at least -27.64 0.19 unknown"),
        ({"above_threshold": 3}, "at least -27.64 0.19 unknown"),
        ({"above_threshold": None}, "at least -27.64 0.19 unknown"),
    ],
)
def test_a_score_whose_pareto_k_is_too_high_is_shown_as_a_bound(tail, shown):
    scores = {
        "elbo": {"mean": -28.0, "se": 0.2, "mc_se": 0.001},
        "log_likelihood": {"mean": -27.64, "se": 0.19, "mc_se": 0.0016, "num_samples": 1000},
        "pareto_k": {"median": 0.3, "max": 0.5, "threshold": 0.67, **tail},
        "bits_per_dim": 0.6,
        "num_data": 30,
    }
    words = " ".join(" ".join(Page(scores_section(scores, "run")).words).split())
    assert f"log p(x), K = 1,000 {shown}" in words
    assert ("at most 0.6000" in words) == ("at least" in shown)


@pytest.mark.parametrize(
    "shape, said, never",
    [
        ((None, None, 30), "takes one value of a discrete latent", "above or near 0.67 for"),
        ((0.3, None, 12), "above or near 0.67 for 12 of 30 data", "one value of a discrete latent"),
        ((0.3, 0.9, 12), "above or near 0.67 for 12 of 30 data", "one value of a discrete latent"),
    ],
)
def test_an_infinite_pareto_k_of_some_data_is_not_one_of_all(shape, said, never):
    found = dict(zip(("median", "max", "above_threshold"), shape))
    scores = {
        "log_likelihood": {"mean": -27.64, "se": 0.19, "mc_se": 0.0016, "num_samples": 1000},
        "pareto_k": {**found, "threshold": 0.67},
        "num_data": 30,
    }
    warnings = " ".join(score_warnings(scores))
    assert said in warnings and never not in warnings


def test_a_page_of_a_run_without_scores_tells_how_to_make_them(tmp_path):
    program = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, pv.networks.MLP(2, [4])),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    pv.save(program, tmp_path / "a<b")
    text = report(tmp_path / "a<b", program)
    assert (
        "pyro-vae evaluate a&lt;b" in text
        and "pyro-vae inspect a&lt;b" in text
        and not Page(text).open
    )


def test_an_autoencoder_has_a_page_too_with_what_it_has_in_place_of_a_bound(tmp_path):
    run = tmp_path / "ae"
    assert main(["train", "--prior", "Flat", "--posterior", "Delta", "--out", str(run), *FAST]) == 0
    assert main(["inspect", str(run), "--limit", "60", "--num-samples", "20"]) == 0
    assert main(["report", str(run)]) == 0
    scores = json.loads((run / "evaluation.json").read_text())
    found = json.loads((run / "inspection" / "inspection.json").read_text())
    assert {
        "latents.png",
        "neighbours.png",
        "interpolation.png",
        "paths.png",
        "tangent.png",
    } <= found["captions"].keys()
    assert (
        any("flat prior" in warning for warning in found["warnings"])
        and "manifold.png" not in found["captions"]
    )
    idata = arviz().from_netcdf(str(run / "posterior.nc"))
    assert group_of(idata, "prior") is None and group_of(idata, "posterior_predictive") is not None
    words = " ".join(" ".join(Page((run / "report.html").read_text()).words).split())
    for expected in (
        "VAE on digits",
        "minus the loss",
        f"{scores['squared_error']['mean']:.5g}",
        "neither an ELBO nor a log p(x)",
        f"pyro-vae evaluate ae --split test --limit {scores['num_data']} --seed 0",
    ):
        assert expected in words, expected
    assert "None yet" not in words


def test_what_is_wrong_ends_in_one_line(run, capsys, tmp_path):
    for argv in (
        ["report", tmp_path],
        ["inspect", tmp_path],
        ["inspect", run, "--limit", "1"],
        ["inspect", run, "--outside", "wine"],
    ):
        assert main([str(part) for part in argv]) == 2
        (line,) = (
            line for line in capsys.readouterr().err.splitlines() if line.startswith("pyro-vae: ")
        )
        assert ": got " in line
    shutil.copytree(run, tmp_path / "broken")
    (tmp_path / "broken" / "evaluation.json").write_text("{")
    assert (
        main(["report", str(tmp_path / "broken")]) == 2
        and "evaluation.json" in capsys.readouterr().err
    )


def test_an_inspection_by_version_0_1_0_is_shown_and_another_is_refused_in_one_line(
    run, tmp_path, capsys
):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "inspection" / "inspection.json"
    found = json.loads(path.read_text())
    found |= {
        "numbers": {"active dimensions of the latent": "4 of 20"},
        "warnings": ["The encoder is measurably wrong for 1 of 1 data."],
    }
    del found["checksum"]  # that version wrote none
    path.write_text(json.dumps(found))
    words = " ".join(" ".join(Page(report(tmp_path / "run", pv.load(run))).words).split())
    assert "4 of 20" in words and "measurably wrong for 1 of 1" in words
    for numbers in ({"active_dims": 2}, ["a"]):
        path.write_text(json.dumps(found | {"numbers": numbers}))
        assert main(["report", str(tmp_path / "run")]) == 2
        assert "inspection.json, which cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_every_image_and_nothing_wider_than_the_screen(run, tmp_path, width):
    # The page has no script; one is added that measures it, once all that it loads is there.
    measure = """<script>addEventListener('load', () => {
        const images = [...document.images], page = document.documentElement
        document.title = JSON.stringify({
            drawn: images.filter(i => i.complete && i.naturalWidth > 0).length,
            images: images.length,
            page: page.scrollWidth,
            screen: innerWidth,
            shown: Math.min(...images.map(i => i.clientWidth)),
            text: parseFloat(getComputedStyle(document.body).fontSize)
        })
    })</script>"""
    # A headless window is at least 500 pixels wide; a frame can be as narrow as a phone.
    page = (run / "report.html").read_text().replace("<head>", "<head>" + measure)
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "frame.html").write_text(
        f'<iframe id=f src="page.html" style="border:0;width:{width}px;height:2000px"></iframe>'
        "<script>addEventListener('load', () => "
        "document.body.append(document.getElementById('f').contentDocument.title))</script>"
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000",
            "--window-size=1400,2000",
            "--dump-dom",
            str(tmp_path / "frame.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(re.search(r"\{.*?\}", done.stdout.partition("</script>")[2]).group())
    assert seen["drawn"] == seen["images"] > 10
    assert (
        seen["screen"] == width
        and seen["page"] <= width
        and seen["text"] >= 15
        and seen["shown"] > 0
    )


# figures


def test_a_hierarchy_is_held_against_nuts_at_all_its_levels(tmp_path, quick_chains):
    q, net = pv.posteriors.DiagonalNormal, pv.networks.MLP
    program = pv.HierarchicalVAE(
        priors=[q(2, net(1, [3])), pv.priors.StandardNormal(1)],
        likelihood=pv.likelihoods.Normal(4, net(2, [3])),
        posteriors=[q(2, net(4, [3])), q(1, net(2, [3]))],
        inference="bottom_up",
    )
    data = pv.datasets.Dataset(torch.randn(40, 4))
    gallery = inspect(program, data, data, tmp_path, reference=1, reference_draws=80)
    found = gallery.numbers.reference
    assert found is not None and found.num_data == 1 and found.r_hat > 0.9
    assert {"reference.png", "reference_pairs.png"} <= set(gallery.captions)
    explored = Explored("a", program, data, num_samples=20)
    assert explored.reference(1, pv.diagnostics.NUTS(2, warmup=20), 40).r_hat > 0.9


def test_a_program_without_images_or_labels_has_its_figures_too(tmp_path):
    from closed_forms import LinearGaussian

    torch.set_default_dtype(torch.float64)
    exact = LinearGaussian(3, features=5)
    data = pv.datasets.Dataset(exact.data(60), name="pca")
    gallery = inspect(exact.program(), data, data, tmp_path, reference=0)
    assert (
        set(gallery.captions) == {"latents.png", "aggregate.png", "graph.png", "tangent.png"}
        and not gallery.warnings
    )
    assert (gallery.numbers.active_dims, gallery.numbers.latent_dims) == (3, 3)
    assert gallery.numbers.local_dimension.median == 3
    facts = facts_of(gallery.numbers)
    assert facts["active dimensions of the latent"] == "3 of 3"
    assert facts["local dimension of the decoder"].startswith("3 ")


@pytest.mark.parametrize("known, names", [(9, ["linear"]), (10, ["linear", "10"])])
def test_labels_are_probed_by_as_many_neighbours_as_there_are(known, names, tmp_path):
    torch.manual_seed(0)
    labels = torch.arange(20) % 3
    labels[known:] = -1
    data = pv.datasets.Dataset(torch.zeros(20, 1, 8, 8), labels)
    gallery = Gallery(tmp_path)
    probe_labels(Subject(small_vae(), data, data, "z", torch.randn(20, 2), 0), gallery)
    assert [probe.classifier.split()[0] for probe in gallery.numbers.probes] == names


class Given(torch.nn.Module):
    """q(z | x) whose latent is x itself."""

    def __init__(self, latent, around):
        super().__init__()
        self.latent, self.around = (latent,), around

    def forward(self, features, *, context=None):
        return self.around(features)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_latent_of_small_variance_that_carries_the_data_has_not_collapsed(is_told, tmp_path):
    uniform = pv.distributions.SphericalUniform(torch.zeros(150))

    def around(x):
        told = pv.distributions.VonMisesFisher(x, torch.tensor(2000.0))
        return told if is_told else uniform.expand(x.shape[:-1])

    program = pv.VAE(
        pv.priors.UniformOnSphere(150),
        pv.likelihoods.Normal(150, pv.networks.MLP(150, [])),
        Given(150, around),
    )
    x = torch.nn.functional.normalize(torch.randn(300, 150), dim=1)
    data = pv.datasets.Dataset(x)
    gallery = inspect(program, data, data, tmp_path, reference=0)
    said = any("collapsed" in warning for warning in warnings_of(gallery.numbers))
    assert (gallery.numbers.active_dims == 150) == is_told and said != is_told


def test_figures_show_what_was_handed_in():
    images = torch.rand(6, 1, 4, 4)
    ax = plotting.plot_data(images, Figure().add_subplot(), columns=3, rows=["a", "b"], title="t")
    picture = ax.images[0].get_array()
    np.testing.assert_array_equal(picture[5:9, 5:9], images[4, 0])
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "a",
        "b",
    ] and ax.get_title() == "t"
    z = torch.randn(30, 2)
    seven = [
        plotting.plot_latents(z, Figure().add_subplot(), labels).collections[-1].get_facecolor()[0]
        for labels in (torch.tensor([7]).expand(30), torch.tensor([3, 7]).repeat(15))
    ]
    np.testing.assert_array_equal(*seven)  # a label has its colour whichever others occur
    axes = plotting.plot_pairs({"a": z, "b": z + 1}, Figure().subplots(2, 2))
    np.testing.assert_allclose(axes[1, 0].collections[1].get_offsets(), z + 1)
    assert not axes[0, 1].axison and len(axes[0, 1].get_legend().get_texts()) == 2


def test_clips_are_film_strips_or_one_exposure():
    clips = torch.rand(4, 5, 3, 6)
    picture = plotting.plot_data(clips, Figure().add_subplot(), columns=2).images[0].get_array()
    assert picture.shape == (2 * 4 - 1, 2 * (5 * 7) - 1)
    np.testing.assert_array_equal(picture[4:7, 7 * 2 : 7 * 2 + 6], clips[2, 2])
    assert plotting.plot_data(torch.rand(64, 1, 4, 4), Figure().add_subplot()).images[
        0
    ].get_array().shape == (39, 39)
    pairs = (
        plotting.plot_reconstructions(clips, 1 - clips, Figure().add_subplot())
        .images[0]
        .get_array()
    )
    np.testing.assert_allclose(pairs[:3, :6] + pairs[4:7, :6], 1, atol=1e-6)
    lit = torch.zeros(1, 5, 2, 2)
    lit[0, 0, 0, 0] = lit[0, 4, 1, 1] = 1.0
    exposed = plotting.still(lit)[0]
    assert (
        exposed[2, 0, 0] > exposed[1, 0, 0]
        and exposed[1, 1, 1] > exposed[2, 1, 1]
        and exposed[:, 0, 1].sum() == 0
    )
    assert torch.equal(plotting.still(clips[:, :3]), clips[:, :3])


def test_the_graph_joins_neighbours_and_ellipses_are_the_metrics():
    z, labels = (
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [6.5, 0.0]]),
        torch.tensor([0, 0, 0, 1]),
    )
    same, different = plotting.plot_neighbours(
        z, neighbours(z, 1), Figure().add_subplot(), labels
    ).collections[-2:]
    joined = [
        sorted(line[:, 0].tolist()) for lines in (same, different) for line in lines.get_segments()
    ]
    assert (
        joined == [[0.0, 1.0], [0.0, 1.0], [5.0, 6.5], [5.0, 6.5]]
        and len(different.get_segments()) == 2
    )
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    jacobian = (turn @ torch.diag(torch.tensor([4.0, 1.0])) @ turn.mT).expand(4, 2, 2)
    planes = TangentPlane(jacobian, *torch.linalg.svd(jacobian)[:2])
    ellipses = plotting.plot_tangent_planes(
        z, z, planes, Figure().add_subplot(), labels
    ).collections[-1]
    widths, heights = ellipses.get_widths(), ellipses.get_heights()
    np.testing.assert_allclose(
        widths / heights, 4.0, rtol=1e-6
    )  # the least stretched direction is the longest axis
    along = turn[:, 1] * torch.sign(turn[0, 1])
    np.testing.assert_allclose(
        np.tan(np.radians(ellipses.get_angles())), (along[1] / along[0]).item(), rtol=1e-5
    )


def test_a_history_says_where_it_ended():
    rows = [
        {"epoch": 1, "objective": -5.0, "validation_elbo": None},
        {"epoch": 2, "objective": -4.5, "validation_elbo": None},
    ]
    assert (
        repr(History(rows)) == "History(2 epochs, the last: epoch=2, objective=-4.5)"
        and repr(History()) == "History(no epochs)"
    )


@pytest.mark.parametrize(
    ("inference", "skip", "roles"),
    [
        ("bottom_up", False, ["p(z_1 | z_2)", "p(z_2)", "q(z_1 | x)", "q(z_2 | z_1)",
                             "p(x | z_1)"]),
        ("top_down", True, ["p(z_1 | z_2)", "p(z_2)", "q(z_1 | x, z_2)", "q(z_2 | x)",
                            "p(x | z_1, z_2)"]),
    ],
)  # fmt: skip
def test_each_level_of_a_hierarchy_has_the_density_that_it_is(inference, skip, roles):
    q, net, down = pv.posteriors.DiagonalNormal, pv.networks.MLP, inference == "top_down"
    program = pv.HierarchicalVAE(
        priors=[q(3, net(2, [4])), pv.priors.StandardNormal(2)],
        likelihood=pv.likelihoods.Normal(5, net(3, [4], context=2 * skip)),
        posteriors=[q(3, net(5, [4], context=2 * down)), q(2, net(5 if down else 3, [4]))],
        inference=inference,
        skip=skip,
    )
    page = model_section(program)
    assert re.findall(r"<h3>(.*?):", page) == roles
    of_levels = [alt for alt in re.findall(r'alt="(.*?)"', page)]
    for role, alt in zip(roles, of_levels, strict=True):
        assert alt.startswith(role.replace("|", r"\mid")), alt
    assert "ModuleList" not in page
