"""What would only show during training: a last batch of one, and columns far from zero."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.contracts import ProgramLike, as_module, sites_of
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.distributions import innermost_support, stated_support
from pyro_vae.runtime.checks import traces_at
from pyro_vae.validation import InvalidInput, short, tensors_of

__all__ = ["check_batches", "warn_of_scales"]

RUNS, RUN = 64, 256  # of rows that are looked at

FAR = 100.0  # where networks that start near 0 and 1 cannot be expected to get
NAMED = 8  # columns that a warning names

BatchNorm = nn.modules.batchnorm._BatchNorm


def check_batches(program: ProgramLike, data: Dataset, batch_size: int) -> None:
    """Raise `InvalidInput` if the last batch is one datum, of which a BatchNorm has no variance.

    A BatchNorm over images is content with one: it averages over the pixels, too.
    """
    if len(data) % batch_size != 1 and batch_size != 1 and len(data) != 1:
        return
    norms = {
        name: module
        for name, module in as_module(program).named_modules()
        if isinstance(module, BatchNorm)
    }
    lonely: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].numel() == inputs[0].shape[1]:
                lonely.append(name)

        return hook

    hooks = [module.register_forward_pre_hook(look_at(name)) for name, module in norms.items()]
    try:
        if norms:
            traces_at(program, data.looked_at, data.context)
    finally:
        for hook in hooks:
            hook.remove()
    if lonely:
        batch = min(batch_size, len(data))
        raise InvalidInput(
            "batch_size",
            got=f"{batch_size} for {len(data)} data, whose last batch is one datum, with BatchNorm "
            f"{lonely[0]!r}",
            expected="two data or more in every batch, for a variance over them",
            fix=f"pass batch_size={batch + 1} (--batch-size {batch + 1}), or use LayerNorm",
        )


def _spread(values: Tensor) -> Tensor:
    """All rows, or of many some that lie all over them, in runs that a disk reads at once."""
    if len(values) <= RUNS * RUN:
        return values[:]
    starts = torch.linspace(0, len(values) - RUN, RUNS, dtype=torch.float64).long()
    return values[(starts[:, None] + torch.arange(RUN)).flatten()]


def warn_of_scales(program: ProgramLike, data: Dataset) -> None:
    """Warn of entries of real x that are hundreds of units from 0, or as far apart.

    A density with a scale near 1, whose network starts near 0, then takes most of the training to
    find where the data are, if it does.
    """
    sites = sites_of(traces_at(program, data.looked_at, data.context)[1])
    for name, x in tensors_of(data.looked_at).items():
        site = sites.get(name or "x")
        if site is None:
            continue
        few = _spread(x)
        columns = few.reshape(len(few), -1).double()
        table = data.columns if data.columns is not None and not name else None
        if table is not None and len(table) == columns.shape[1]:
            is_amount = torch.tensor([column.kind in ("real", "positive") for column in table])
        elif innermost_support(stated_support(site["fn"])) is constraints.real:
            is_amount = torch.ones(columns.shape[1], dtype=torch.bool)
        else:
            continue
        known = ~torch.isnan(columns)
        count = known.sum(0).clamp(min=1)
        mean = columns.nan_to_num().sum(0) / count
        spread = (((columns - mean).nan_to_num() ** 2).sum(0) / count).sqrt()
        far = (is_amount & ((mean.abs() > FAR) | (spread > FAR)).cpu()).nonzero()
        if not len(far):
            continue
        places = far.flatten().tolist()
        kind = "entries" if table is None else "columns"
        names = [str(place) if table is None else short(table[place].name) for place in places]
        said = [
            f"{name} (mean {mean[place]:,.4g}, s.d. {spread[place]:,.4g})"
            for name, place in zip(names, places[:NAMED])
        ]
        more = f" and {len(places) - NAMED:,} others" if len(places) > NAMED else ""
        warnings.warn(
            f"x: {kind} far from 0, or widely spread, where networks start near 0 and 1: "
            f"{', '.join(said)}{more}. {_remedy(few)}",
            stacklevel=3,
        )


def _remedy(x: Tensor) -> str:
    """How values are brought near 0 and 1."""
    if x.dim() == 2:
        how, options = "Standardise the data", ("standardize=True", "--standardize true")
    else:
        largest = f"{float(x.nan_to_num().abs().max()):.3g}"
        how, options = f"Divide the data by {largest}", (f"scale={largest}", f"--scale {largest}")
    return f"{how} (pv.datasets.load(..., {options[0]}), {options[1]})"
