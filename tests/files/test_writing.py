"""Everything that the library writes goes through one writer."""

import ast
from pathlib import Path

import pytest

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
WRITER = {PACKAGE / "files" / "writing.py", PACKAGE / "checkpoint" / "commit.py"}

# Methods and functions that write, remove or rename, whatever they are called on.
WRITES = {
    *("write_bytes", "write_text", "savefig", "to_netcdf", "save_file", "tofile", "savez"),
    *("savez_compressed", "SummaryWriter", "rename", "replace_file", "unlink", "rmtree", "mkdir"),
    *("touch", "copyfile", "copytree", "symlink_to", "hardlink_to", "mkstemp", "mkdtemp"),
    *("export_html", "save_html", "save_svg", "memmap", "savetxt", "imsave"),
}
# Of these, calls that write to memory, to a file of the writer's, or are the writer.
INTO_MEMORY = {
    "savefig": "picture",
    "savez_compressed": "whole",
    "savez": "whole",
    "to_netcdf": None,
}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
            name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
            yield node, owner, name


def is_writing(node, owner, name):
    if name in ("write_bytes", "write_text"):  # the writer's own take the path as an argument
        return owner not in ("", "checkpoint")
    if name == "open" and owner in ("", "io", "os", "path"):
        modes = [ast.unparse(each) for each in [*node.args[1:], *(k.value for k in node.keywords)]]
        if owner == "os" and ast.unparse(node.args[0]) == "os.devnull":
            return False
        if owner == "os":
            return any(flag in mode for mode in modes for flag in ("WRONLY", "RDWR", "CREAT"))
        return any(set(mode) & set("wax+") for mode in modes)
    if name in INTO_MEMORY:
        target = node.args[0] if node.args else None
        return not (isinstance(target, ast.Constant) and target.value is None) and (
            target is None or ast.unparse(target) != INTO_MEMORY[name]
        )
    if name == "save" and owner in ("torch", "image", "np", "numpy", "figure"):
        return True
    return name in WRITES


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path not in WRITER],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_only_the_writer_writes(path):
    found = [
        f"{path.name}:{node.lineno} {name}"
        for node, *rest in calls(path)
        for name in rest[1:]
        if is_writing(node, *rest)
    ]
    assert not found, f"{found}: write through pyro_vae.checkpoint"


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "w")', 'path.write_text("a")', "figure.savefig(path)", "np.savez(path, x=x)",
        "data.to_netcdf(path)", 'os.open(path, os.O_WRONLY)', "os.rename(a, b)", "torch.save(x, p)",
        "safetensors.torch.save_file(x, path)", "path.mkdir()", 'io.open(path, mode="ab")',
    ],
)  # fmt: skip
def test_a_write_elsewhere_is_seen(line, tmp_path):
    (tmp_path / "a.py").write_text(line)
    assert any(is_writing(*call) for call in calls(tmp_path / "a.py"))
