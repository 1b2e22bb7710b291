"""What a part is written as: a graph of `torch.export`, or of ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from pyro_vae.files.optional import optional

__all__ = ["FORMATS", "Format", "Graph"]

Graph = Callable[..., tuple[Tensor, ...]]


class Format(Protocol):
    """How a part becomes the bytes of a file, and how these are read.

    Reading those of a format that ``is_code`` runs what they say.
    """

    suffix: str
    is_code: bool

    def write(self, part: nn.Module, given: Sequence[Tensor], names: Sequence[str]) -> bytes: ...
    def read(self, data: bytes) -> Graph: ...


class TorchExport:
    """A graph of torch's operations, with its weights: ``torch.export.load`` reads it.

    It looks functions up by the names in the file, evaluates texts, and unpickles.
    """

    suffix, is_code = ".pt2", True

    def write(self, part: nn.Module, given: Sequence[Tensor], names: Sequence[str]) -> bytes:
        file = io.BytesIO()
        with _quiet():
            torch.export.save(_captured(part, given), file)
        return file.getvalue()

    def read(self, data: bytes) -> Graph:
        with _quiet():
            return torch.export.load(io.BytesIO(data)).module()


class Onnx:
    """A graph in the Open Neural Network Exchange format, for runtimes in other languages."""

    suffix, is_code = ".onnx", False

    def write(self, part: nn.Module, given: Sequence[Tensor], names: Sequence[str]) -> bytes:
        for library in ("onnx", "onnxscript"):
            optional(library, "onnx", "format", f"'onnx', for which {library} is not installed")
        with _quiet():
            made = torch.onnx.export(
                _captured(part, given), dynamo=True, input_names=list(names), verbose=False
            )
        assert made is not None
        return made.model_proto.SerializeToString()

    def read(self, data: bytes) -> Graph:
        onnx = optional("onnx", "onnx", "format", "'onnx', for which onnx is not installed")
        if any(map(_lies_elsewhere, _messages_in(onnx.load_model_from_string(data)))):
            raise ValueError("weights that lie in another file")
        session = optional(
            "onnxruntime", "onnx", "format", "'onnx', for which onnxruntime is not installed"
        ).InferenceSession(data, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            inputs = dict(zip(names, (value.numpy() for value in given)))
            return tuple(torch.from_numpy(value) for value in session.run(None, inputs))

        return run


class Field(Protocol):
    """What a part of a message is called, and of which kind it is if it is a message, too."""

    name: str
    message_type: object | None


class Message(Protocol):
    """A message of Protocol Buffers, as ONNX files are; fields of numbers and texts left aside."""

    def ListFields(self) -> Sequence[tuple[Field, Message | Iterable[Message]]]: ...


def _messages_in(message: Message) -> Iterator[Message]:
    """A message and all inside of it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:  # and neither numbers nor the bytes of weights
            for item in value if isinstance(value, Iterable) else [value]:
                yield from _messages_in(item)


def _lies_elsewhere(message: Message) -> bool:
    """Whether a message is a tensor whose numbers are in another file, which any path may name."""
    return any(field.name == "external_data" for field, _ in message.ListFields())


FORMATS: dict[str, Format] = {"torch": TorchExport(), "onnx": Onnx()}


def _captured(part: nn.Module, given: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The graph of a part, for any number of data where the part allows it."""
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in given)
    return torch.export.export(part, tuple(given), dynamic_shapes=shapes, strict=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says to the authors of models about its own conversion."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
