"""Progress bars: in a terminal, and as text in a notebook, with no widgets."""

import sys
import types

import pytest
import rich.console

from pyro_vae.runtime import progress


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook shows: the texts that one cell's output has had, the last one last."""
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        assert raw and display_id and data.keys() == {"text/plain"}
        shown.append(data["text/plain"])
        return Handle()

    module = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **options: rich.console.Console(**({"force_jupyter": True} | options)),
    )
    return shown


def test_a_notebook_shows_one_line_that_ends_complete(notebook, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress.progress_bar("epochs", total=3, start=1) as advance:
        advance(1, note="objective -99.10")
        advance(1, note="objective -98.20")
    first, last = notebook[0], notebook[-1]
    assert "1/3" in first and "3/3 objective -98.20" in last
    assert all(len(text.splitlines()) == 1 and "\x1b" not in text for text in notebook)
    assert first.count("━") < last.count("━")


def test_a_fast_loop_does_not_flood_a_notebook(notebook, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 3600.0)
    with progress.progress_bar("draws", total=1000) as advance:
        for _ in range(1000):
            advance(1)
    assert len(notebook) == 2 and "1000/1000" in notebook[-1]


def test_an_error_leaves_the_bar_where_it_was(notebook):
    with pytest.raises(KeyboardInterrupt), progress.progress_bar("epochs", total=3) as advance:
        advance(1, note="objective -99.10")
        raise KeyboardInterrupt
    assert "1/3 objective -99.10" in notebook[-1]


def test_a_bar_that_is_not_shown_shows_nothing(notebook, capsys):
    with progress.progress_bar("epochs", total=3, shown=False) as advance:
        advance(3)
    assert notebook == [] and capsys.readouterr() == ("", "")


def test_a_terminal_has_its_bar_on_standard_error(capsys):
    with progress.progress_bar("epochs", total=2) as advance:
        advance(2, note="done")
    out, err = capsys.readouterr()
    assert out == "" and "2/2 done" in err
