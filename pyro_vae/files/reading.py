"""Read files that others may have written: regular files only, of a stated size and shape.

Every reader of the library opens its files here. A FIFO, a device or a folder in place of a file,
a file that is too large, a damaged archive, JSON or YAML that nests without end or has values of
other types are one `InvalidInput` each. Nothing that is read here is ever run.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import msgspec
import numpy as np
import yaml

from pyro_vae.files.checksums import CHECKSUM, is_whole, is_whole_text
from pyro_vae.validation import InvalidInput

__all__ = [
    "MEGABYTE", "SPARE", "Kind", "check_unpacked", "checked", "files_in", "npy_header", "open_file",
    "parsed_yaml", "parsing", "read_bytes", "read_json", "read_npy", "read_npz", "read_text",
    "read_yaml",
]  # fmt: skip

MEGABYTE = 2**20
DEPTH = 100  # of JSON, of which three levels are one module of a program
YAML_BYTES, YAML_DEPTH, YAML_SCALAR = MEGABYTE // 4, 30, 10_000
ARRAYS = 1000  # in one archive
# What a file may unpack to: so many times its size, the most of deflate, and a little more.
UNPACKED, SPARE = 1032, 256 * MEGABYTE

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Kind:
    """A kind of file: what its readers say of a bad one, and how large it may be.

    Args:
        argument: the argument that named the file.
        expected: what it should be.
        fix: what to do about a bad one.
        max_bytes: its largest size, unpacked if it is an archive.
        error: the error to raise.
    """

    argument: str
    expected: str
    fix: str
    max_bytes: int
    error: type[InvalidInput] = InvalidInput

    def refuse(self, path: str | Path, reason: str) -> NoReturn:
        """Raise this kind's error about a file."""
        raise self.error(
            self.argument, got=f"{path}, {reason}", expected=self.expected, fix=self.fix
        ) from None


def open_file(path: str | Path, kind: Kind, inside: str | Path | None = None) -> IO[bytes]:
    """Open a regular file for reading, without waiting for a FIFO's or a device's other end.

    Args:
        path: the file.
        kind: what it should be.
        inside: the folder that it must lie in once symbolic links are followed; by default any.

    Raises:
        InvalidInput: if it is missing, no regular file, too large, or outside of the folder.
    """
    try:
        if inside is not None and not Path(path).resolve().is_relative_to(Path(inside).resolve()):
            kind.refuse(path, f"a link to a file outside of {inside}")
        _check_regular(path, os.stat(path), kind)
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        kind.refuse(path, "which does not exist")
    except (OSError, ValueError, RuntimeError) as error:  # also NUL in a name, and loops of links
        if isinstance(error, InvalidInput):
            raise
        kind.refuse(path, f"which cannot be read ({_reason(error)})")
    try:
        _check_regular(path, os.fstat(file.fileno()), kind)
    except InvalidInput:
        file.close()
        raise
    return file


def _check_regular(path: str | Path, status: os.stat_result, kind: Kind) -> None:
    if stat.S_ISDIR(status.st_mode):
        kind.refuse(path, "a folder")
    if not stat.S_ISREG(status.st_mode):
        kind.refuse(path, "a pipe, a device or a socket")
    if status.st_size > kind.max_bytes:
        kind.refuse(path, _too_large(status.st_size, kind))


def files_in(folder: str | Path, kind: Kind, with_hidden: bool = True) -> list[Path]:
    """All regular files below a folder, which lie there themselves.

    Args:
        folder: the folder.
        kind: what it should be.
        with_hidden: whether files and folders whose names begin with a dot are looked at.

    Raises:
        InvalidInput: if it holds a link that leads out of it or to a folder, or a pipe, a device
            or a socket.
    """
    found, root = [], Path(folder).resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            if not with_hidden and name.startswith("."):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                kind.refuse(path, f"a link to a file outside of {folder}")
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append(path)
            elif path.is_symlink() or not stat.S_ISDIR(status.st_mode):
                _check_regular(path, status, kind)
    return found


def check_unpacked(path: str | Path, kind: Kind, unpacked: int, stored: int) -> None:
    """Refuse a file that states more numbers, in bytes, than its own size accounts for."""
    if unpacked > kind.max_bytes:
        kind.refuse(path, _too_large(unpacked, kind))
    if unpacked > SPARE + UNPACKED * stored:
        kind.refuse(
            path,
            f"whose {stored / MEGABYTE:,.3f} MB claim to hold {unpacked / MEGABYTE:,.0f} MB",
        )


