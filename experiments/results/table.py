"""Make the README's tables, `results.json`, `logs/` and the figures from finished runs.

    python experiments/results/table.py [RUNS]

With RUNS, the folder that `run.py` wrote to, summaries and logs of its finished runs are taken over
first; without, everything is made from `results.json`, `ground_truth.json`, `peers.json`,
`published_codes.json` and `logs/`, which are committed.
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

import pyro_vae as pv
from pyro_vae.evaluation.comparison import compare, load_scores
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.report.run_files import is_bound

HERE = Path(__file__).resolve().parent
ROWS = json.loads((HERE / "rows.json").read_text())
FOLLOWED = ("epoch", "step", "objective", "validation_elbo", "learning_rate", "kl_weight")
BASELINE = "prior_normal"


# from the runs


def take_over(runs: Path) -> dict:
    """Collect scores, costs and active units of every finished run; copy its log to ``logs/``."""
    found, version = read("results.json") or {}, torch.__version__.split("+")[0]
    (HERE / "logs").mkdir(exist_ok=True)
    for row in ROWS:
        for seed in row["seeds"]:
            folder = runs / f"{row['name']}-{seed}"
            if not (folder / "scores-0.json").exists():
                continue
            scores = [json.loads(path.read_text()) for path in sorted(folder.glob("scores-*.json"))]
            log = list(csv.DictReader((folder / "metrics.csv").open()))
            with (HERE / "logs" / f"{folder.name}.csv").open("w") as file:
                writer = csv.DictWriter(file, FOLLOWED, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(
                    {key: rounded(value) for key, value in line.items()} for line in log
                )
            program = pv.load(folder, trust=[row["trust"]] if "trust" in row else [])
            test = pv.datasets.load(scores[0]["data"]["name"])[1][:1000]
            units = pv.evaluation.active_units(program, test)
            found[folder.name] = {
                "scores": scores,
                "costs": costs_of(row, seed, runs),
                "epochs": int(log[-1]["epoch"]),
                "steps": int(log[-1]["step"]),
                "active_units": units.active,
                "units": units.total,
                "parameters": sum(p.numel() for p in program.parameters()),
                "machine": f"{torch.backends.cpu.get_cpu_capability()}, torch {version}",
            }
            baseline = runs / f"{BASELINE}-{seed}" / "evaluation.npz"
            if row["name"].startswith("prior_") and row["name"] != BASELINE and baseline.exists():
                ours, plain = (
                    load_scores(path)["log_likelihood"]
                    for path in (folder / "evaluation.npz", baseline)
                )
                paired = compare(ours, plain)
                found[folder.name]["less_normal"] = {"mean": paired.mean, "se": paired.se}
    return found


def costs_of(row: dict, seed: int, runs: Path) -> dict:
    """Costs of a row's run; its training's with those of the run that it starts from."""
    costs = json.loads((runs / f"{row['name']}-{seed}" / "cost.json").read_text())
    if "start" in row:
        before = costs_of(next(r for r in ROWS if r["name"] == row["start"]), seed, runs)
        for name in ("cpu_seconds", "seconds"):
            costs["training"][name] += before["training"][name]
    return costs


def start_of(row: dict) -> list[str]:
    return ["--start", f"RUNS/{row['start']}-SEED"] if "start" in row else []


def rounded(value: str) -> str:
    return value and f"{float(value):.6g}"


def read(name: str):
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else None


# tables


def table(header: str, lines: Iterable[str]) -> str:
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *lines])


def runs_of(row: dict, results: dict) -> list[dict]:
    return [results[name] for seed in row["seeds"] if (name := f"{row['name']}-{seed}") in results]


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def score_cells(runs: list[dict], index: int) -> str:
    """log p(x) with its errors, the ELBO, what it was made of, and Pareto k, of a row's runs."""
    scores = [run["scores"][index] for run in runs if len(run["scores"]) > index]
    lls = [score["log_likelihood"] for score in scores]
    means = [ll["mean"] for ll in lls]
    mean, mc_se = f"{statistics.mean(means):.2f}", f"{max(ll['mc_se'] for ll in lls):.3f}"
    if any(map(is_bound, scores)):  # the Monte Carlo error would be too short
        mean, mc_se = f">= {mean}", "unknown"
    text = f"**{mean}** +- {statistics.mean(ll['se'] for ll in lls):.2f}"
    text += f" ({len(means)} seeds: s.d. {statistics.stdev(means):.2f})" if len(means) > 1 else ""
    elbo = statistics.mean(score["elbo"]["mean"] for score in scores)
    k = statistics.mean(score["pareto_k"]["median"] for score in scores)
    return (
        f"{text} | {mc_se} | {elbo:.2f} | {lls[0]['num_samples']:,} "
        f"| {scores[0]['num_data']:,} | {k:.2f}"
    )


