"""What commands write replaces nothing of anybody else, and no page shows what lies elsewhere."""

import json
import os
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands import FAST, fails
from mutations import with_checksum

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli import main
from pyro_vae.cli.outputs import marked_wav, npz, write_output
from pyro_vae.report.findings import Findings, LocalDimension, TwoSample
from pyro_vae.report.page import report
from pyro_vae.validation import InvalidInput

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--out", str(folder), *FAST]) == 0
    return folder


@pytest.fixture(scope="module")
def second(run):
    shutil.copytree(run, run.parent / "second")
    return run.parent / "second"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [".bashrc", "a.json", "link.json", "pipe.json", "folder.json"])
def test_compare_replaces_only_what_it_wrote(capsys, tmp_path, run, second, name):
    (tmp_path / ".bashrc").write_text("alias vae=pyro-vae compare\n")
    (tmp_path / "a.json").write_text(json.dumps({"versions": {"pyro-vae": "0.1.0"}}))
    (tmp_path / "link.json").symlink_to(tmp_path / ".bashrc")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    kept = contents(tmp_path)
    assert "out: got" in fails(capsys, "compare", run, second, "--out", tmp_path / name)
    assert contents(tmp_path) == kept


def test_a_command_replaces_its_own_output(tmp_path, run, second, real_figures):
    for score in ("elbo", "log_likelihood"):
        argv = ["compare", str(run), str(second), "--out", str(tmp_path / "c.json")]
        assert main([*argv, "--score", score]) == 0
        assert json.loads((tmp_path / "c.json").read_text())["score"] == score
    for name in ("a.png", "a.npz"):
        for num in (3, 5):
            argv = ["sample", str(run), "--num", str(num), "--out", str(tmp_path / name)]
            assert main(argv) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays.files == ["x"] and arrays["x"].shape == (5, 1, 8, 8)


@pytest.mark.parametrize("name", ["figures/training.png", "evaluation.npz"])
def test_sample_replaces_no_other_file_of_the_run(capsys, run, name):
    kept = contents(run)
    assert "pyro-vae sample did not write" in fails(capsys, "sample", run, "--out", run / name)
    assert contents(run) == kept


def test_the_mark_of_a_command_is_found_in_every_format(tmp_path):
    sound = b"RIFF" + (36).to_bytes(4, "little") + b"WAVE" + b"\0" * 32
    for i, data in enumerate(
        [npz("pyro-vae sample", x=np.zeros(9999)), marked_wav("pyro-vae sample", sound * 99)]
    ):
        write_output(tmp_path / str(i), data, "pyro-vae sample")
        write_output(tmp_path / str(i), data[::-1], "pyro-vae sample")  # replaced, as its own
        with pytest.raises(InvalidInput, match="did not write"):
            write_output(tmp_path / str(i), data, "pyro-vae sample")
    write_output(tmp_path / "a.txt", b"the same words", "pyro-vae sample")
    write_output(tmp_path / "a.txt", b"the same words", "pyro-vae sample")
    with pytest.raises(InvalidInput, match="did not write"):
        write_output(tmp_path / "a.txt", b"other words", "pyro-vae sample")


MINE = ("recipe.yaml", "vocabulary.txt", "evaluation.json", "metrics.csv", "figures/latents.png")


@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["fresh", "resume"])
def test_training_replaces_nobody_s_files(capsys, tmp_path, monkeypatch, name, resume):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("epochs: 2\n")
    assert "out: got" in fails(capsys, "train", "--out", ".", *FAST, *resume)
    assert Path(name).read_text() == "epochs: 2\n" and not Path("program.json").exists()


def test_a_refused_second_process_changes_nothing(capsys, tmp_path):
    folder = tmp_path / "run"
    with checkpoint.claimed(folder):
        (folder / "recipe.yaml").write_text("of the first\n")
        kept = contents(folder)
        found = []
        thread = threading.Thread(
            target=lambda: found.append(main(["train", "--out", str(folder), *FAST]))
        )
        thread.start()
        thread.join()
    assert found == [2] and "is training" in capsys.readouterr().err
    assert contents(folder) == kept


