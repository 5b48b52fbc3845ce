"""What a selective scan attends to (Ali et al., ACL 2025, arXiv 2403.01590): its matrices, and maps made of them.

Legend: B batch, K directions, E channels, N states, L steps of an order, T tokens, H, W rows and columns of patches.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.scan_orders import matrices_of_tokens, orders_of_table, patch_token, return_tokens, split_tokens


def attention_matrices(found: ScanInputs, channels: Sequence[int] | None = None, gated: bool = False) -> Tensor:
    """The matrix by which each direction and channel of a scan maps its input tokens to its output tokens.

    alpha[r, c] = sum over n of C[r, n] exp(A[n] sum of delta over c + 1 .. r) delta[c] B[c, n], where token c is read
    before token r; signed, and rows do not sum to 1.

    Args:
        found: a mixer's `scan_inputs`.
        channels: which channels; None: all (their matrices are large).
        gated: with the skip on the diagonal and the gate on rows: the whole way from the activated convolution's
            output to the layer's, before the output projection.

    Returns:
        (B, K, E, T, T), in the order of tokens, whatever the direction's own is. Zero tokens are left out.
    """
    kept = slice(None) if channels is None else list(channels)
    steps, rates, skip = found.delta[:, :, kept], found.A[:, kept], found.D[:, kept]
    total = steps.cumsum(-1)
    reach = total.unsqueeze(-1) - total.unsqueeze(-2)  # from step c to step r
    before = torch.ones_like(reach[0, 0, 0], dtype=torch.bool).tril()
    reach = torch.where(before, reach, torch.inf)  # exp(-inf): nothing comes from what is read later
    matrix = torch.zeros_like(reach)
    for n in range(rates.shape[-1]):
        weight = found.C[:, :, n, :, None] * found.B[:, :, n, None, :]
        matrix += (rates[None, :, :, n, None, None] * reach).exp() * weight[:, :, None]
    matrix = matrix * steps.unsqueeze(-2)
    if gated:
        matrix = matrix + torch.diag_embed(skip.unsqueeze(-1).expand(-1, -1, matrix.shape[-1]))
        if found.z is not None:
            matrix = matrix * nn.functional.silu(found.z[:, :, kept]).unsqueeze(-1)
    if found.order is None:
        return matrix
    return matrices_of_tokens(matrix, orders_of_table(found.order))


def attention_row(found: ScanInputs, token: int, published: bool = True) -> Tensor:
    """What one token's output takes from every token, all directions together: (B, E, T), signed.

    Args:
        found: a mixer's `scan_inputs`.
        token: number of the token that looks.
        published: as the paper's code has it, without the decay at the looking token's own step and without what it
            takes from itself. False: the row of `attention_matrices`, summed over directions.
    """
    paths = found.order
    if paths is None:
        paths = torch.arange(found.u.shape[-1], device=found.u.device).expand(found.u.shape[1], -1)
    orders = orders_of_table(paths)
    taken = torch.zeros_like(found.delta)
    for k, place in enumerate(orders.inverse[:, token].tolist()):
        last = place if published else place + 1  # of the steps that count
        if not last:
            continue
        total = found.delta[:, k].cumsum(-1)
        reach = total[..., last - 1 : last] - total[..., :last]
        decay = (found.A[k][None, :, :, None] * reach.unsqueeze(2)).exp()  # (B, E, N, steps)
        weight = found.C[:, k, :, place, None] * found.B[:, k, :, :last]
        taken[:, k, :, :last] = torch.einsum("bent,bnt->bet", decay, weight) * found.delta[:, k, :, :last]
    return return_tokens(taken.transpose(2, 3), orders).sum(1).transpose(1, 2)


@dataclass(frozen=True)
class AttentionMaps:
    """Maps over an image's patches.

    Attributes:
        raw, rollout, attribution: (B, H, W), not below 0: mean of the layers' rows; these rolled out over layers; the
            same weighted by how the score of `classes` rises with the residual stream.
        logits: (B, classes).
        classes: (B,) the class that is explained.
        rows: per layer used `attention_row` of the looking token, (B, E, T).
        gradients: per layer used the gradient of the class's logit at the residual stream behind the layer, as later
            layers see it, (B, T, C).
        layers: numbers of the layers used.
    """

    raw: Tensor
    rollout: Tensor
    attribution: Tensor
    logits: Tensor
    classes: Tensor
    rows: list[Tensor]
    gradients: list[Tensor]
    layers: list[int]


def attention_maps(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    start_layer: int | None = None,
    query: tuple[int, int] | None = None,
    published: bool = True,
) -> AttentionMaps:
    """The paper's three maps of a classifier with a plain backbone: Vim, or LocalVim.

    Args:
        model: an ImageClassifier in evaluation mode.
        images: (B, 3, height, width), normalized.
        classes: (B,) which class to explain; None: the likeliest.
        start_layer: the first layer that counts; None: 5/8 of all, which is 15 of 24 as published.
        query: (row, column) of the patch that looks; None: the class token.
        published: see `attention_row`.

    Raises:
        ValueError: the backbone is no stack of layers whose scans can be read, has no class token to look from or one
            at random places, or does not have so many layers or such a patch.
    """
    backbone = model.backbone
    layers = getattr(backbone, "layers", None)
    if layers is None or not all(hasattr(getattr(layer, "mixer", None), "scan_inputs") for layer in layers):
        raise ValueError(f"model: found {type(backbone).__name__}, expected a plain backbone, such as Vim or LocalVim")
    if getattr(backbone, "class_token", None) == "random":
        raise ValueError("model: found class_token='random', expected a class token whose place is known")
    start = round(0.625 * len(layers)) if start_layer is None else start_layer
    if not 0 <= start < len(layers):
        raise ValueError(f"start_layer: found {start}, expected a layer of 0 .. {len(layers) - 1}")
    used = list(range(start, len(layers)))
    with _watched(layers, used) as (scans, residuals), torch.enable_grad():
        logits = model(images)
        classes = logits.detach().argmax(1) if classes is None else classes.to(logits.device)
        score = logits.gather(1, classes[:, None]).sum()
        grads = torch.autograd.grad(score, [residuals[i] for i in used])
    grid = backbone.grid_of(*images.shape[-2:])
    places = backbone.class_places(grid)
    looking = _token_of(query, grid, places)
    with torch.no_grad():
        rows = [attention_row(scans[i], looking, published) for i in used]
        means = [_stretched(row, (1, 2)).mean(1) for row in rows]
        weighted = [
            _stretched(row.clamp_min(0), (1, 2)).mean(1) * _stretched(grad.clamp_min(0).amax(-1), (1,))
            for row, grad in zip(rows, grads)
        ]
        raw = torch.stack(means).mean(0)
        rollout, attribution = (_rolled_out(shares, looking) for shares in ([row.mean(1) for row in rows], weighted))
    maps = (_on_grid(one, places, grid) for one in (raw, rollout, attribution))
    return AttentionMaps(*maps, logits.detach(), classes, rows, list(grads), used)


@contextmanager
def _watched(layers: nn.ModuleList, used: Sequence[int]) -> Iterator[tuple[dict, dict]]:
    """Each layer's scan inputs, and its residual stream as only the layers behind it see it."""
    scans, residuals = {}, {}

    def read(mixer: nn.Module, given: tuple, number: int) -> None:
        with torch.no_grad():
            scans[number] = mixer.scan_inputs(*given)

    def part(layer: nn.Module, given: tuple, out: tuple[Tensor, Tensor], number: int) -> tuple[Tensor, Tensor]:
        # The layer's own norm reads the sum before this copy: that way is not meant.
        residuals[number] = out[1].clone()
        return out[0], residuals[number]

    with ExitStack() as hooks:
        for number in used:
            mixer = layers[number].mixer
            made = mixer.register_forward_pre_hook(lambda m, given, n=number: read(m, given, n))
            hooks.callback(made.remove)
            made = layers[number].register_forward_hook(lambda m, given, out, n=number: part(m, given, out, n))
            hooks.callback(made.remove)
        yield scans, residuals