def published(row: dict) -> str:
    return number(row["published"]) + (f" ({row['reproduced']:.2f})" if row["reproduced"] else "")


def results_table(results: dict, on: str) -> str:
    lines = []
    for row in (row for row in ROWS if row["on"] == on):
        runs = runs_of(row, results)
        if not runs and row["scores"]:  # others are stages that rows start from
            lines.append(
                f"| {row['what']} | `{row['name']}` | {published(row)} | not run" + " |" * 10
            )
        for index in range(max((len(run["scores"]) for run in runs), default=0)):
            cost = statistics.mean(run["costs"]["training"]["cpu_seconds"] for run in runs)
            at_least = ">= " * any(run["costs"]["training"].get("is_part", False) for run in runs)
            units = f"{runs[0]['active_units']} of {runs[0]['units']}"
            rest = (
                f"{runs[0]['epochs']} | {runs[0]['steps']:,} | {at_least}{cost:,.0f} | {units}"
                if index == 0
                else " | | | "
            )
            seeds = (
                ""
                if len(runs) == len(row["seeds"])
                else f", {len(runs)} of {len(row['seeds'])} seeds run"
            )
            what = f"{row['what']}{seeds}" if index == 0 else "the same"
            lines.append(
                f"| {what} | `{row['name']}` | {published(row)} | {score_cells(runs, index)} | "
                f"{rest} |"
            )
    return table(
        "| | row | published (reproduced) | ours: log p(x) +- s.e. over data | Monte Carlo "
        "error | ELBO | K | test data | median k | epochs "
        "| steps | CPU s | active units |",
        lines,
    )


def priors_table(results: dict) -> str:
    lines = []
    for row in (row for row in ROWS if row["name"].startswith("prior_")):
        for run in runs_of(row, results):
            ll, paired = run["scores"][0]["log_likelihood"], run.get("less_normal")
            is_lower = is_bound(run["scores"][0])
            bound, about = ">= " * is_lower, "~ " * is_lower
            less = f"{about}{paired['mean']:+.2f} +- {paired['se']:.2f}" if paired else ""
            lines.append(
                f"| `{row['name']}` | {bound}{ll['mean']:.2f} +- {ll['se']:.2f} | {less} | "
                f"{run['costs']['training']['cpu_seconds']:.0f} |"
            )
    return (
        table(f"| | log p(x) | less `{BASELINE}`, paired | CPU s |", lines) if lines else "Not run."
    )


def recipes_table(on: str) -> str:
    return table(
        "| row | recipe and options | seeds | source |",
        (
            f"| `{row['name']}` | `{' '.join([row['recipe'], *row['options'], *start_of(row)])}` | "
            f"{', '.join(map(str, row['seeds']))} | {row['source']} |"
            for row in ROWS
            if row["on"] == on
        ),
    )


def verdict(row: dict) -> str:
    """What to say of a row whose 95% intervals do not cover 90% to 99%."""
    if row.get("bound", 0) > 0.5:
        return "says that it is a bound"
    if row["coverage"] < 0.9:
        return "**short**"
    return "wide" if row["coverage"] > 0.99 else ""


def ground_truth_section() -> str:
    """The table, and which rows it lacks."""
    found = read("ground_truth.json") or {"rows": []}
    missing = found.get("missing", {})
    lacks = [f"- {name}: {', '.join(missing[name])}." for name in missing]
    words = ["", "Not computed, in the words of `ground_truth.py`:", ""] if lacks else []
    return "\n".join([ground_truth_table(found["rows"]), *words, *lacks])


