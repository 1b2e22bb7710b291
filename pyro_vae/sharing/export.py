"""A program's encoder, decoder and sampler as files that need neither Pyro nor this library."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import safetensors.torch
import torch
from pyro import validation_enabled
from torch import Tensor, nn

from pyro_vae import checkpoint
from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.files.reading import MEGABYTE, Kind, parsing, read_bytes, read_json
from pyro_vae.programs import VAE
from pyro_vae.runtime.at_globals import at_globals
from pyro_vae.runtime.checks import checked_data
from pyro_vae.runtime.environment import evaluating
from pyro_vae.sharing.formats import FORMATS, Format, Graph
from pyro_vae.sharing.parts import Decoder, Encoder, Sampler
from pyro_vae.validation import InvalidInput, check_choice, short

__all__ = ["Exported", "export", "load_exported"]

NUM = 3  # data of the example that every reader is checked on
TOLERANCE = 1e-4  # of a value, relative to the largest of its tensor: runtimes round otherwise
MOST = 200  # letters of a reason
RANDOM = "draws that are no function of given noise"

FILES = Kind(
    "folder", "what pyro-vae export wrote", "export the run again", 4096 * MEGABYTE,
    checkpoint.CheckpointError,
)  # fmt: skip


OTHERS = Kind("folder", "a new folder", "choose another folder, or move that file elsewhere", 0)


class _Manifest(TypedDict):
    """The content of ``export.json``."""

    format: str
    parts: dict[str, _PartOf]
    left_out: dict[str, str]


class _PartOf(TypedDict):
    """A part: its file, and the names of what it takes and gives, in order."""

    file: str
    takes: list[str]
    gives: list[str]


@dataclass(frozen=True)
class Exported:
    """The parts of an exported program, by name, each a function of tensors.

    Args:
        parts: ``encoder`` from x to the mean and standard deviation of q(z | x), ``decoder`` from z
            to the mean of p(x | z), ``sampler`` from standard normals (N, D) to new data. Each
            takes the context last, if the program has one.
        noise_size: D, the standard normals of each datum that the sampler takes.
        left_out: parts that could not be exported, with the reason.
    """

    parts: Mapping[str, Graph]
    noise_size: int
    left_out: Mapping[str, str]


def export(
    program: ProgramLike,
    data: Data,
    folder: str | Path,
    format: Literal["torch", "onnx"] = "torch",
) -> Exported:
    r"""Write a program's encoder, decoder and sampler as graphs, and check each against it.

    The files are ``encoder``, ``decoder`` and ``sampler`` with the format's ending, an example
    ``check.safetensors``, and ``export.json``, which names what each part takes and gives. The
    sampler has no random numbers of its own: it maps standard normals to data.

    Args:
        program: a `pyro_vae.VAE`.
        data: a few data (N, \*event), with their context if the program takes one.
        folder: where to write.
        format: ``"torch"`` for `torch.export`, or ``"onnx"``, which takes the extra ``onnx``.

    Raises:
        InvalidInput: for another program, one none of whose parts can be exported, or a folder
            with other files of these names. A part that the format has no words for is left out.

    Example:
        >>> made = pv.sharing.export(vae, torch.zeros(3, 1, 8, 8), folder / "exported")
        >>> made.parts["decoder"](torch.zeros(5, 2))[0].shape
        torch.Size([5, 1, 8, 8])
    """
    check_choice("format", format, FORMATS)
    if not isinstance(program, VAE):
        raise InvalidInput(
            "program",
            got=type(program).__name__,
            expected="a VAE, of a prior, a likelihood and a posterior",
            fix="export another program with torch.export yourself: its parts are modules",
        )
    if at_globals(program, as_dataset(data)[:NUM]) is not program:
        raise InvalidInput(
            "program",
            got="global latents, which a graph does not draw",
            expected="a VAE of local latents",
            fix="train one without Bayesian and BayesianMixture",
        )
    folder, form = Path(folder), FORMATS[format]
    with evaluating(program, 0), validation_enabled(False):
        x, context = checked_data(program, as_dataset(data)[:NUM])
        context = context if program.context is not None or program.known else None
        if isinstance(x, dict) or isinstance(context, dict):
            raise InvalidInput(
                "context",
                got="a dictionary",
                expected="one tensor or none",
                fix="known quantities and several covariates are not exported yet",
            )
        examples, left_out = _examples(program, x, context)
        written: dict[str, tuple[bytes, Graph]] = {}
        for name, each in examples.items():
            try:
                written[name] = _written(form, each)
            except _NotExpressed as reason:
                left_out[name] = f"{format} cannot express it: {reason}"
    if not written:
        raise InvalidInput(
            "program",
            got=f"parts that cannot be exported ({'; '.join(left_out.values())})",
            expected="a part that is a function of its inputs",
            fix="use another likelihood or posterior"
            + ", or --format torch" * (format != "torch" and bool(examples)),
        )
    examples = {name: examples[name] for name in written}
    files = {f"{name}{form.suffix}": data for name, (data, _) in written.items()}
    manifest: _Manifest = {
        "format": format,
        "parts": {
            name: {"file": f"{name}{form.suffix}", "takes": each.takes, "gives": each.gives}
            for name, each in examples.items()
        },
        "left_out": left_out,
    }
    example = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, each in examples.items()
        for key, value in zip(each.takes + each.gives, [*each.given, *each.results])
    }
    files["check.safetensors"] = safetensors.torch.save(example)
    files["export.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    _check_replaceable(folder, list(files))
    checkpoint.commit(folder, files)
    graphs = {name: graph for name, (_, graph) in written.items()}
    return Exported(graphs, _noise_size(example), left_out)


def load_exported(folder: str | Path, *, trust: bool = False) -> Exported:
    """Read what `export` wrote, and run each part on its example.

    An ONNX file computes and does nothing else. Reading a file of `torch.export` runs whatever its
    author put there: that is done only with ``trust``.

    Args:
        folder: where it lies.
        trust: whether you exported it yourself, or know who did.

    Raises:
        CheckpointError: if a file is missing, a part gives other values than the program did, or
            it is of `torch.export` and not trusted.
    """
    folder = Path(folder)
    manifest = read_json(folder / "export.json", FILES, _Manifest, inside=folder)
    check_choice("format", manifest["format"], FORMATS)
    if FORMATS[manifest["format"]].is_code and not trust:
        raise checkpoint.CheckpointError(
            "folder",
            got=f"{folder}, files of torch.export, which run code when they are read",
            expected="files that you exported yourself, or ONNX",
            fix="pass trust=True if they are yours, or export the run with --format onnx",
        )
    names = ["check.safetensors", *(Path(part["file"]).name for part in manifest["parts"].values())]
    files = {name: read_bytes(folder / name, FILES, folder) for name in names}
    return _exported(folder, manifest, files)


def _exported(folder: Path, manifest: _Manifest, files: Mapping[str, bytes]) -> Exported:
    """The parts in the contents of a folder's files, each compared with the program."""
    with parsing(folder, FILES):
        form = FORMATS[manifest["format"]]
        example = safetensors.torch.load(files["check.safetensors"])
        parts = {
            name: _checked(form, name, part, files[Path(part["file"]).name], example)
            for name, part in manifest["parts"].items()
        }
        return Exported(parts, _noise_size(example), manifest["left_out"])


