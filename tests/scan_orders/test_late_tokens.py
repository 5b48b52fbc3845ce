"""Tokens that only fill up are read last, and nothing that is read before knows of them."""

import torch

from mamba_vision.models.mixers import BidirectionalMamba
from mamba_vision.scan_orders import ZERO, Prompted, read_last


def test_order_by_hand():
    indices = torch.tensor([[0, 1, 2, 3, 0, 1], [1, 0, 3, 2, ZERO, 1]])
    late = torch.tensor([[False, True, False, False], [False] * 4])
    found = read_last(indices, late)
    assert found[0].tolist() == [[0, 2, 3, 0, 1, 1], [0, 3, 2, ZERO, 1, 1]]
    assert torch.equal(found[1], indices)


def test_a_scan_gives_the_others_what_it_gives_without():
    mixer = BidirectionalMamba(8, d_state=4).double()
    few, many = (Prompted(prompts=count)((2, 3)).indices for count in (2, 5))
    tokens = torch.randn(1, 11, 8).double()
    late = torch.arange(11)[None].eq(torch.tensor([1, 2, 4])[:, None]).any(0, keepdim=True)
    found = mixer(tokens, read_last(many, late))
    torch.testing.assert_close(found[~late], mixer(tokens[~late][None], few)[0])
