"""Checkpoints: programs and states on disk, as JSON and safetensors, never as pickles.

The files of a run folder are written and read here; nothing here trains or scores.
"""

from pyro_vae.checkpoint.description import (
    build,
    current_path,
    describe,
    resolve,
    with_current_paths,
)
from pyro_vae.checkpoint.files import (
    CheckpointError,
    replace_file,
    write_bytes,
    write_text,
    writing_to,
)
from pyro_vae.checkpoint.program import description_of, load, save
from pyro_vae.checkpoint.states import exists, read_state, write_state

__all__ = [
    "CheckpointError",
    "build",
    "current_path",
    "describe",
    "description_of",
    "exists",
    "load",
    "read_state",
    "replace_file",
    "resolve",
    "save",
    "with_current_paths",
    "write_bytes",
    "write_state",
    "write_text",
    "writing_to",
]
