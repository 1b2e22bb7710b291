"""Mutated files: what an accident or a stranger may have done to any file that we read."""

import json
import random
import zipfile
from io import BytesIO

from pyro_vae.files import checksums

WORDS = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -1e308, float("nan")),
    *(float("inf"), "", "x", "\0", "\ud800", "../x", "/etc/passwd", "a.b", "torch.nn.ReLU"),
    *([], {}, [[]], [None], {"class": "os.system"}, {"import": "os"}, {"same_as": "program"}),
    *({"dict": {}}, {"method": "eval", "of": {"same_as": "program"}}, "[red]", "$x", "<b>"),
]  # fmt: skip


def with_checksum(index: dict) -> dict:
    """The JSON of a run with the checksum that a forger would write."""
    rest = {key: value for key, value in index.items() if key != "checksum"}
    is_checked = rest.get("format") == 2 or "checksum" in index
    return checksums.with_checksum(rest) if is_checked else rest


def places(value, path=()):
    """The paths of all values inside a tree."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def mutated_tree(value, draw: random.Random):
    """A tree with one to three of its values replaced, removed, doubled or nested."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        path = draw.choice([*places(value)][1:] or [()])
        if not path:
            return draw.choice(WORDS)
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind, last = draw.randrange(6), path[-1]
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, dict):
            parent[draw.choice(["x", "", "class", "args", "*", "\0", "device", "_weight"])] = (
                parent.pop(last)
            )
        elif kind == 2:
            parent[last] = [parent[last]] * draw.choice([1, 2, 50])
        elif kind == 3 and isinstance(parent[last], int | float):
            parent[last] = draw.choice(
                [-parent[last], parent[last] * 10**9, parent[last] + 0.5, str(parent[last])]
            )
        elif kind == 4:
            other = value
            for key in draw.choice([*places(value)]):
                other = other[key]
            parent[last] = json.loads(json.dumps(other))
        else:
            parent[last] = draw.choice(WORDS)
    return value


def mutated_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes with some flipped, cut, repeated or replaced."""
    data, kind = bytearray(data), draw.randrange(8)
    place = draw.randrange(len(data) or 1)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        return bytes(data[:place] + data[place + draw.randrange(1, 50) :])
    if kind == 2:
        return bytes(data[:place] + bytes(draw.randrange(256) for _ in range(8)) + data[place:])
    if kind == 3:
        return draw.choice(
            [
                b"",
                b"\xff\xfe",
                b"[" * 10**5,
                b"{",
                b"null",
                b"PK\5\6" + b"\0" * 18,
                b"\x89PNG\r\n\x1a\n",
            ]
        )
    if kind == 4:
        return bytes(data * draw.choice([2, 3]))
    for _ in range(draw.choice([1, 1, 4, 16]) if data else 0):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def mutated_archive(data: bytes, draw: random.Random) -> bytes:
    """A ZIP archive with one of its members mutated, and checksums that fit."""
    out = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        names = old.namelist()
        chosen = draw.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutated_bytes(content, draw) if name == chosen else content)
    return out.getvalue()
