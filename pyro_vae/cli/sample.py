"""sample RUN: new data from a run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pyro_vae import checkpoint, plotting
from pyro_vae.cli.contexts import example_of, in_own_units, parse_context
from pyro_vae.cli.options import parse
from pyro_vae.cli.outputs import check_replaceable, marked_wav, npz, write_output
from pyro_vae.cli.parsers import CommandParser, new_parser
from pyro_vae.cli.run_data import read_data
from pyro_vae.cli.runs import add_run_arguments, load_run, vocabulary_of
from pyro_vae.cli.terminal import console_of
from pyro_vae.contracts import num_classes_of
from pyro_vae.datasets.spectrograms import wav, waveform
from pyro_vae.programs import is_unconditional
from pyro_vae.runtime.environment import isolated_random
from pyro_vae.runtime.predictive import generate
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    check_count,
    counted,
    printable,
    tensors_of,
)

COMMAND = "pyro-vae sample"
CHANNELS = (1, 2)  # of a sound


def arguments() -> CommandParser:
    """The parser of its options."""
    parser = new_parser(
        "sample",
        "New data from a run: the mean of p(x | z) for each draw of z from the prior. Where x has "
        "no mean, as text has none, its mode.",
    )
    add_run_arguments(parser)
    parser.add_argument("--num", type=int, default=64, help="how many to draw")
    parser.add_argument(
        "--context",
        type=str,
        default=None,
        help="a label or its name, covariates separated by commas, or columns of a table as "
        "island=Biscoe,year=2007, those of known quantities among them; by default the labels "
        "in turn",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="what the scales of the prior's normals are multiplied by, at every level",
    )
    parser.add_argument("--draws", action="store_true", help="draws of x instead of means or modes")
    parser.add_argument(
        "--out",
        type=str,
        default=None,
        help="a .png or .npz file, of several sites an array each; for text also .txt; for a "
        "table also .csv; for waveforms and log-spectrograms also .wav, the sounds one after "
        "another; by default RUN/samples.png, for text RUN/samples.txt",
    )
    parser.add_argument(
        "--rate", type=int, default=8000, help="samples a second of a .wav, as the data have"
    )
    return parser


def run(argv: list[str]) -> None:
    options = parse(arguments(), argv)
    check_count("num", options.num)
    check_count("rate", options.rate)
    folder, program = load_run(options)
    vocabulary = vocabulary_of(folder)
    known = read_data(folder)
    kinds = [".png", ".npz", ".wav"] if vocabulary is None else [".txt", ".png", ".npz"]
    kinds += [".csv"] if known.columns is not None else []
    kinds = [".png", ".npz"] if isinstance(program.event_shape, dict) else kinds
    target = Path(options.out) if options.out else folder / f"samples{kinds[0]}"
    check_choice("out", target.suffix, kinds)
    checkpoint.check_writable(target.parent)
    if options.out and target.suffix not in (".txt", ".csv"):  # which carry no name
        check_replaceable(target, COMMAND)
    context = parse_context(program, options.context, options.num, known)
    try:
        found = generate(
            program,
            options.num,
            context=context,
            draws=options.draws,
            temperature=options.temperature,
            seed=options.seed,
        )
    except InvalidInput as error:
        classes = num_classes_of(program)
        if error.argument != "context" or classes is None or options.context is None:
            raise
        example = example_of(program, known.context_columns)
        raise InvalidInput(
            "context",
            got=error.got,
            expected=f"one label of 0 to {classes - 1}"
            + (", or its name" if known.context_columns else ""),
            fix=f"pass for instance --context {example}",
        ) from error
    except (TypeError, AttributeError) as error:
        if context is not None or is_unconditional(program):
            raise
        raise InvalidInput(
            "context",
            got=f"none, without which the model fails ({error})",
            expected="the context that it takes",
            fix="pass it: --context 2, or --context 0.5,1",
        ) from error
    sites = {name or "x": part.cpu() for name, part in tensors_of(found).items()}
    x = next(iter(sites.values()))  # the only one, but for .npz and pictures
    if target.suffix == ".csv" and known.columns is not None:
        data = known.columns.frame(x).to_csv(index=False).encode()
    elif target.suffix == ".npz":
        sites = sites if known.columns is None else {"x": known.columns.restore(x)}
        given = {name: part.cpu() for name, part in in_own_units(context, known).items()}
        data = npz(COMMAND, **{name: part.numpy() for name, part in (given | sites).items()})
    elif target.suffix == ".txt" and vocabulary is not None:
        lines = "".join(f"{line}\n" for line in vocabulary.decode(x))
        data = lines.encode()
        print(printable(lines), end="")
    elif target.suffix == ".wav":
        with isolated_random(x.device, options.seed):
            data = marked_wav(COMMAND, wav(_one_after_another(x), options.rate))
    else:
        data = plotting.figure_png(
            plotting.data_plots(
                found,
                vocabulary=vocabulary,
                entries=[] if known.columns is None else known.columns.names,
            ),
            (6, 6),
            COMMAND,
        )
    if options.out:
        write_output(target, data, COMMAND)
    else:
        checkpoint.write_bytes(target, data)
    console_of().print(
        f"{counted(options.num, 'sample')} in {target}", highlight=False, soft_wrap=True
    )


def _one_after_another(x: Tensor) -> Tensor:
    """Waveforms (N, C, T), or the sounds of log-spectrograms (N, 129, F), as one: (C, N T)."""
    is_sound = x.dim() == 3 and x.shape[1] in CHANNELS and x.shape[2] > max(CHANNELS)
    sounds = x if is_sound else waveform(x)[:, None]
    return sounds.transpose(0, 1).flatten(1)