def ground_truth_table(rows: list[dict]) -> str:
    lines, last = [], ""
    for row in rows:
        case, last = ("" if row["case"] == last else row["case"]), row["case"]
        stated = f"{row['mc_se']:.4f} | {row['in_errors']:+.1f}"
        if row.get("bound", 0) > 0.5:  # a bound states no error
            stated = " | "
        repetitions = row.get("repetitions", 20)
        few = "" if repetitions == 20 else f" ({repetitions} repetitions)"
        lines.append(
            f"| {case} | {row['estimator']}{few} | {row['exact']:.3f} | {row['error']:+.4f} | "
            f"{stated} | {number(row.get('z'), 1)} | "
            f"{100 * row['coverage']:.1f}% | {verdict(row)} | {number(row['pareto_k'])} |"
        )
    return table(
        "| model | estimator | exact value | mean offset | stated error of a mean | "
        "offset in stated errors | z of the offset | 95% intervals that cover | | median k |",
        lines,
    )


def peers_table() -> str:
    found = read("peers.json")
    if not found:
        return "Not run."
    rows = {name: row for name, row in found.items() if name != "estimators"}
    # Only the median k is known of these rows.
    bounds = {
        name: ">= " * (row["pareto_k"] > pareto_k_threshold(row["num_samples"]))
        for name, row in rows.items()
    }
    lines = [
        f"| {name} | {bounds[name]}{row['log_p']:.2f} +- {row['se']:.2f} | {row['elbo']:.2f} | "
        f"{row['cpu_seconds']:.0f} | {row['memory_mb']:.0f} |"
        for name, row in rows.items()
    ]
    return table("| trained by | log p(x) | ELBO | CPU s of training | peak memory (MB) |", lines)


def estimators_table() -> str:
    found = (read("peers.json") or {}).get("estimators")
    if not found:
        return "Not run."
    rows = found["rows"]
    low, high = rows["`bdmc`, lower bound"]["value"], rows["`bdmc`, upper bound"]["value"]
    # What k was of these estimates is not known, so ours are no more than bounds.
    bounds = {name: ">= " * ("log_likelihood" in name) for name in rows}
    errors = {
        name: "unknown" if sign else number(rows[name].get("mc_se"), 3)
        for name, sign in bounds.items()
    }
    lines = [
        f"| {name} | {bounds[name]}{row['value']:.3f} | {errors[name]} | "
        f"{row['value'] - low:+.3f} | {row['value'] - high:+.3f} "
        f"| {number(row.get('cpu_seconds'), 1)} |"
        for name, row in rows.items()
    ]
    return table(
        "| | log p(x) for a datum | Monte Carlo error | less the lower bound | less the upper "
        "bound | CPU s |",
        lines,
    )


def step_cells(row: dict) -> str:
    step = row["cpu_seconds_a_step"]
    seconds = " to ".join(f"{step[each]:.3g}" for each in ("least", "most"))
    size, epoch = f"{row['weights'] / 1e6:.1f} | {row['batch']}", row["cpu_seconds_an_epoch"]
    return f"{size} | {step['median']:.3g} ({seconds}) | {epoch:,.0f}"


def codes_table() -> str:
    """Published figures of others, and what a step, an epoch and the recipe of each costs here."""
    found = read("published_codes.json")
    if not found:
        return "Not run."
    lines = []
    for name, row in found["published"].items():
        if name not in found["timed"]:
            continue
        timed = found["timed"][name]
        hours = [
            f"{epochs * timed['cpu_seconds_an_epoch'] / 3600:,.1f}"
            for epochs in row["epochs"] or [100]
        ]
        cost = " to ".join(hours) + " for 100 epochs" * (not row["epochs"])
        pixels = "yes" if name.startswith("Pixel") else "no"
        lines.append(
            f"| {name} | {pixels} | {row['nats']:.2f} | {row['of']} | {row['recipe']} "
            f"| {step_cells(timed)} | {cost} |"
        )
    return table(
        "| code | pixels given pixels | published log p(x) | of | recipe | weights, millions "
        "| batch | CPU s a step, median (range) | CPU s an epoch | CPU hours of the recipe |",
        lines,
    )