def _noise_size(example: Mapping[str, Tensor]) -> int:
    """How many numbers the sampler takes for a datum; 0 without a sampler."""
    return example.get("sampler.noise", torch.empty(0, 0)).shape[1]


def _check_replaceable(folder: Path, names: Sequence[str]) -> None:
    """Raise `InvalidInput` if files would be replaced that no earlier export wrote."""
    there = [name for name in names if os.path.lexists(folder / name)]
    ours = {"export.json", "check.safetensors"}
    with suppress(InvalidInput):
        manifest = read_json(folder / "export.json", FILES, _Manifest, inside=folder)
        ours |= {part["file"] for part in manifest["parts"].values()}
        there = [name for name in there if name not in ours]
    if there:
        OTHERS.refuse(folder / there[0], "a file that no export of this folder wrote")


@dataclass(frozen=True)
class _Example:
    """A part with inputs, and what the program makes of them."""

    part: nn.Module
    takes: list[str]
    given: list[Tensor]
    gives: list[str]
    results: tuple[Tensor, ...]


def _examples(
    vae: VAE, x: Tensor, context: Tensor | None
) -> tuple[dict[str, _Example], dict[str, str]]:
    """Each part that is a function of its inputs on a few data, and why the others are not."""
    found: dict[str, _Example] = {}
    left_out: dict[str, str] = {}
    more = {} if context is None else {"context": context}

    def add(name: str, part: nn.Module, inputs: dict[str, Tensor], gives: list[str]) -> None:
        takes, given = list(inputs), list(inputs.values())
        try:
            results, again = part(*given), part(*given)
        except NotImplementedError:
            left_out[name] = "its density has no mean in closed form"
            return
        if all(torch.equal(a, b) for a, b in zip(results, again)):
            found[name] = _Example(part.eval(), takes, given, gives, results)
        else:
            left_out[name] = RANDOM

    sampler = Sampler(vae, len(x), context)
    add("encoder", Encoder(vae), {"x": x, **more}, ["mean", "scale"])
    density = vae.posterior(x, context=vae.context_features(context))
    add("decoder", Decoder(vae), {"z": density.sample(), **more}, ["x"])
    noise = torch.randn(len(x), sum(sampler.sizes)).to(x)
    add("sampler", sampler, {"noise": noise, **more}, ["x"])
    return found, left_out


class _NotExpressed(Exception):
    """A part that a format has no words for, or only wrong ones."""


def _written(form: Format, each: _Example) -> tuple[bytes, Graph]:
    """The file of a part and its graph, compared with the program on several data and on one.

    Raises:
        _NotExpressed: if the part becomes no graph, or one of other values or of a fixed number.
    """
    try:
        data = form.write(each.part, each.given, each.takes)
        graph = form.read(data)
        results = graph(*each.given)
        of_one = graph(*(value[:1] for value in each.given))
    except InvalidInput:  # a library is not installed
        raise
    except Exception as error:  # of dozens of kinds, from every tool on the way
        said = " ".join(str(error).split()) or type(error).__name__
        raise _NotExpressed(short(said, MOST)) from error
    off = max(_off(results, each.results), _off(of_one, [value[:1] for value in each.results]))
    if not off <= TOLERANCE:
        raise _NotExpressed(f"it gives other values than the program, by {off:.2g}")
    return data, graph


def _off(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of tensors, relative to the largest value of each; NaN is infinite."""
    each = [
        (ours - theirs.to(ours.dtype)).abs().max().item() / max(1e-6, theirs.abs().max().item())
        for ours, theirs in zip(results, expected)
    ]
    return max(off if off == off else math.inf for off in each)


def _checked(
    form: Format, name: str, part: _PartOf, data: bytes, example: dict[str, Tensor]
) -> Graph:
    """A part as it was written, after comparing it with the program on the example."""
    graph = form.read(data)
    results = graph(*(example[f"{name}.{key}"] for key in part["takes"]))
    off = _off(results, [example[f"{name}.{key}"] for key in part["gives"]])
    if not off <= TOLERANCE:
        FILES.refuse(part["file"], f"which gives other values than the program, by {off:.2g}")
    return graph
