"""A run on the hub: a stand-in server gives what was pushed, and none of it is run."""

import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from commands import FAST, FEW, fails
from common import small_vae

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.cli import main
from pyro_vae.sharing import card, load_exported, push
from pyro_vae.validation import InvalidInput

huggingface_hub = pytest.importorskip("huggingface_hub")

pytestmark = pytest.mark.usefixtures("quick_figures")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Stored:
    """A hub that copies what is uploaded to a folder."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, []

    def create_repo(self, repo_id, *, private, exist_ok):
        self.made.append((repo_id, private))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        for path in Path(folder_path).rglob("*"):
            if path.is_file():
                target = self.folder / repo_id / path.relative_to(folder_path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


class Server(SimpleHTTPRequestHandler):
    """As much of the hub as a download needs: the list of files, and each of them."""

    def __init__(self, *args, folder, asked, **kwargs):
        self.folder, self.asked = folder, asked
        super().__init__(*args, **kwargs)

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            name = "/".join(path.split("/")[3:5])
            here = self.folder / name
            files = [p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()]
            if not files:
                return self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
            if "/tree/" in path:
                listed = [
                    {"type": "file", "path": f, "size": (here / f).stat().st_size, "oid": f}
                    for f in files
                ]
                return self.answer(json.dumps(listed).encode())
            siblings = [{"rfilename": file} for file in files]
            return self.answer(
                json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()
            )
        owner, name, _resolve, _revision, *rest = path.strip("/").split("/")
        file = self.folder / owner / name / "/".join(rest)
        self.asked.append(file.name)
        return self.answer(
            file.read_bytes(), headers={"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT}
        )

    def answer(self, body, status=200, headers=()):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine; its folder, and the names of the files that were asked for."""
    folder, asked = tmp_path / "hub", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, folder=folder, asked=asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        partial(huggingface_hub.snapshot_download, endpoint=url, token=False),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder, asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path):
    """A run with scores."""
    folder = tmp_path / "runs" / "mine"
    pv.save(small_vae(), folder)
    scores = {
        "elbo": {"mean": -20.5, "se": 0.31, "mc_se": 0.02, "num_samples": 10},
        "log_likelihood": {"mean": -19.25, "se": 0.3, "mc_se": 0.01, "num_samples": 100},
        "pareto_k": {"median": 0.2, "max": 0.4, "above_threshold": 0, "threshold": 0.5},
        "num_data": 60,
        "data": {"name": "digits", "split": "test", "binarize": "fixed", "sha256": "ab" * 32},
    }
    (folder / "evaluation.json").write_text(json.dumps(scores))
    (folder / "recipe.yaml").write_text("prior: StandardNormal\nlikelihood: Bernoulli\n")
    (folder / "commands.json").write_text("{}")
    (folder / "training.json").write_text("{}")
    return folder


def test_a_run_comes_back_as_it_was_pushed(hub, run):
    folder, _ = hub
    stored = Stored(folder)
    names = push(run, "ann/my-vae", hub=stored)
    assert stored.made == [("ann/my-vae", True)]
    assert {"README.md", "program.json", "recipe.yaml", "evaluation.json"} <= set(names)
    assert not {"commands.json", "training.json"} & set(names)
    pulled = pv.load("hf://ann/my-vae")
    ours = pv.load(run).state_dict()
    theirs = pulled.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_the_card_has_the_data_and_the_scores_with_their_errors(run):
    text = card(run, "ann/my-vae")
    assert "ab" * 32 in text and "| prior | `StandardNormal` |" in text
    assert "| ELBO | -20.50 | 0.31 | 0.02 | 10 |" in text
    assert "| log p(x) | -19.25 | 0.3 | 0.01 | 100 |" in text
    scores = json.loads((run / "evaluation.json").read_text())
    scores["pareto_k"]["above_threshold"] = 12
    (run / "evaluation.json").write_text(json.dumps(scores))
    assert "| log p(x) | >= -19.25 | 0.3 | unknown | 100 |" in card(run, "ann/my-vae")


