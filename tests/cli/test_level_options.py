"""Mistakes in levels and in kinds of cells: one line that names what is wrong."""

import re
import sys

import pytest
from commands import FEW, fails

RECIPE = """
program: LadderVAE
levels: [{shape: [2, 4, 4]}, {shape: [3, 2, 2]}]
posterior: RelativeNormal
encoder: {class_path: Cells, init_args: {width: 6}}
decoder: {class_path: Cells, init_args: {width: 4}}
"""
LAB = """
import torch
from pyro_vae.networks.cells import Cell

class Wider(Cell):
    def branch(self, channels, size):
        return torch.nn.Conv2d(channels, channels + 1, 1)
"""


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--levels", "[{shape: [2, 4, 4], cell: 1}, {shape: [3]}]"],
            r"levels\.cell: .* one of sh",
        ),
        (["--levels", "[{shape: [0, 4, 4]}, {shape: [3]}]"], r"levels\.shape: got 0"),
        (["--encoder.kind", "Plane"], r"encoder\.kind: got 'Plane'.* did you mean 'Plain'\?"),
        (["--encoder.kind", "wide_lab.Wide"], r"a name that wide_lab does not.* 'Wider'\?"),
        (["--encoder.kind", "wide_lab.Wider"], r"kind: got Wider, .*\(6, 8, 8\) into \(7, 8, 8\)"),
    ],
)
def test_a_mistake_is_one_line(flags, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "ladder.yaml").write_text(RECIPE)
    (tmp_path / "wide_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wide_lab", raising=False)
    options = ["--out", tmp_path / "run", "--trust", "wide_lab", "--compile", "off", *FEW]
    line = fails(capsys, "train", tmp_path / "ladder.yaml", "--epochs", "1", *options, *flags)
    assert re.search(message, line), line
