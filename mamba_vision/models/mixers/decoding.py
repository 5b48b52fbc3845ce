"""Continuing a sequence token by token, as language models call their layers."""

from torch import Tensor, nn


def decode(mixer: nn.Module, x_BLC: Tensor, inference_params: object) -> Tensor:
    """The output (B, L, C) for tokens that continue those of the calls before.

    Args:
        mixer: with `layer_idx`, `allocate_inference_cache` and `step`.
        x_BLC: the next tokens, any number of them.
        inference_params: decoding state: `seqlen_offset`, 0 while the prompt is read, and `key_value_memory_dict`,
            where the mixer's cache is kept under its `layer_idx`.

    Raises:
        ValueError: the mixer has no `layer_idx`.
    """
    if mixer.layer_idx is None:
        raise ValueError("layer_idx must be given to the constructor to decode with inference_params, found None")
    caches = inference_params.key_value_memory_dict
    if mixer.layer_idx not in caches or inference_params.seqlen_offset == 0:
        caches[mixer.layer_idx] = mixer.allocate_inference_cache(x_BLC.shape[0])
    return mixer.step(x_BLC, *caches[mixer.layer_idx])[0]
