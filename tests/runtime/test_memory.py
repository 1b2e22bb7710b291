"""What is measured is what is allocated, and a budget is kept."""

import pytest
import torch

from pyro_vae.runtime.memory import Cost, bytes_allocated, chunks


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