def test_code_of_a_pulled_run_is_neither_fetched_nor_run(hub, run, tmp_path, monkeypatch, capsys):
    folder, asked = hub
    push(run, "eve/trap", hub=Stored(folder))
    (folder / "eve/trap/evil.py").write_text("raise SystemExit('ran')")
    (folder / "eve/trap/weights.pt").write_bytes(b"pickle")
    described = folder / "eve/trap/program.json"
    index = json.loads(described.read_text())
    index["program"]["args"]["prior"] = {"class": "evil.Prior", "args": {}}
    index.pop("checksum")
    described.write_text(json.dumps(index | {"format": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(checkpoint.Untrusted, match=r"evil\.Prior"):
        pv.load("hf://eve/trap")
    assert not {"evil.py", "weights.pt"} & set(asked) and "evil" not in sys.modules
    assert main(["pull", "eve/trap", "--out", "theirs"]) == 0
    assert "theirs" in capsys.readouterr().out and not list(Path("theirs").rglob("evil.py"))
    assert "--trust evil" in fails(capsys, "sample", "theirs")


def test_a_trained_run_goes_up_comes_down_and_is_exported_by_commands(
    hub, tmp_path, monkeypatch, capsys
):
    folder, _ = hub
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Stored(folder))
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert main(["train", "--out", ours, *FAST]) == 0
    capsys.readouterr()
    assert main(["push", ours, "ann/digits"]) == 0
    said = capsys.readouterr().out
    assert "hf://ann/digits" in said and "program.json" in said
    assert main(["pull", "ann/digits", "--out", theirs]) == 0
    pulled = json.loads((Path(theirs) / "evaluation.json").read_text())
    assert main(["evaluate", theirs, *FEW]) == 0
    found = json.loads((Path(theirs) / "evaluation.json").read_text())
    assert found["elbo"] == pulled["elbo"] and found["data"] == pulled["data"]
    assert main(["report", theirs]) == 0
    capsys.readouterr()
    made = tmp_path / "made"
    assert main(["export", theirs, "--out", str(made)]) == 0
    parts = ("encoder", "decoder", "sampler")
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{made / part}.pt2: as the program" for part in parts]
    x = pv.datasets.load("digits", binarize="none")[1].x[-5:]
    mean, _ = load_exported(made, trust=True).parts["encoder"](x)
    torch.testing.assert_close(mean, pv.encode(pv.load(ours), x)["z"], atol=1e-6, rtol=1e-5)
    assert "add --out FOLDER" in fails(capsys, "export", theirs)
    assert "did you mean 'onnx'?" in fails(
        capsys, "export", theirs, "--out", made, "--format", "onx"
    )


def test_a_hub_that_refuses_or_is_not_there_is_one_line(run, tmp_path, monkeypatch, capsys):
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert "hf auth login" in fails(capsys, "push", run, "ann/my-vae")

    class NotLoggedIn(Stored):
        def create_repo(self, repo_id, *, private, exist_ok):
            raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: NotLoggedIn(tmp_path))
    assert "no token" in fails(capsys, "push", run, "ann/my-vae")
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        partial(huggingface_hub.snapshot_download, endpoint="http://127.0.0.1:9", token=False),
    )
    assert "cannot be fetched" in fails(capsys, "pull", "ann/my-vae", "--out", tmp_path / "new")


def test_wrong_addresses_are_one_line(hub, run, tmp_path, capsys):
    assert "USER/NAME" in fails(capsys, "pull", "no-owner")
    assert "USER/NAME" in fails(capsys, "push", str(run), "../x")
    assert "cannot be fetched" in fails(capsys, "pull", "ann/nothing")
    assert "the folder of a run" in fails(capsys, "push", str(tmp_path), "ann/my-vae")
    with pytest.raises(InvalidInput, match="revision"):
        pv.load("hf://ann/my-vae@../..")


def test_a_pull_replaces_nobodys_files(hub, run, tmp_path, capsys):
    push(run, "ann/my-vae", hub=Stored(hub[0]))
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, kind in (("README.md", "file"), ("recipe.yaml", "file"), ("program.json", "link")):
        (tmp_path / "notes").write_text("mine")
        if kind == "link":
            (mine / name).symlink_to(tmp_path / "notes")
        else:
            (mine / name).write_text("mine")
        assert "pulling would replace" in fails(capsys, "pull", "ann/my-vae", "--out", mine) or (
            kind == "link"
        )
        assert (mine / name).read_text() == "mine" and len(list(mine.iterdir())) == 1
        (mine / name).unlink()
    for _ in range(2):  # the same again is no other file
        assert main(["pull", "ann/my-vae", "--out", str(mine)]) == 0
    assert (mine / "recipe.yaml").read_bytes() == (run / "recipe.yaml").read_bytes()


def test_a_user_without_a_home_pulls_to_a_folder(hub, run, tmp_path, capsys, monkeypatch):
    push(run, "ann/my-vae", hub=Stored(hub[0]))
    monkeypatch.setattr("pyro_vae.checkpoint.hub.cache_folder", lambda: None)
    assert "pull with --out" in fails(capsys, "pull", "ann/my-vae")
    assert main(["pull", "ann/my-vae", "--out", str(tmp_path / "theirs")]) == 0
    assert pv.load(tmp_path / "theirs").state_dict().keys() == pv.load(run).state_dict().keys()


@pytest.mark.parametrize("name", ["figures", "figures/a.png", "recipe.yaml", "weights"])
def test_nothing_outside_of_a_run_is_pushed(run, tmp_path, capsys, name, monkeypatch):
    stored = Stored(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stored)
    private = tmp_path / "private"
    private.mkdir()
    (private / "a.png").write_bytes(b"mine")
    if name == "weights":  # a name that is a pattern, or another file's
        index = json.loads((run / "program.json").read_text())
        for given in ("*", "commands.json", "../private/a.png"):
            (run / "program.json").write_text(json.dumps(index | {"weights": given}))
            assert "the folder of a run" in fails(capsys, "push", run, "ann/my-vae")
    else:
        (run / name).unlink(missing_ok=True)
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).symlink_to(private if name == "figures" else private / "a.png")
        assert "a link to a file outside" in fails(capsys, "push", run, "ann/my-vae")
    assert not stored.made


@pytest.mark.parametrize("name", ["evaluation.json", "data.json", "recipe.yaml"])
def test_a_card_of_damaged_files_is_one_line_and_holds_no_markup(run, name):
    for damaged in (b"\xff", b"[1]", b'{"elbo": 3}', b'{"data": {}}', b'{"name": 4}'):
        (run / name).write_bytes(damaged)
        try:
            card(run, "ann/my-vae")
        except InvalidInput as error:
            assert name in str(error)
    evil = {"prior": "`](http://evil) <script>|\n# no"}
    (run / "recipe.yaml").write_text(json.dumps(evil))
    for each in ("evaluation.json", "data.json"):
        (run / each).unlink(missing_ok=True)
    (line,) = [line for line in card(run, "ann/my-vae").splitlines() if "evil" in line]
    assert line == "| prior | `'](http://evil) <script>/ # no` |"
