"""Curves for TensorBoard, written by the thread that measures them.

TensorBoard's own writers work in a thread of theirs, where a full disk ends in a traceback that
nothing can catch.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pyro_vae.files.writing import append_bytes

__all__ = ["EventFile"]


class EventFile:
    """A file of scalars for TensorBoard.

    Args:
        folder: an existing folder, where the file is made under a name of its own; TensorBoard
            joins those of one folder.
        purge_step: what earlier files say of this step and later ones is void: a resumed run writes
            it again.

    Raises:
        OSError: here or in `add`, if the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     EventFile(Path(folder)).add({"loss": 3.0}, step=1)
        ...     len(list(Path(folder).glob("events.out.tfevents.*")))
        1
    """

    def __init__(self, folder: Path, purge_step: int = 0):
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._append(
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(
                wall_time=time.time(),
                step=purge_step,
                session_log=SessionLog(status=SessionLog.START),
            ),
        )

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Append the scalars by name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, *events: Event) -> None:
        records = io.BytesIO()
        for event in events:
            RecordWriter(records).write(event.SerializeToString())
        append_bytes(self.path, records.getvalue())
