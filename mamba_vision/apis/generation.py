"""Drawing pictures from a trained generator: what tools/sample.py does, for Python."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.volume_model import choose_device
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.registry import MODELS
from mamba_vision.utils.quiet import quiet_imports


def init_generator(
    config: str | Path,
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    ema: bool | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> nn.Module:
    """A DiffusionGenerator with its weights, in evaluation mode.

    Args:
        config: the configuration that it was trained with.
        checkpoint: ours, or the network's as published ({'model', 'ema', ...}). Read weights-only, loaded strictly.
            Whether the network is told texts is decided by what a published file holds, as no published configuration
            says it.
        device: a GPU by default if there is one.
        ema: take the moving average stored beside the weights; None: where there is one, as published. (Checkpoints of
            our training have it in the weights' place.)
        cfg_options: changes of the configuration.

    Raises:
        FileNotFoundError: no such configuration or checkpoint.
        ValueError: the model can't be built, is no generator, or the device is not there.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another network.
    """
    device = choose_device(device)
    content = load_file(checkpoint)
    ema = isinstance(content.get("ema"), dict) if ema is None else ema
    state = find_state_dict(content, ema=ema, source=f"checkpoint {checkpoint}")
    whole = any(name.startswith("network.") for name in state)
    with quiet_imports():
        cfg = load_config(config, cfg_options)
        settings = cfg.get("model") or {}
        if not whole and settings.get("network"):
            text = state.get("y_embedder.weight")
            settings.network.text_channels = 0 if text is None else text.shape[1]
        try:
            with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
                model = MODELS.build(settings)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{config}: the model cannot be built: {error}") from error
    if not hasattr(model, "sample"):
        raise ValueError(f"{config}: expected a DiffusionGenerator, found {type(model).__name__}")
    try:
        load_published(model if whole else model.network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    model.cfg = cfg
    return model.to(device).eval()


def sample_pictures(
    model: nn.Module,
    count: int,
    classes: Sequence[int] | None = None,
    text: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    guidance: float | None = None,
    **sampler: Any,
) -> Iterator[Tensor]:
    """Batches of samples on the CPU, (B, C, H, W) or (B, T, C, H, W): pictures in [-1, 1], or latents.

    The same seed gives the same pictures whatever the batch size (SDEs: for the same batch size).

    Args:
        model: what `init_generator` gave.
        count: how many.
        classes: class numbers, taken in turn; None: all classes in turn.
        text: features (prompts, tokens, channels), taken in turn.
        size: height and width, of pictures or latents; None: those of training.
        seed: of the noise.
        guidance: stands in for the model's.
        sampler: options of `Sampler` in place of the model's, such as num_steps.

    Raises:
        ValueError: a number out of range, or a condition that the network does not know or lacks.
    """
    network, device = model.network, next(model.parameters()).device
    for name, value in (("count", count), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    condition = _conditions(network, count, classes, text)
    try:
        chosen = replace(model.sampler, **sampler)
    except TypeError as error:
        raise ValueError(f"sampler: {error}") from error
    size = tuple(network.img_size) if size is None else tuple(size)
    network.token_grid(size)
    shape = (*((network.frames,) if network.frames else ()), network.in_channels, *size)

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        later = torch.Generator().manual_seed(seed + 1)
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            noise = torch.randn(stop - start, *shape, generator=generator).to(device)
            told = None if condition is None else condition[start:stop].to(device)

            def draw(x: Tensor) -> Tensor:
                return torch.randn(x.shape, generator=later).to(x)

            yield model.sample(noise, told, chosen, guidance, draw).cpu()

    return batches()


def decode_latents(latents: Tensor, autoencoder: str | Path, device: str | torch.device | None = None) -> Tensor:
    """Pictures in [-1, 1] of latents (N, 4, H, W) or (N, T, 4, H, W), by a diffusers autoencoder.

    Args:
        autoencoder: folder, or name on the Hugging Face hub such as stabilityai/sd-vae-ft-ema; safetensors only.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
    """
    try:
        from diffusers import AutoencoderKL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("decoding latents needs diffusers: pip install diffusers") from error
    decoder = AutoencoderKL.from_pretrained(str(autoencoder), use_safetensors=True).to(choose_device(device)).eval()
    flat = latents.flatten(0, 1) if latents.ndim == 5 else latents
    with torch.no_grad():
        pictures = torch.cat([decoder.decode(one.to(decoder.device)).sample.float().cpu() for one in flat.split(1)])
    return pictures.unflatten(0, latents.shape[:2]) if latents.ndim == 5 else pictures


def _conditions(
    network: nn.Module, count: int, classes: Sequence[int] | None, text: np.ndarray | None
) -> Tensor | None:
    if text is not None and not network.text_channels:
        raise ValueError("text: this network knows no text condition")
    if classes is not None and not network.num_classes:
        raise ValueError("classes: this network knows no classes")
    in_turn = torch.arange(count)
    if network.text_channels:
        wanted = f"features (prompts, tokens, {network.text_channels})"
        if text is None:
            raise ValueError(f"text: found none, expected {wanted}")
        if text.ndim != 3 or text.shape[2] != network.text_channels or not len(text):
            raise ValueError(f"text: found shape {text.shape}, expected {wanted}")
        return torch.from_numpy(np.asarray(text, np.float32))[in_turn % len(text)]
    if not network.num_classes:
        return None
    numbers = torch.arange(network.num_classes) if classes is None else torch.as_tensor(list(classes))
    last = network.num_classes - 1
    if not len(numbers) or int(numbers.min()) < 0 or int(numbers.max()) > last:
        raise ValueError(f"classes: found {numbers.tolist()}, expected numbers from 0 to {last}")
    return numbers[in_turn % len(numbers)]