def our_codes_table(results: dict) -> str:
    """Rows of ours with the cost of their recipes here, stage by stage."""
    found = read("published_codes.json")
    if not found:
        return "Not run."
    lines = []
    for name, stages in OUR_STAGES.items():
        if name not in results or not set(stages) <= set(found["timed"]):
            continue
        first = results[name]["scores"][0]
        ll, bound = first["log_likelihood"], ">= " * is_bound(first)
        seconds = {
            stage: epochs * found["timed"][stage]["cpu_seconds_an_epoch"]
            for stage, epochs in stages.items()
        }
        recipe = ", ".join(f"{epochs} epochs of `{stage}`" for stage, epochs in stages.items())
        of = f"dynamic, K = {ll['num_samples']:,}, {first['num_data']:,} test images"
        each = ", ".join(
            f"{found['timed'][stage]['cpu_seconds_an_epoch']:,.0f}" for stage in stages
        )
        hours = sum(seconds.values()) / 3600
        lines.append(
            f"| `{name.rsplit('-', 1)[0]}` | {bound}{ll['mean']:.2f} +- {ll['se']:.2f} | {of} "
            f"| {recipe} | {each} | {hours:.1f} |"
        )
    return table(
        "| row | log p(x) | of | recipe | CPU s an epoch | CPU hours of the recipe |", lines
    )


def equal_time_table() -> str:
    """ELBO and a bound of codes that were trained for as long here."""
    rows = (read("published_codes.json") or {}).get("trained", {})
    if not rows:
        return "Not run."
    lines = [
        f"| {name} | {row['cpu_seconds']:,.0f} | {row['epochs']:.1f} | {row['elbo']:.2f} +- "
        f"{row['elbo_se']:.2f} | >= {row['log_p']:.2f} +- {row['log_p_se']:.2f} "
        f"| {number(row.get('elbo_of_all'))} |"
        for name, row in rows.items()
    ]
    draws = next(iter(rows.values()))["num_samples"]
    return table(
        f"| code | CPU s | epochs | ELBO | log p(x), K = {draws} | ELBO, all 10,000 |", lines
    )


OUR_STAGES = {  # epochs of each stage of a row
    "best-0": {"best": 90},
    "best_conv-0": {"best_conv": 55},
    "best_wide_dreg_4-0": {"best_wide": 40, "best_wide_dreg": 12},
}
SECTIONS: dict[str, Callable[[dict], str]] = {
    "cpu": lambda results: results_table(results, "cpu"),
    "priors": priors_table,
    "gpu": lambda results: results_table(results, "gpu"),
    "recipes": lambda results: recipes_table("cpu"),
    "gpu recipes": lambda results: recipes_table("gpu"),
    "ground truth": lambda results: ground_truth_section(),
    "peers": lambda results: peers_table(),
    "estimators": lambda results: estimators_table(),
    "published codes": lambda results: codes_table(),
    "our codes": our_codes_table,
    "equal time": lambda results: equal_time_table(),
}


def rendered(text: str) -> str:
    """The README's text, with a new table between each pair of markers."""
    results = read("results.json") or {}
    for name, section in SECTIONS.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert mark and end, name
        text = f"{before}{mark}{section(results)}\n{end}{after}"
    return text


# figures


