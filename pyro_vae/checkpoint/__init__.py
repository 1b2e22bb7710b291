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
from pyro_vae.checkpoint.trust import Untrusted, import_of_the_users, is_trusted_class

__all__ = [
    "CheckpointError",
    "Untrusted",
    "build",
    "current_path",
    "describe",
    "description_of",
    "exists",
    "import_of_the_users",
    "is_trusted_class",
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
