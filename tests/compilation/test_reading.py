"""Numbers that a function reads off tensors: a graph would keep them as they were."""

import numpy as np
import pytest
import torch

from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.passes import CannotCapture

factor = torch.tensor(2.0)
flag = torch.tensor(True)
READS = {
    "item": lambda x: x * factor.item(),
    "float": lambda x: x * float(factor),
    "int": lambda x: x * int(factor),
    "bool": lambda x: x * 2 if flag else x,
    "index": lambda x: x * [1, 2, 3][factor.long()],
    "tolist": lambda x: x * factor.tolist(),
    "numpy": lambda x: x * float(factor.numpy()),
    "asarray": lambda x: x * float(np.asarray(factor)),
    "equal": lambda x: x * 2 if torch.equal(factor, torch.tensor(2.0)) else x,
    "allclose": lambda x: x * 2 if factor.allclose(torch.tensor(2.0)) else x,
    "of a number times it": lambda x: x * (torch.tensor(1.0) * factor).item(),
    "of what was computed": lambda x: x * (factor + 0.0).tolist(),
    "of the data": lambda x: x * x.sum().tolist(),
    "of a draw": lambda x: x * torch.rand(()).tolist(),
}


@pytest.mark.least_torch
@pytest.mark.parametrize("read", READS)
def test_a_number_read_off_a_tensor_is_not_frozen(read):
    with pytest.raises(CannotCapture, match=r"test_reading\.py"):
        Captured(READS[read], [torch.ones(3)])


@pytest.mark.least_torch
def test_a_number_that_a_function_makes_itself_is_a_constant():
    captured = Captured(
        lambda x: x * float(torch.tensor(2.0)) + sum(torch.arange(3).tolist()), [torch.ones(3)]
    )
    (found,) = captured(torch.ones(3))
    assert found.tolist() == [5.0, 5.0, 5.0]