def draw_cost(path: Path) -> None:
    """Draw log p(x) of dynamic MNIST against the CPU minutes of training, row by row.

    Rows that were scored on the whole test set and on its first thousand images have different
    marks, for these are easier. Of a row whose cost is known in part, an open mark stands at that
    part, with an arrow to the right, and the lines leave it out.
    """
    import matplotlib.pyplot as plt

    results = read("results.json") or {}
    marks = {10_000: ("o", "all 10,000 test images"), 1000: ("s", "the first 1,000")}
    points: dict[int, list[tuple[float, float, str]]] = {num: [] for num in marks}
    in_part: dict[int, list[tuple[float, float, str]]] = {num: [] for num in marks}
    for row in ROWS:
        for run in runs_of(row, results)[:1]:
            first = run["scores"][0]
            if (first["data"]["name"], first["data"]["binarize"]) != ("mnist", "dynamic"):
                continue
            if "labels" in row["options"]:  # log p(x | y)
                continue
            cost = run["costs"]["training"]
            minutes = cost["cpu_seconds"] / 60
            mean = first["log_likelihood"]["mean"]
            at = in_part if cost.get("is_part", False) else points
            at[first["num_data"]].append((minutes, mean, row["name"]))
    figure, ax = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for num, (mark, label) in marks.items():
        ax.plot(*zip(*((x, y) for x, y, _ in points[num])), mark, label=label)
        reached = [max(y for x, y, _ in points[num] if x <= end) for end, _, _ in points[num]]
        line = sorted(zip((x for x, _, _ in points[num]), reached))
        colour = ax.lines[-1].get_color()
        ax.step(*zip(*line), where="post", color=colour, linewidth=0.8)
        for x, y, _ in in_part[num]:
            ax.plot(x, y, mark, color=colour, markerfacecolor="none")
            ax.annotate("", (1.25 * x, y), (x, y), arrowprops={"arrowstyle": "->", "color": colour})
    ax.set(
        xscale="log",
        xlabel="CPU minutes of training, one thread",
        ylabel="test log p(x), a lower bound, in nats",
        title="dynamic MNIST: what a row reaches, and the best so far (lines);\n"
        "open marks: at least this cost",
    )
    ax.margins(x=0.28)
    ax.legend(frameon=False, loc="lower right")
    figure.draw_without_rendering()  # from here on the axes stay where they are
    groups = (*points.values(), *in_part.values())
    write_names(ax, [point for group in groups for point in group])
    figure.savefig(path, dpi=110)


def write_names(ax: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write each point's name beside it, at the first place that no other name or point takes."""
    at = [ax.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in at]
    ends = ((4, "left"), (-4, "right"))
    sides = [(right, up, side) for up in (3, -9, 12, -18, 21, -27) for right, side in ends]
    for x, y, name in sorted(points):
        for place in sides:
            words = ax.annotate(
                name, (x, y), place[:2], textcoords="offset points", fontsize=7, ha=place[2]
            )
            box = words.get_window_extent()
            if place == sides[-1] or not any(box.overlaps(other) for other in taken):
                break
            words.remove()
        taken.append(box)


def draw_curves(path: Path) -> None:
    """Draw the training bound of each run of the IWAE recipe, and the papers' final values."""
    import matplotlib.pyplot as plt

    logs = [
        (row, HERE / "logs" / f"{row['name']}-0.csv")
        for row in ROWS
        if row["recipe"] == "iwae.yaml" and not row["options"].count("labels")
    ]
    logs = [(row, path) for row, path in logs if row["on"] == "cpu" and path.exists()]
    if not logs:
        return
    # Of runs that differ by their length alone, the longest, which comes last.
    longest = {row["what"].split(", ", 2)[2]: (row, path) for row, path in logs}
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, (name, (row, log)) in enumerate(longest.items()):
        lines = list(csv.DictReader(log.open()))
        colour = f"C{index}"
        ax.plot(
            [int(line["epoch"]) for line in lines],
            [float(line["objective"]) for line in lines],
            ".-",
            color=colour,
            label=name,
        )
        ax.plot(3280, row["published"], "*", color=colour, markersize=10)
    ax.set(
        xscale="log",
        xlabel="epoch",
        ylabel="nats per datum",
        ylim=(-125, -80),
        title="IWAE recipe, dynamic MNIST: training bound (lines), and\n"
        "published test log p(x) after 3,280 epochs (stars)",
    )
    ax.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    if len(sys.argv) == 2:
        found = take_over(Path(sys.argv[1]))
        (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    readme = HERE / "README.md"
    readme.write_text(rendered(readme.read_text()))
    draw_curves(HERE / "curves.png")
    draw_cost(HERE / "cost.png")
