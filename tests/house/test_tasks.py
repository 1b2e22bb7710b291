"""The tasks for people: what the justfile, the hooks, the workflow and `.ci/run` say agrees."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RECIPE = re.compile(r"^(\w+)(?: \*\w+)?:\n((?:    .*\n)+)", re.M)


def tasks() -> dict[str, list[str]]:
    """The commands of each task of the justfile."""
    found = RECIPE.findall((ROOT / "justfile").read_text())
    return {name: [line.strip() for line in lines.splitlines()] for name, lines in found}


def uv_commands(text: str) -> set[str]:
    """The commands run by uv in a text, without the options and files given to them."""
    return set(re.findall(r"uv run (ruff check|ruff format --check|mypy|pytest)", text))


def test_every_task_is_explained():
    lines = (ROOT / "justfile").read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"\w+.*:$", line)]
    assert len(starts) == len(tasks()) == 6
    assert all(lines[i - 1].startswith("# ") for i in starts)


def test_the_documents_name_tasks_that_exist():
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`just (\w+)", (ROOT / document).read_text()))
        assert named <= tasks().keys(), document
    assert tasks().keys() - {"default"} <= named


def test_people_and_machines_run_the_same_checks():
    just = uv_commands("\n".join(tasks()["check"] + tasks()["test"]))
    assert just == uv_commands((ROOT / ".ci" / "run").read_text())
    assert just == uv_commands((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert len(just) == 4


def test_what_the_tasks_run_exists():
    for script in re.findall(r"[\w/]+\.py", (ROOT / "justfile").read_text()):
        assert (ROOT / script).exists(), script


def test_the_hooks_are_local_and_format_what_is_checked():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["id"] for hook in repositories[0]["hooks"]} == {
        "ruff-check",
        "ruff-format",
        "mypy",
    }


def test_the_workflow_covers_the_versions_of_python():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