def _too_large(size: int, kind: Kind) -> str:
    return f"which has {size / MEGABYTE:,.1f} MB, more than {kind.max_bytes / MEGABYTE:,.1f}"


def read_bytes(path: str | Path, kind: Kind, inside: str | Path | None = None) -> bytes:
    """Read a whole file; the arguments are those of `open_file`."""
    with open_file(path, kind, inside) as file, parsing(path, kind):
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        rest = file.read(min(MEGABYTE, kind.max_bytes) + 1)
        if rest:  # of a file that says it has none, such as the system's own, or that grows
            kind.refuse(path, "which changes while it is read")
    return data


def read_text(path: str | Path, kind: Kind, inside: str | Path | None = None) -> str:
    """Read a text in UTF-8; the arguments are those of `open_file`."""
    data = read_bytes(path, kind, inside)
    with parsing(path, kind):
        return data.decode()


@contextmanager
def parsing(path: str | Path, kind: Kind) -> Iterator[None]:
    """Turn whatever a parser raises on a damaged file into one line."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # parsers raise some twenty kinds, RecursionError among them
        kind.refuse(path, f"which cannot be read ({_reason(error)})")


def _reason(error: Exception) -> str:
    """One line about an error, without what the file holds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeError):
        return "it is no text in UTF-8"
    if isinstance(error, MemoryError):
        return "it asks for more memory than is free"
    if isinstance(error, RecursionError):
        return f"more than {DEPTH} levels"
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{(error.problem or 'no YAML').split(chr(39))[0].strip()}{line}"
    words = str(error) if isinstance(error, json.JSONDecodeError | zipfile.BadZipFile) else ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def read_json(
    path: str | Path, kind: Kind, shape: type[Shape], inside: str | Path | None = None
) -> Shape:
    """Read a JSON file whose values have the types of ``shape``, a dictionary of any kind.

    Keys that a ``TypedDict`` does not name are left out. A checksum among them is compared.
    """
    data = read_bytes(path, kind, inside)
    with parsing(path, kind):
        value = json.loads(data)
        _check_tree(value)
        if not is_whole(value):
            kind.refuse(path, f"altered: its {CHECKSUM} is not that of its values")
        return checked(value, shape)


def checked(value: object, shape: type[Shape]) -> Shape:
    """A value as JSON or YAML holds it, with the types of ``shape``.

    Raises:
        msgspec.ValidationError: if the types differ, or the value nests too deeply.

    Example:
        >>> checked({"epochs": [1, 2]}, dict[str, list[int]])
        {'epochs': [1, 2]}
    """
    _check_tree(value)
    return msgspec.convert(value, shape)


def _check_tree(value: object) -> None:
    """Raise on nesting without end, and on text that no file can hold."""
    level: list[object] = [value]
    for _ in range(DEPTH):
        for item in level:
            if isinstance(item, str) and ("\0" in item or not _is_encodable(item)):
                raise msgspec.ValidationError("a text with NUL or half a character")
        level = [
            inner
            for item in level
            for inner in (
                [*item, *item.values()] if isinstance(item, dict)
                else item if isinstance(item, list | tuple)
                else ()
            )
        ]  # fmt: skip
        if not level:
            return
    raise msgspec.ValidationError(f"more than {DEPTH} levels")


