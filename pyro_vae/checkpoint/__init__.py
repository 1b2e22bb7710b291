"""Checkpoints: programs and states on disk, as JSON and safetensors, never as pickles.

The files of a run folder are written and read here; nothing here trains or scores.
"""

from pyro_vae.checkpoint.commit import (
    claimed,
    commit,
    committing,
    current,
    read_current,
    weights_named_by,
)
from pyro_vae.checkpoint.description import (
    build,
    current_path,
    describe,
    resolve,
    with_current_paths,
)
from pyro_vae.checkpoint.hub import check_name, is_address, pull
from pyro_vae.checkpoint.program import (
    described_or_named,
    description_of,
    load,
    save,
    warn_unless_rebuilt,
)
from pyro_vae.checkpoint.states import add_state, exists, read_state, write_state
from pyro_vae.checkpoint.trust import Untrusted, import_of_the_users, is_trusted_class
from pyro_vae.files.writing import (
    CannotWrite,
    CheckpointError,
    append_bytes,
    check_writable,
    replace_file,
    subfolder,
    write_bytes,
    write_text,
    writing_to,
)

__all__ = [
    "Untrusted",
    "add_state",
    "append_bytes",
    "build",
    "CannotWrite",
    "check_name",
    "check_writable",
    "CheckpointError",
    "claimed",
    "commit",
    "committing",
    "current",
    "current_path",
    "describe",
    "described_or_named",
    "description_of",
    "exists",
    "import_of_the_users",
    "is_address",
    "is_trusted_class",
    "load",
    "pull",
    "read_current",
    "read_state",
    "replace_file",
    "resolve",
    "save",
    "subfolder",
    "warn_unless_rebuilt",
    "weights_named_by",
    "with_current_paths",
    "write_bytes",
    "write_state",
    "write_text",
    "writing_to",
]
