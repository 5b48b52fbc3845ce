"""The Mamba-2 layers: decoding, packed sequences, precision, errors. (Recorded cases: with Mamba-1's.)"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mamba_vision.kernels import gated_norm
from mamba_vision.models.mixers import Mamba2, Mamba2Simple
from mamba_vision.registry import MIXERS

SMALL = dict(d_state=4, headdim=4, chunk_size=4)


def test_simple_layer_decodes_from_learned_states() -> None:
    mixer, x = Mamba2Simple(8, learnable_init_states=True, ngroups=2, **SMALL).double(), torch.randn(2, 7, 8).double()
    torch.nn.init.normal_(mixer.init_states)
    states = mixer.allocate_inference_cache(2)
    stepped = torch.cat([mixer.step(x[:, t : t + 1], *states)[0] for t in range(7)], 1)
    torch.testing.assert_close(stepped, mixer(x), rtol=1e-10, atol=1e-12)
    assert "init_states" in mixer.no_weight_decay()


def test_packed_sequences_equal_each_alone() -> None:
    mixer, x = Mamba2(8, **SMALL).double(), torch.randn(1, 11, 8, dtype=torch.float64)
    alone = torch.cat([mixer(x[:, :4]), mixer(x[:, 4:])], dim=1)
    seq_idx = torch.tensor([[0] * 4 + [1] * 7])
    torch.testing.assert_close(mixer(x, seq_idx=seq_idx), alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mixer(x, cu_seqlens=torch.tensor([0, 4, 11])), alone, rtol=1e-10, atol=1e-12)
    rows = mixer(x.expand(3, -1, -1).flatten(0, 1), seqlen=11)
    torch.testing.assert_close(rows.view(3, 11, 8)[1:2], mixer(x), rtol=1e-10, atol=1e-12)


def test_gated_norm_of_groups() -> None:
    x, z, weight = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.randn(8)
    halves = [F.rms_norm(part, (4,), eps=1e-5) for part in (x * F.silu(z)).split(4, -1)]
    torch.testing.assert_close(gated_norm(x, weight, z=z, group_size=4), torch.cat(halves, -1) * weight)
    want = F.layer_norm(x, (8,), weight, weight, 1e-5) * F.silu(z)
    torch.testing.assert_close(gated_norm(x, weight, weight, z, norm="layer", norm_before_gate=True), want)
    with pytest.raises(ValueError, match="group_size is 3, expected a divisor of the 8 channels"):
        gated_norm(x, weight, group_size=3)


def test_start_and_precision() -> None:
    mixer = Mamba2(512, d_ssm=512, dtype=torch.bfloat16, A_init_range=(2, 3), conv_init=0.01)
    assert mixer.A_log.dtype == mixer.D.dtype == mixer.dt_bias.dtype == torch.float32
    assert mixer.A_log.exp().min() >= 2 and mixer.A_log.exp().max() <= 3
    steps = F.softplus(mixer.dt_bias)
    assert steps.min() >= 0.000999 and steps.max() <= 0.1001
    assert mixer.conv1d.weight.abs().max() <= 0.01
    assert mixer.no_weight_decay() == {"A_log", "D", "dt_bias"}
    assert mixer(torch.randn(1, 5, 512, dtype=torch.bfloat16)).dtype == torch.bfloat16
    small = Mamba2(8, **SMALL)
    with torch.autocast("cpu", dtype=torch.float16):
        assert small(torch.randn(1, 5, 8, dtype=torch.float16)).dtype == torch.float32


def test_registered_and_refuses_nonsense() -> None:
    assert isinstance(MIXERS.build(dict(type="Mamba2", d_model=32)), Mamba2)
    with pytest.raises(ValueError, match="d_ssm: found 12, expected a multiple of headdim 8"):
        Mamba2(8, headdim=8, d_ssm=12)
    with pytest.raises(ValueError, match="ngroups: found 3, expected a divisor of the 4 heads"):
        Mamba2(8, headdim=4, ngroups=3)
    with pytest.raises(ValueError, match="chunk_size must be positive, found 0"):
        Mamba2(8, headdim=4, chunk_size=0)
    with pytest.raises(ValueError, match="activation: found 'gelu'"):
        Mamba2Simple(8, headdim=4, activation="gelu")
    mixer = Mamba2(8, **SMALL)
    with pytest.raises(ValueError, match=r"cu_seqlens: found \[0, 3\], expected rising positions from 0 to 5"):
        mixer(torch.zeros(1, 5, 8), cu_seqlens=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="layer_idx"):
        mixer(torch.zeros(1, 2, 8), inference_params=SimpleNamespace(seqlen_offset=0, key_value_memory_dict={}))
