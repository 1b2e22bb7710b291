"""What tests of the command line share: options of a run of seconds, and how a mistake is told."""

from pyro_vae.cli import main

# Of a score at the end of a training run that no test looks at; a resumed run does not keep them.
FEW = ["--num-samples", "20", "--limit", "30"]

FAST = [
    "--epochs",
    "2",
    *FEW,
    "--encoder.hidden",
    "[16]",
    "--decoder.hidden=[16]",
    "--latent",
    "2",
]


def fails(capsys, *argv):
    """Runs a command that must fail by the user's mistake; returns the one line that it wrote."""
    assert main(list(map(str, argv))) == 2
    _out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("pyro-vae: ")]
    assert (
        err.count("Traceback") == 0
        and len(lines) == 1
        and err.rstrip().splitlines()[-1] == lines[0]
    ), err
    assert ": got " in lines[0] and ", expected " in lines[0] and "; " in lines[0]
    return lines[0]