def _is_encodable(text: str) -> bool:
    """Whether a text can be written; bytes of a file's name that are no UTF-8 are kept by Python
    as surrogates, which can be."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def read_yaml(path: str | Path, kind: Kind, inside: str | Path | None = None) -> Any:
    """Read a YAML file of plain values, after its size, depth and aliases have been checked.

    If it lies in a run's folder, ``inside``, so has its checksum been, where it has one.
    """
    small = Kind(kind.argument, kind.expected, kind.fix, YAML_BYTES, kind.error)
    text = read_text(path, small, inside)
    with parsing(path, kind):
        if inside is not None and not is_whole_text(text):
            restored = f"{kind.fix}; or if you changed it yourself, remove its last line"
            Kind(kind.argument, kind.expected, restored, kind.max_bytes, kind.error).refuse(
                path, "altered: its checksum is not that of its lines"
            )
        return parsed_yaml(text)


def parsed_yaml(text: str) -> object:
    """The plain values of a YAML text, after its size, depth and aliases have been checked.

    Raises:
        yaml.YAMLError: if it is none, or grows when it is loaded.

    Example:
        >>> parsed_yaml("hidden: [16]")
        {'hidden': [16]}
    """
    return deepcopy(_parsed(text))


@lru_cache(maxsize=4)  # a command reads the recipe of its run several times
def _parsed(text: str) -> object:
    """What `parsed_yaml` returns; the same object at each call."""
    if len(text) > YAML_BYTES:
        raise yaml.MarkedYAMLError(problem=f"more than {YAML_BYTES} characters")
    _check_events(text)
    value: object = yaml.safe_load(text)
    _check_tree(value)
    return value


def _check_events(text: str) -> None:
    """Raise on YAML that grows when it is loaded: depth, long numbers, anchors with aliases."""
    anchored: list[bool] = []  # of the collections that are open
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            anchored.append(event.anchor is not None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchored.pop()
        elif isinstance(event, yaml.AliasEvent) and any(anchored):
            raise yaml.MarkedYAMLError(problem="an alias inside of an anchor")
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > YAML_SCALAR:
            raise yaml.MarkedYAMLError(problem=f"a value of more than {YAML_SCALAR} characters")
        if len(anchored) > YAML_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {YAML_DEPTH} levels")


def read_npz(
    path: str | Path, kind: Kind, inside: str | Path | None = None
) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz``, none of which may unpack to more than it says it holds.

    Arrays of the other byte order come in this machine's. Objects, which are pickles, are refused.
    """
    with (
        open_file(path, kind, inside) as file,
        parsing(path, kind),
        zipfile.ZipFile(file) as archive,
    ):
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        check_unpacked(path, kind, unpacked, os.fstat(file.fileno()).st_size)
        if len(members) > ARRAYS:
            kind.refuse(path, f"which holds {len(members)} arrays, more than {ARRAYS}")
        return {
            member.filename.removesuffix(".npy"): _member(archive, member) for member in members
        }


def read_npy(path: str | Path, kind: Kind, inside: str | Path | None = None) -> np.ndarray:
    """Read the array of an ``.npy``, as `read_npz` does; one that ends in more bytes is refused."""
    with open_file(path, kind, inside) as file, parsing(path, kind):
        return _array(file, os.fstat(file.fileno()).st_size)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("a compression that numpy does not write")
    with archive.open(member) as file:
        return _array(file, member.file_size)


def npy_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape, order (whether it is Fortran's) and dtype of an array in numpy's format.

    The file is then at its first number. ``size`` is where the array must end.

    Raises:
        zipfile.BadZipFile: if the array holds objects, or is not as large as it states.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]  # any file serves
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        (3, 0): np.lib.format.read_array_header_2_0,  # which takes its UTF-8 for Latin-1
    }[version]
    shape, is_fortran, dtype = header(file)  # type: ignore[arg-type]
    if version == (3, 0) and dtype.names:
        dtype.names = tuple(name.encode("latin1").decode() for name in dtype.names)
    count = math.prod(shape)
    if dtype.hasobject:
        raise zipfile.BadZipFile("an array of objects, which are pickles")
    if count and not dtype.itemsize:
        raise zipfile.BadZipFile("an array of nothing")
    if min(shape, default=0) < 0 or count * dtype.itemsize != size - file.tell():
        raise zipfile.BadZipFile("an array of another size than it states")
    return shape, is_fortran, dtype


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """An array in numpy's format, read once, into its own memory."""
    shape, is_fortran, dtype = npy_header(file, size)
    count = math.prod(shape)
    flat = np.empty(count, dtype)
    if count:
        view, filled = memoryview(flat.view(np.uint8).data), 0
        while filled < len(view):
            got = file.readinto(view[filled : filled + 2**24])  # type: ignore[attr-defined]
            if not got:
                raise zipfile.BadZipFile("an array that ends too soon")
            filled += got
    file.read(1)  # the end of a member, where its checksum is compared
    array = flat.reshape(shape, order="F" if is_fortran else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
