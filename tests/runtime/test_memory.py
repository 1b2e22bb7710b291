"""What is measured is what is allocated, and a budget is kept."""

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.runtime.memory import Cost, bytes_allocated, chunks, enough_memory
from pyro_vae.validation import InvalidInput


def encode_and_draw(num_data, num_samples):
    torch.zeros(1000)  # the same whatever is asked for
    x = torch.zeros(num_data, 10, dtype=torch.float64) + 1  # made twice
    return x.expand(num_samples, *x.shape).contiguous() * 2  # likewise


def test_the_cost_of_a_datum_and_of_a_draw():
    cost = Cost.of(encode_and_draw)
    assert bytes_allocated(lambda count: torch.zeros(count, 10, dtype=torch.float64)) == 80
    twice = 2 * 80
    assert (
        cost.per_draw >= twice and cost.per_datum <= twice + 80
    )  # views are counted with what they show


@pytest.mark.parametrize(
    "per_datum, per_draw, budget, num_samples",
    [(0, 1, 7, 3), (100, 10, 1000, 50), (5, 3, 1, 10), (0, 8, 10**9, 5000)],
)
def test_the_budget_is_kept_unless_one_alone_exceeds_it(per_datum, per_draw, budget, num_samples):
    cost = Cost(per_datum, per_draw)
    draws = cost.draws_at_once(budget, num_samples)
    data = cost.data_at_once(budget, draws)
    assert 1 <= draws <= num_samples and data >= 1
    assert data * (per_datum + draws * per_draw) <= budget or (
        data == 1 and (draws == 1 or per_datum + draws * per_draw <= budget)
    )
    assert (data + 1) * (per_datum + draws * per_draw) > budget


@pytest.mark.parametrize("total, size", [(10, 3), (9, 3), (1, 5), (7, 1)])
def test_chunks_cover_everything_once_and_in_order(total, size):
    assert [i for few in chunks(total, size) for i in range(few.start, few.stop)] == list(
        range(total)
    )
    assert all(few.stop - few.start <= size for few in chunks(total, size))


class Greedy(pv.VAE):
    """A program that asks for more memory than any machine has."""

    def model(self, x, context=None):
        torch.empty(10**15 * len(x))
        return super().model(x, context)


def greedy():
    parts = small_vae()
    return Greedy(parts.prior, parts.likelihood, parts.posterior)


@pytest.mark.parametrize(
    "work, lower",
    [
        (lambda x: pv.elbo(greedy(), x, 5), "num_samples"),
        (lambda x: pv.generate(small_vae(), 10**15), "num"),
    ],
    ids=["scoring", "generating"],
)
def test_out_of_memory_is_one_line_with_the_size_and_what_to_lower(work, lower):
    with pytest.raises(InvalidInput, match=r"memory: got .* asked for [\d,.]+ GiB more") as refused:
        work(torch.zeros(4, 1, 8, 8))
    assert lower in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "error, size",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), "2.50 GiB"),
        (MemoryError("Unable to allocate 74.5 GiB for an array with shape (1,)"), "74.5 GiB"),
        (MemoryError(), "some"),
        (RuntimeError("std::bad_alloc"), "some"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                      "40000000000 bytes. Error code 12"), "37.3 GiB"),
    ],
)  # fmt: skip
def test_every_way_to_run_out_of_memory_is_known(error, size):
    with (
        pytest.raises(InvalidInput, match=f"the test, which asked for {size} more"),
        enough_memory("the test", "lower it"),
    ):
        raise error


def test_other_errors_are_not_about_memory():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("the test", "lower it"):
        raise RuntimeError("shapes cannot be multiplied")
