"""What `pyro_vae.check` finds: planted faults that it names, and sound programs that it passes.

    python experiments/checks/power.py            # makes what is missing, some twenty minutes
    python experiments/checks/power.py --table    # writes the tables of docs/check.md from it

`programs.py` has the programs that the checks were made with, `others.py` those that came later.

Each program is a file in experiments/checks/found, so that a killed script goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import torch
from others import FAULTY as OTHER_FAULTY
from others import SOUND as OTHER_SOUND
from programs import FAULTY, SOUND, Build, Case

import pyro_vae as pv
from pyro_vae import checkpoint
from pyro_vae.checks.running import BROKEN

HERE = Path(__file__).parent
FOUND = HERE / "found"
DOCUMENT = HERE.parents[1] / "docs" / "check.md"
MARK = "<!-- the table of experiments/checks/power.py -->"
LATER = (
    "More, on other kinds of data, were written when the checks were done. One was missed at "
    "first, copies with fewer digits, and that check was mended."
)

Faults = dict[str, tuple[Build, tuple[str, ...]]]


def look(case: Case, minutes: float) -> dict:
    """The verdicts on a program."""
    began = time.monotonic()
    found = pv.check(case.program, case.data, minutes=minutes, **case.options)
    return {
        "faults": found.faults,
        "failed": [each.name for each in found.of(False)],
        "passed": len(found.of(True)),
        "left_out": list(found.left_out),
        "broken": [each.name for each in found.verdicts if each.means.startswith(BROKEN)],
        "means": [each.means for each in found.of(False)],
        "open": {each.name: each.means for each in found.of(None)},
        "seconds": round(time.monotonic() - began, 1),
    }


def path_of(name: str) -> Path:
    return FOUND / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def run(only: str, minutes: float) -> None:
    FOUND.mkdir(exist_ok=True)
    faults = FAULTY | OTHER_FAULTY
    builds = {name: build for name, (build, _) in faults.items()} | SOUND | OTHER_SOUND
    for name, build in builds.items():
        if only in name and not path_of(name).exists():
            torch.manual_seed(0)
            result = {"name": name} | look(build(), minutes)
            checkpoint.write_text(path_of(name), json.dumps(result, indent=1) + "\n")
            print(f"{result['seconds']:6.1f} s  {name}: {result['faults']}", flush=True)


def read(name: str) -> dict:
    return json.loads(path_of(name).read_text())


def table(faults: Faults, sounds: dict[str, Build]) -> str:
    """The faults and the sound programs as Markdown."""
    faulty = {name: read(name) for name in faults}
    sound = {name: read(name) for name in sounds}
    named = {
        name: [word for word in faults[name][1] if word in each["faults"]]
        for name, each in faulty.items()
    }
    broken = sum(len(each["broken"]) for each in (faulty | sound).values())
    alarms = [name for name, each in sound.items() if each["failed"]]
    lines = [
        f"Of {len(faulty)} programs with one planted fault each, `check` names the fault in "
        f"**{sum(map(bool, named.values()))}**; of {len(sound)} sound ones it fails "
        f"**{len(alarms)}**. Each took "
        f"{max(e['seconds'] for e in (faulty | sound).values()):.0f} s at most; "
        f"{broken or 'no'} checks ended in an error.",
        "",
        "| planted fault | named | all that failed |",
        "|---|---|---|",
    ]
    for name, each in faulty.items():
        words = "; ".join(named[name]) or "no"
        lines.append(f"| {name} | {words} | {', '.join(each['failed']) or 'nothing'} |")
    lines += ["", "| sound program | failed |", "|---|---|"]
    lines += [f"| {n} | {'; '.join(e['faults']) or 'nothing'} |" for n, e in sound.items()]
    return "\n".join(lines)


def write() -> None:
    """Put the tables into the document, between its marks."""
    before, _, rest = DOCUMENT.read_text().partition(MARK)
    _, _, after = rest.partition(MARK)
    first, later = table(FAULTY, SOUND), table(OTHER_FAULTY, OTHER_SOUND)
    DOCUMENT.write_text(f"{before}{MARK}\n\n{first}\n\n{LATER}\n\n{later}\n\n{MARK}{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", default="", help="names that hold this")
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    if options.table:
        write()
    else:
        run(options.only, options.minutes)
