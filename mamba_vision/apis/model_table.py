"""The reference table of all variants: counted here, with the published figures of the metafiles beside."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import yaml
from mmengine.config import Config

from mamba_vision.apis.complexity import CONVENTION, Complexity, complexity
from mamba_vision.apis.example_inputs import example_inputs, published_size
from mamba_vision.apis.image_model import named_settings
from mamba_vision.apis.model_names import Variant, variants
from mamba_vision.apis.models import get_model
from mamba_vision.utils.paths import project_folder
from mamba_vision.utils.quiet import quiet_imports

INTRODUCTION = f"""# Models

All variants by name, counted by `python tools/analysis_tools/model_table.py`, which writes this page. Any of them:

```python
import mamba_vision

model = mamba_vision.get_model("vmamba_tiny_s1l8", pretrained="vssm1_tiny_0230s_ckpt_epoch_264.pth")
```

`list_models("*vmamba*")` lists, and `tools/analysis_tools/get_flops.py` counts for another size. Every system also has
variants for tests and demonstrations (`vim_test`, `umamba_bot_tiny` …), which are left out here.

Backbones are counted with the head of 1000 classes. Of the published figures, those of accuracy are quoted; they have
not been reproduced here. All operations are for one input of the size shown, in units of 10⁹:

```text
{CONVENTION}
```

| name | parameters | input | multiply-adds | scan | FLOPs | published | top-1 |
|:-----|-----------:|:------|--------------:|-----:|------:|----------:|------:|
"""
NOTES = """
*LocalVim*: the published figures come from a formula that counts convolution and projections once for all four
directions, and a scan as 5 operations for each step, channel and state. By that formula these have 1.5 and 4.8.

*RSMamba*: no figures are published. Those shown are a count of the published code, which runs each of the three paths
through all projections; here the paths share the projections before and behind the scan, with the same result.

*ProMamba* is counted without prompts. Neither its sizes nor its weights were published: the variants are this
toolkit's.
"""


@dataclass(frozen=True)
class Published:
    """Figures in a metafile."""

    flops: int | None
    top1: float | None


def table_page(pattern: str = "*") -> str:
    """The page, Markdown."""
    rows = [table_row(names) for names in published_names(pattern)]
    return INTRODUCTION + "\n".join(rows) + "\n" + NOTES


def published_names(pattern: str = "*") -> list[list[str]]:
    """Names of the published variants, second names of one variant together; those for tests left out."""
    from fnmatch import fnmatch

    groups: dict[tuple, list[str]] = {}
    with_test = {variant.system for variant in variants().values() if variant.options["arch"] == "test"}
    for name, variant in variants().items():
        arch = variant.options["arch"]
        tiny_is_published = variant.is_backbone or variant.system in with_test
        for_tests = arch.startswith("test") or (arch.startswith("tiny") and not tiny_is_published)
        if fnmatch(name, pattern) and not for_tests:
            form = str({key: value for key, value in variant.options.items() if key != "arch"})
            groups.setdefault((variant.system, id(variant.settings), form), []).append(name)
    # the fullest name first: vmamba_tiny_s1l8, also called vmamba_tiny
    return sorted(sorted(names, key=lambda name: (-len(name), name)) for names in groups.values())


def table_row(names: list[str]) -> str:
    """The row of a variant, which may have several names."""
    variant = variants()[names[0]]
    size, cost = count(names[0])
    found = published(variant)
    known = "" if found.flops is None else f"{found.flops / 1e9:.4g}"
    giga = [f"{value / 1e9:.2f}" for value in (cost.multiply_adds, cost.scan, cost.flops)]
    name = ", ".join(f"`{name}`" for name in names)
    top1 = "" if found.top1 is None else f"{found.top1:g}"
    cells = [name, f"{cost.parameters:,}", " × ".join(map(str, size)), *giga, known, top1]
    return f"| {' | '.join(cells)} |"


def count(name: str) -> tuple[tuple[int, ...], Complexity]:
    """(channels and size of the input, cost) of a variant at the size that it was published for."""
    with torch.device("meta"):
        model = get_model(name)
    inputs = example_inputs(model, published_size(variants()[name], model))
    return tuple(inputs[0].shape[1:]), complexity(model, *inputs)


def published(variant: Variant) -> Published:
    """What the metafiles say of the classifier with this variant."""
    return next((figures for settings, figures in _figures() if settings is variant.settings), Published(None, None))


@cache
def _figures() -> list[tuple[Any, Published]]:
    """(entry of the table of variants, figures) of each classifier in the metafiles."""
    configs = project_folder("configs")
    found = []
    for metafile in sorted(configs.glob("*/metafile.yml")):
        for model in yaml.safe_load(metafile.read_text(encoding="utf-8")).get("Models", []):
            with quiet_imports():
                cfg = Config.fromfile(configs.parent / model["Config"])
            backbone = cfg.get("model", {}).get("backbone")
            if cfg.get("default_scope") != "mmpretrain" or not backbone:
                continue
            meta = model.get("Metadata", {})
            flops = meta.get("FLOPs") or meta.get("Published FLOPs")
            if not flops and "MACs" in meta:
                flops = meta["MACs"] + meta.get("Scan FLOPs", 0)
            top1 = next((r["Metrics"].get("Top 1 Accuracy") for r in model.get("Results", [])), None)
            found.append((named_settings(backbone), Published(flops, top1)))
    return found
