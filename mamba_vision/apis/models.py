"""Models by name: classifiers, feature pyramids and whole networks, with or without weights from a file."""

import functools
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mamba_vision.apis.feature_pyramid import FeaturePyramid
from mamba_vision.apis.model_names import Variant, find_variant
from mamba_vision.apis.model_weights import classes_in, load_weights, read_weights
from mamba_vision.utils.quiet import quiet_imports


def get_model(
    name: str,
    pretrained: str | Path | None = None,
    features_only: bool = False,
    in_chans: int | None = None,
    num_classes: int | None = None,
    scan: Any = None,
    **options: Any,
) -> nn.Module:
    """A model by the name of its variant.

    Backbones come as an mmpretrain ImageClassifier, whose call gives logits (B, num_classes), or as a feature pyramid;
    networks as they are.

    Args:
        name: one of `list_models()`.
        pretrained: file of weights, as published, or as saved here; read weights-only, and strictly. Only what the
            file cannot have starts anew: a head for another number of classes (with a warning) and norms of feature
            maps in a classifier's file. Where `in_chans` is not the file's three, its first convolution is adapted.
        features_only: give a `FeaturePyramid`: four maps, at strides 4, 8, 16, 32 of published variants.
        in_chans: channels of the input; default: 3 for backbones, what the variant has for networks.
        num_classes: classes of the head; 0 for pooled features (B, C) without head. Default: those of `pretrained`,
            else 1000, and for networks what the variant has.
        scan: any registered scan order in place of the published one: a name, a dict, or a list of these.
        options: more arguments of the system's class, such as drop_path_rate or with_cp.

    Raises:
        ValueError: an unknown name, or an option that this system does not have.
        FileNotFoundError: there is no file `pretrained`.
        CheckpointError: that file does not fit, or is not safe to read.
    """
    variant = find_variant(name)
    if isinstance(pretrained, bool):
        if pretrained:
            raise ValueError("pretrained: found True, expected a file of weights; configs/*/metafile.yml say where "
                             "published ones are")  # fmt: skip
        pretrained = None
    for key, value, least in (("in_chans", in_chans, 1), ("num_classes", num_classes, 0)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{key}: found {value!r}, expected a whole number of at least {least}")
    given = dict(options)
    for key, value in (("in_channels", in_chans), ("scan", scan)):
        if value is not None:
            given[key] = value
    for key, value in given.items():
        variant.check(key, value)
    settings = {**variant.options, **given}
    weights = None if pretrained is None else read_weights(pretrained)
    if not variant.is_backbone:
        build = _network(variant, settings, features_only, num_classes)
    elif features_only:
        if num_classes:
            raise ValueError(f"num_classes: found {num_classes} with features_only=True, expected none or 0")
        build = functools.partial(_build, variant, _pyramid_settings(variant, settings))
    else:
        classes = (classes_in(weights) or 1000) if num_classes is None else num_classes
        build = functools.partial(_classifier, variant, settings, classes)
    model = build()
    if weights is not None:
        load_weights(model, weights, lambda channels: build(in_channels=channels))
    return _pyramid(variant, model) if features_only else model


class LastFeature(nn.Module):
    """The head of a classifier without classes: hands on the pooled features (B, C)."""

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return features[-1]


def _build(variant: Variant, settings: dict, **more: Any) -> nn.Module:
    return variant.system(**{**settings, **more})


def _network(variant: Variant, settings: dict, features_only: bool, num_classes: int | None) -> Any:
    if features_only:
        raise ValueError(f"features_only: {variant.name} is a whole network, expected a backbone")
    if num_classes is not None:
        variant.check("num_classes", num_classes)
        settings = {**settings, "num_classes": num_classes}
    return functools.partial(_build, variant, settings)


def _classifier(variant: Variant, settings: dict, classes: int, **more: Any) -> nn.Module:
    with quiet_imports():
        from mmengine.registry import DefaultScope
        from mmpretrain.models import ImageClassifier
    settings = {**settings, **more}
    if settings.get("out_type") in ("featmap", "raw"):
        raise ValueError(f"out_type: found {settings['out_type']!r} for a classifier, expected a pooled one")
    backbone = _build(variant, settings if variant.is_plain else {"out_indices": (-1,), **settings})
    neck = None if variant.is_plain else dict(type="GlobalAveragePooling")
    linear = dict(type="LinearClsHead", num_classes=classes, in_channels=backbone.embed_dims)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = ImageClassifier(backbone, neck=neck, head=linear if classes else LastFeature())
    if classes:
        nn.init.trunc_normal_(model.head.fc.weight, std=0.02)
        nn.init.zeros_(model.head.fc.bias)
    return model


def _pyramid_settings(variant: Variant, settings: dict) -> dict:
    """What makes the backbone give maps; a plain one gives those behind each quarter of its blocks."""
    if not variant.is_plain:
        return settings
    if settings.get("out_type", "featmap") != "featmap":
        raise ValueError(f"out_type: found {settings['out_type']!r} with features_only=True, expected 'featmap'")
    settings = {"out_type": "featmap", **settings}
    if "features" in variant.arguments:
        settings = {"features": "residual", **settings}  # all that the stack knows, not what its last block adds
    if "out_indices" not in settings:
        with torch.device("meta"):
            blocks = _build(variant, settings, out_indices=-1).num_layers
        settings["out_indices"] = tuple(sorted({ceil(blocks * quarter / 4) - 1 for quarter in (1, 2, 3, 4)}))
    return settings


def _pyramid(variant: Variant, backbone: nn.Module) -> FeaturePyramid:
    indices = backbone.out_indices
    if not variant.is_plain:
        strides = [_patch_stride(backbone) * 2**i for i in indices]
        return FeaturePyramid(backbone, [backbone.dims[i] for i in indices], strides)
    strides, channels, last = (4, 8, 16, 32), (backbone.embed_dims,) * 4, len(indices) - 1
    if getattr(backbone, "pyramid", None) is not None:  # brings the maps to these strides itself
        return FeaturePyramid(backbone, channels, strides)
    return FeaturePyramid(backbone, channels, strides, [round(level * last / 3) for level in range(4)])


def _patch_stride(backbone: nn.Module) -> int:
    stride = 1
    for module in backbone.patch_embed.modules():
        if isinstance(module, nn.Conv2d):
            stride *= module.stride[0]
    return stride