def _rolled_out(shares: Sequence[Tensor], looking: int) -> Tensor:
    """Products of the layers' mixing matrices, each of which has the same row everywhere, plus the identity."""
    rolled = None
    for share in shares:
        mixing = share.unsqueeze(1) + torch.eye(share.shape[1], device=share.device, dtype=share.dtype)
        mixing = mixing / mixing.sum(-1, keepdim=True)
        rolled = mixing if rolled is None else mixing @ rolled
    return rolled[:, looking]


def _stretched(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Each sample's values, stretched to 0 .. 1 over these axes; a constant becomes 0."""
    low, high = values.amin(axes, keepdim=True), values.amax(axes, keepdim=True)
    return (values - low) / torch.where(high > low, high - low, 1)


def _token_of(query: tuple[int, int] | None, grid: tuple[int, int], places: tuple[int, ...]) -> int:
    if query is None:
        if len(places) != 1:
            raise ValueError(f"query: found none with {len(places)} class tokens, expected the patch that looks")
        return places[0]
    row, column = query
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise ValueError(f"query: found {query}, expected a row and column of the {grid[0]} x {grid[1]} patches")
    return patch_token(row * grid[1] + column, places)


def _on_grid(map_BT: Tensor, places: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    return split_tokens(map_BT, places)[0].clamp_min(0).unflatten(1, grid)
