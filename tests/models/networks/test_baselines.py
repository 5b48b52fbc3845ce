"""The networks to compare with."""

import pytest
import torch

from mamba_vision.models.networks import MonaiUNet, PlainUNet
from mamba_vision.registry import MODELS


def test_the_plain_network_is_nnunets():
    """dynamic-network-architectures' PlainConvUNet of this plan: 30713158 parameters, 3840 of them convolutions' biases
    in front of norms, which do nothing and are left out. With the same weights both gave the same output to 1e-14."""
    with torch.device("meta"):
        network = PlainUNet("abdomen_ct")
    assert sum(value.numel() for value in network.parameters()) == 30713158 - 3840


@pytest.mark.parametrize("size", [(8, 16, 12), (7, 13, 9)])
def test_logits_of_every_stage_finest_first(size):
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 1))
    network = PlainUNet(
        features=(4, 6, 8), strides=strides, kernel_sizes=((1, 3, 3), 3, 3), in_channels=2, num_classes=3
    )
    outputs = network(torch.randn(1, 2, *size))
    half = tuple(-(-side // step) for side, step in zip(size, (1, 2, 2)))
    assert [tuple(one.shape) for one in outputs] == [(1, 3, *size), (1, 3, *half)]
    network.deep_supervision = False
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)
    assert network.decoder[1].conv1.conv.kernel_size == (1, 3, 3)  # that of the encoder's stage beside it


def test_it_learns_at_every_resolution():
    network = PlainUNet("tiny")
    sum(one.square().mean() for one in network(torch.randn(1, 1, 8, 8, 8))).backward()
    assert all(value.grad is not None for value in network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [5, 16, 33])
def test_monais_takes_any_size(dims, size):
    network = MODELS.build(dict(type="MonaiUNet", arch="tiny", spatial_dims=dims))
    assert network(torch.randn(1, 1, *(size,) * dims)).shape == (1, 3, *(size,) * dims)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: PlainUNet("tiny", n_blocks=3), "n_blocks must be 2"),
        (lambda: PlainUNet("tiny", strides=(2, 2, 2)), "strides begin"),
        (lambda: PlainUNet("tiny", strides=(1, 2)), "one entry a stage"),
        (lambda: MonaiUNet("tiny", features=(8, 8)), "6 entries"),
        (lambda: MonaiUNet("tiny")(torch.zeros(1, 2, 8, 8, 8)), r"x must be \(batch, 1, D, H, W\)"),
        (lambda: PlainUNet("tiny")(torch.zeros(1, 1, 8, 8)), r"x must be \(batch, 1, D, H, W\)"),
    ],
)
def test_bad_arguments(build, match):
    with pytest.raises(ValueError, match=match):
        build()
