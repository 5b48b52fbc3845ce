"""Which table of names a model goes by, when the published network is only a part of it.

A backbone stands in an mmpretrain ImageClassifier or an mmseg EncoderDecoder, which know nothing of published names.
A file of whole-model names (`backbone.layers.0 …`) goes by the backbone's table behind that prefix; a file of the bare
published classifier (`layers.0 …`, `head …`) fills backbone and head.
"""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from mamba_vision.checkpoints.renaming import matches, rename_one

Names = Callable[[str], str]


def published_part(model: nn.Module) -> tuple[str, nn.Module]:
    """(prefix, module) of what carries the table of names: the model itself (''), or a child such as 'backbone.'."""
    if not hasattr(model, "published_renames"):
        for name, child in model.named_children():
            if hasattr(child, "published_renames"):
                return f"{name}.", child
    return "", model


def naming(model: nn.Module, names: Iterable[str]) -> tuple[Names, Callable[[str], bool]]:
    """How the names of a file translate to this model's.

    Args:
        model: any module; the part that was published may carry `published_renames` and `published_ignored`, and, if it
            is a backbone, `published_head`: renames of the published classifier's head to the wrapper's.
        names: all names in the file.

    Returns:
        a function from published name to ours, and one that says whether a published name carries nothing of its own.
    """
    prefix, part = published_part(model)
    renames = tuple(getattr(part, "published_renames", ()))
    unused = tuple(getattr(part, "published_ignored", ()))
    heads = tuple(getattr(part, "published_head", ()))
    head_names = [source for source, _ in heads]
    bare = not (prefix and any(name.startswith(prefix) for name in names))

    def rename(name: str) -> str:
        if not prefix:
            return rename_one(name, renames)
        if bare:
            return rename_one(name, heads) if matches(name, head_names) else prefix + rename_one(name, renames)
        if name.startswith(prefix):
            return prefix + rename_one(name.removeprefix(prefix), renames)
        return name

    def ignored(name: str) -> bool:
        if prefix and bare and matches(name, head_names):
            return False
        if not bare:
            return name.startswith(prefix) and matches(name.removeprefix(prefix), unused)
        return matches(name, unused)

    return rename, ignored


def fitted(model: nn.Module, name: str, value: Tensor) -> Tensor:
    """`value` in the shape that the model has, where the published part knows how (`fit_published(name, value)`):
    a position table of another image size, a matrix that was stored flat."""
    prefix, part = published_part(model)
    fit = getattr(part, "fit_published", None)
    return value if fit is None or not name.startswith(prefix) else fit(name.removeprefix(prefix), value)