@pytest.mark.parametrize("start", ["nothing", "a recipe of ours", "a run"])
def test_resume_starts_what_has_not_begun(capsys, tmp_path, start):
    folder = tmp_path / "run"
    argv = ["train", "--out", str(folder), *FAST, "--resume"]
    if start != "nothing":
        assert main(argv) == 0
    if start == "a recipe of ours":  # killed just after it was written
        for path in folder.iterdir():
            if path.name != "recipe.yaml":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    capsys.readouterr()
    assert main(argv) == 0
    said = "holds no training yet, so it starts from the beginning" in capsys.readouterr().err
    assert said == (start != "a run")
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


# what a page shows


@pytest.fixture
def stranger(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(PNG + b"SECRET")
    (tmp_path / "secret.yaml").write_text("secret: SECRET")
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "run" / "inspection").mkdir()
    return tmp_path / "run"


def inspection(folder, name="a.png", caption="a"):
    findings = {"captions": {name: caption}, "numbers": {"a": "b"}, "warnings": []}
    (folder / "inspection" / "inspection.json").write_text(json.dumps(findings))


NAMES = [
    "../../secret.png",
    "/etc/hostname",
    "../../secret.json",
    "link.png",
    "a/../link.png",
    "a.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_no_file_but_figures_of_the_run(capsys, stranger, name):
    (stranger / "inspection" / "link.png").symlink_to(stranger.parent / "secret.png")
    (stranger / "inspection" / "a.png").write_bytes(b"<svg>SECRET")
    inspection(stranger, name)
    assert "inspection" in fails(capsys, "report", stranger)
    assert not (stranger / "report.html").exists()


@pytest.mark.parametrize("name", ["recipe.yaml", "evaluation.json", "training.json", "inspection"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_page_follows_no_link_out_of_the_run_and_waits_for_no_pipe(capsys, stranger, name, kind):
    target = stranger / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    if kind == "pipe":
        if name == "inspection":
            target.mkdir()
        os.mkfifo(target / "inspection.json" if name == "inspection" else target)
    elif name == "inspection":
        (stranger.parent / "elsewhere").mkdir()
        (stranger.parent / "elsewhere" / "inspection.json").write_text("{}")
        target.symlink_to(stranger.parent / "elsewhere")
    else:
        target.symlink_to(stranger.parent / f"secret.{name.rpartition('.')[2]}")
    assert name in fails(capsys, "report", stranger)
    assert not (stranger / "report.html").exists()


def test_a_link_within_the_run_is_followed(stranger):
    (stranger / "recipe.yaml").rename(stranger / "kept.yaml")
    (stranger / "recipe.yaml").symlink_to("kept.yaml")
    assert main(["report", str(stranger)]) == 0


def test_everything_in_a_page_is_text(stranger):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    scores = json.loads((stranger / "evaluation.json").read_text())
    scores["data"] = dict.fromkeys(scores["data"], evil)
    scores["versions"] = {evil: evil}
    (stranger / "evaluation.json").write_text(json.dumps(with_checksum(scores)))
    settings = json.loads((stranger / "training.json").read_text())
    settings["settings"]["objective"] = {"class": evil}
    (stranger / "training.json").write_text(json.dumps(with_checksum(settings)))
    (stranger / "recipe.yaml").write_text(f"epochs: '{evil.replace(chr(39), chr(39) * 2)}'\n")
    name = "a<script>.png"
    (stranger / "inspection" / name).write_bytes(PNG + b"picture")
    findings = {"captions": {name: evil}, "numbers": {evil: evil}, "warnings": [evil]}
    (stranger / "inspection" / "inspection.json").write_text(json.dumps(findings))
    assert main(["report", str(stranger)]) == 0
    page = (stranger / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)") > 8
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", ["figures", "inspection", "tensorboard"])
def test_no_command_writes_through_a_linked_folder(capsys, stranger, name):
    (stranger.parent / "elsewhere").mkdir()
    if (stranger / name).exists():
        shutil.rmtree(stranger / name)
    (stranger / name).symlink_to(stranger.parent / "elsewhere")
    if name == "inspection":
        argv = ["inspect", stranger, "--reference", "0", "--limit", "9", "--num-samples", "3"]
    else:
        argv = ["train", "--out", stranger, "--resume", "--epochs", "3", "--log", "tensorboard"]
    assert "a symbolic link" in fails(capsys, *argv)
    assert not list((stranger.parent / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "name", ["evaluation.json", "evaluation.npz", "report.html", "samples.png"]
)
def test_no_command_writes_through_a_linked_file(stranger, name):
    mine = stranger.parent / "mine"
    mine.write_bytes(b"mine")
    (stranger / name).unlink(missing_ok=True)
    commands = {"report.html": ["report"], "samples.png": ["sample", "--num", "3"]}
    command, *flags = commands.get(name, ["evaluate", "--num-samples", "5", "--limit", "9"])
    (stranger / name).symlink_to(mine)
    if name.startswith("evaluation"):
        (stranger / "evaluation.json").unlink()
        (stranger / "evaluation.json").symlink_to(mine)
    assert main([command, str(stranger), *flags]) == 0
    assert mine.read_bytes() == b"mine" and not (stranger / name).is_symlink()


WRONG = [None, "<b>", "1; echo", [], {}, {"a": 1}, [[1]], -1, True, 1e300, 10**400, float("nan")]


def variants(values):
    """The same values with one of them replaced or left out, for each of them in turn."""
    for key in list(values):
        yield {name: value for name, value in values.items() if name != key}
        for wrong in WRONG:
            yield {**values, key: wrong}
        if isinstance(values[key], dict):
            yield from ({**values, key: inner} for inner in variants(values[key]))


@pytest.mark.parametrize("name", ["evaluation.json", "inspection/inspection.json", "training.json"])
def test_whatever_a_file_holds_is_a_page_or_one_line(stranger, monkeypatch, name):
    monkeypatch.setattr("pyro_vae.report.markup.formula", lambda latex: "")
    program, pages, refused = pv.load(stranger), 0, 0
    (stranger / "inspection" / "a.png").write_bytes(PNG)
    findings = {
        **asdict(Findings(2, 1, outliers=[])),
        "probes": [],
        "local_dimension": vars(LocalDimension(2.0, 9, 2, None)),
        "aggregate": vars(TwoSample(0.5, 0.1)),
    }
    inspection(stranger)
    values = json.loads((stranger / name).read_text())
    if name == "training.json":
        values = {"settings": {"objective": {"class": "ELBO"}, "schedule": None}}
    elif name.startswith("inspection"):
        values["numbers"] = findings
    tried = list(variants(values))[::5]
    for changed in tried:
        forged = with_checksum(changed) if isinstance(changed, dict) else changed
        (stranger / name).write_text(json.dumps(forged))
        try:
            page = report(stranger, program)
        except InvalidInput as error:
            refused += "\n" not in str(error)
        else:
            pages += (
                page.endswith("</html>\n") and "<b>" not in page and "split 1; echo" not in page
            )
    assert pages + refused == len(tried) and refused


@pytest.mark.parametrize(
    "argv, lower",
    [
        (["train", "--latent", str(10**12), "--out", "r"], "lower latent"),
        (["sample", "RUN", "--num", str(10**12)], "lower num"),
    ],
)
def test_out_of_memory_is_one_line_of_a_command(capsys, run, tmp_path, monkeypatch, argv, lower):
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, *(str(run) if word == "RUN" else word for word in argv))
    assert "memory: got" in said and "GiB more than the host has free" in said and lower in said


def test_scores_that_lie_outside_of_a_run_are_not_compared(capsys, stranger, second):
    elsewhere = stranger.parent / "elsewhere.npz"
    (stranger / "evaluation.npz").rename(elsewhere)
    (stranger / "evaluation.npz").symlink_to(elsewhere)
    assert "a link to a file outside" in fails(capsys, "compare", second, stranger)
