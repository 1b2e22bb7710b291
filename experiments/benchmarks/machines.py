"""Files of measurements, which keep one entry for each kind of machine."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pyro_vae import checkpoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Measurements:
    """A JSON file of measurements on several machines.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path):
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.machines: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        about = machine()
        self.here = self.machines.setdefault(name_of(about), {})  # what was measured on this one
        self.here["machine"] = about

    def write(self) -> None:
        checkpoint.write_text(self.path, json.dumps(self.machines, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What decides how fast steps are here: processor, its caches, threads and versions."""
    about = dict[str, str]()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        field, _, value = line.partition(":")
        about.setdefault(field.strip(), value.strip())
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    flags = [flag for flag in about.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    found: dict[str, Any] = {
        "processor": about.get("model name", platform.machine()),
        "family, model": f"{about.get('cpu family')}, {about.get('model')}",
        "caches": " ".join(path.read_text().strip() for path in caches),
        "flags": " ".join(flags),
        "used": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if DEVICE == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    found["versions"] = {"python": platform.python_version()}
    for name in ("torch", "pyro-ppl", "pythae", "numpyro", "jax"):
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def name_of(about: dict[str, Any]) -> str:
    """A machine's kind in a few words."""
    if "gpu" in about:
        return str(about["gpu"])
    kind = f"{about['processor']}, family and model {about['family, model']}"
    return f"{kind}, {about['used']}, {about['threads']} threads"
