"""Building, errors, the cache, tracing, and the helpers around tokens."""

import pickle
from pathlib import Path

import pytest
import torch
from packaging.version import Version

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import (
    Cross,
    ScanOrder,
    base,
    class_token_places,
    clear_cache,
    fold,
    gather_tokens,
    insert_tokens,
    invert,
    orders_from_permutations,
    orders_from_scores,
    patch_token,
    return_tokens,
    sequence_order,
    side_by_side,
    split_tokens,
)
from mamba_vision.scan_orders.cache import BoundedCache

NAMES = {
    "bidirectional", "cascade", "combined", "cross", "hilbert", "local", "prompted", "random", "raster", "reorder",
    "shuffle", "tri_oriented", "zigzag", "zzvideo",
}  # fmt: skip


# ---- building -----------------------------------------------------------------------------------------------------
def test_published_names() -> None:
    SCAN_ORDERS.build("raster")  # the registry imports the orders when it is first asked
    assert set(SCAN_ORDERS.module_dict) >= NAMES


def test_an_order_is_named_in_many_ways() -> None:
    cross = Cross()
    assert SCAN_ORDERS.build("cross") == SCAN_ORDERS.build(dict(type="cross")) == cross
    assert (
        SCAN_ORDERS.build(dict(type="mamba_vision.cross", mode="cross")) == SCAN_ORDERS.build(dict(type=Cross)) == cross
    )
    assert SCAN_ORDERS.build(cross) is cross
    listed = SCAN_ORDERS.build(["cross", dict(type="local", directions=["w2", "w7"]), cross])
    assert listed.labels == (*cross.labels, "w2", "w7", *cross.labels)
    assert pickle.loads(pickle.dumps(listed)) == listed
    assert isinstance(listed, ScanOrder)


@pytest.mark.parametrize(
    "spec,message",
    [
        ("crosss", "'crosss' is not known, expected one of bidirectional, cascade"),
        (dict(mode="cross"), "has no `type`"),
        (dict(type="cross", modes="bidi"), "no option modes; it has mode"),
        (7, "7, expected a name"),
        ([], "expected a list of scan orders"),
        (["raster", "nowhere"], "'nowhere' is not known"),
        (dict(type="cross", mode=1), "mode is 1, expected one of 'cross', 'unidi', 'bidi', 'rotations'"),
        (dict(type="cascade", along="depth"), "along is 'depth', expected one of 'rows', 'columns'"),
        (dict(type="raster", axes=[0, 2]), r"axes is \(0, 2\), expected a permutation"),
        (dict(type="local", directions=["h", "x2"]), r"directions are \('h', 'x2'\), expected names like h, h_flip"),
        (dict(type="local", directions=["w0"]), "directions are"),
        (dict(type="local", directions=[]), "directions are"),
        (dict(type="zigzag", schemes=[8]), r"schemes are \(8,\), expected numbers from 0 to 7"),
        (dict(type="hilbert", schemes=[]), r"schemes are \(\), expected numbers from 0 to 7"),
        (dict(type="zzvideo", order="ss"), "order is 'ss', expected letters s and t"),
        (dict(type="zzvideo", layer=-1), "layer is -1, expected 0, 1, 2"),
        (dict(type="random", paths=[-1]), r"paths are \(-1,\), expected numbers from 0"),
        (dict(type="random", seed=-1), "seed is -1, expected a number from 0 to"),
        (dict(type="shuffle", paths=["up"]), "paths is 'up', expected one of 'forward', 'reverse', 'shuffle'"),
        (dict(type="shuffle", paths=[]), "expected some of forward, reverse, shuffle"),
        (dict(type="shuffle", seed=-1), "seed is -1, expected None or a number from 0 to"),
        (dict(type="tri_oriented", slices=0), "slices is 0, expected a number from 1, or None"),
        (dict(type="reorder", rate=0), "rate is 0, expected a number from 1"),
        (dict(type="prompted", prompts=-1), "prompts is -1, expected a number from 0"),
    ],
)
def test_bad_options(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCAN_ORDERS.build(spec)


@pytest.mark.parametrize(
    "spec,grid,message",
    [
        ("cross", (2, 3, 4), r"'cross': grid \(2, 3, 4\) has 3 axes, expected 2"),
        ("zzvideo", (2, 3), "has 2 axes, expected 3"),
        ("raster", (1, 2, 3, 4), "has 4 axes, expected 1 or 2 or 3"),
        ("raster", (), "has 0 axes, expected 1 or 2 or 3"),
        ("raster", (0, 3), r"grid \(0, 3\) has an axis shorter than 1"),
        (dict(type="raster", axes=[1, 0]), (2, 3, 4), r"axes \(1, 0\) name 2 axes, the grid \(2, 3, 4\) has 3"),
        (["raster", "cascade"], (2, 3), "do not know the same tokens"),
        (["raster", dict(type="local", class_token=True)], (2, 3), "do not know the same tokens"),
        (["raster", "cross"], (6,), r"'combined': grid \(6,\) has 1 axes, expected 2"),
        (dict(type="prompted", order="cascade"), (2, 3), "prompts need all of them"),
    ],
)
def test_bad_grids(spec: object, grid: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCAN_ORDERS.build(spec)(grid)


# ---- the cache ----------------------------------------------------------------------------------------------------
def test_layers_that_scan_alike_share_one_table() -> None:
    first, second = SCAN_ORDERS.build("cross"), SCAN_ORDERS.build("cross")
    assert first((5, 7)) is second([5, 7])
    assert first((5, 7)) is not SCAN_ORDERS.build(dict(type="cross", mode="bidi"))((5, 7))
    assert first((5, 7), device="meta").indices.device.type == "meta"
    kept = first((5, 7))
    clear_cache()
    assert first((5, 7)) is not kept


def test_cache_tells_what_it_hands_out():
    cache = BoundedCache(max_entries=1)
    cache.get("before", list, len)
    with cache.holding() as held:
        made = [cache.get(key, lambda key=key: [key], len) for key in ("a", "b", "b")]
    cache.get("after", list, len)
    assert held == made and len(cache) == 1


def test_the_cache_is_bounded() -> None:
    cache = BoundedCache(max_entries=3, max_bytes=100)
    for key in range(5):
        cache.get(key, lambda: object(), lambda _: 10)
    assert (len(cache), cache.bytes) == (3, 30)
    kept = cache.get(2, object, lambda _: 10)
    cache.get("new", object, lambda _: 10)  # 3 goes, as 2 was used later
    assert cache.get(2, object, lambda _: 10) is kept
    cache.get("large", object, lambda _: 95)
    assert (len(cache), cache.bytes) == (1, 95)
    cache.get("larger than all", object, lambda _: 101)
    assert (len(cache), cache.bytes) == (1, 95)


def test_many_grids_do_not_fill_the_memory() -> None:
    clear_cache()
    order = SCAN_ORDERS.build("raster")
    for side in range(1, 300):
        order((side,))
    assert len(base._cache) <= 128


def test_a_table_from_validation_serves_training() -> None:
    clear_cache()
    order = SCAN_ORDERS.build("cross")
    with torch.inference_mode():
        order((2, 3))
    x = torch.randn(1, 6, 2, requires_grad=True)
    return_tokens(gather_tokens(x, order((2, 3))), order((2, 3))).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 4.0))


def test_fake_tensors_are_not_kept() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    clear_cache()
    order = SCAN_ORDERS.build("cross")
    with FakeTensorMode():
        order((2, 3))
    assert order((2, 3)).indices[1].tolist() == [0, 3, 1, 4, 2, 5]
    with FakeTensorMode():
        torch.empty(1, 6, 2)[:, order((2, 3)).indices]  # a real table would be refused here


def test_a_shuffle_is_drawn_anew_unless_seeded() -> None:
    order = SCAN_ORDERS.build(dict(type="shuffle", paths=["shuffle"]))
    assert not torch.equal(order((9, 9)).indices, order((9, 9)).indices)
    combined = SCAN_ORDERS.build([order, "raster"])
    assert not torch.equal(combined((9, 9)).indices, combined((9, 9)).indices)
    seeded = SCAN_ORDERS.build(dict(type="shuffle", paths=["shuffle"], seed=5))
    again = SCAN_ORDERS.build(dict(type="shuffle", paths=["shuffle"], seed=5))
    assert torch.equal(seeded((9, 9)).indices, again((9, 9)).indices)
    other = SCAN_ORDERS.build(dict(type="shuffle", paths=["shuffle"], seed=6))
    assert not torch.equal(seeded((9, 9)).indices, other((9, 9)).indices)
    with pytest.raises(ValueError, match=r"scores of shape \(5,\), expected one for each token of \(2, 3\)"):
        order((2, 3), scores=torch.rand(5))


# ---- tracing ------------------------------------------------------------------------------------------------------
class Scan(torch.nn.Module):
    """Tokens of a map in every sequence of an order, merged again with position-dependent weights."""

    def __init__(self, spec: object) -> None:
        super().__init__()
        self.order = SCAN_ORDERS.build(spec)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        orders = self.order(x.shape[2:], x.device)
        tokens = fold(x.flatten(2).transpose(1, 2), orders)
        if getattr(self.order, "class_token", False):
            tokens = insert_tokens(tokens, tokens[:, :1], class_token_places("middle", tokens.shape[1]))
        sequences = gather_tokens(tokens, orders)
        return return_tokens(sequences.cumsum(2), orders).sum(1)


DYNAMIC = [
    "raster",
    dict(type="raster", axes=[1, 0], reverse=True),
    "bidirectional",
    *(dict(type="cross", mode=mode) for mode in ("cross", "rotations")),
    dict(type="cascade", along="columns"),
    dict(type="local", directions=["h", "v_flip"]),
    dict(type="local", directions=["w3", "w3_flip"]),
    dict(type="local", directions=["v", "w3"], class_token=True),
    "zigzag",
    "tri_oriented",
    dict(type="reorder", rate=3),
    ["cross", "zigzag"],
]
TABLES = ["hilbert", dict(type="random", paths=[1]), dict(type="shuffle", seed=1)]


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("spec", DYNAMIC, ids=str)
def test_exported_graphs_keep_the_grid_dynamic(spec: object, strict: bool) -> None:
    scan = Scan(spec)
    scan(torch.randn(1, 2, 6, 7))  # a table in the cache must not get into the graph
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    shapes = ({2: height, 3: width},)
    program = torch.export.export(scan, (torch.randn(1, 2, 6, 7),), dynamic_shapes=shapes, strict=strict)
    for grid in ((6, 7), (5, 8), (13, 4)):
        x = torch.randn(1, 2, *grid)
        torch.testing.assert_close(program.module()(x), scan(x))


@pytest.mark.skipif(Version(torch.__version__) < Version("2.13"), reason="the extra `export` needs torch 2.13 or newer")
@pytest.mark.parametrize("spec", ["cross", "zigzag", dict(type="reorder", rate=5), DYNAMIC[7]], ids=str)
def test_onnx_files_keep_the_grid_dynamic(spec: object, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    scan = Scan(spec)
    shapes = ({2: torch.export.Dim("height", min=2, max=64), 3: torch.export.Dim("width", min=2, max=64)},)
    program = torch.onnx.export(
        scan.eval(), (torch.randn(1, 2, 6, 7),), dynamic_shapes=shapes, dynamo=True, verbose=False
    )
    program.save(tmp_path / "scan.onnx")
    session = runtime.InferenceSession(tmp_path / "scan.onnx")
    for grid in ((6, 7), (5, 8), (13, 4)):
        x = torch.randn(1, 2, *grid)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), scan(x))


@pytest.mark.parametrize("spec", TABLES, ids=str)
def test_tables_export_for_one_grid_and_say_so(spec: object) -> None:
    scan, x = Scan(spec), torch.randn(1, 2, 6, 7)
    for strict in (False, True):
        program = torch.export.export(scan, (x,), strict=strict)
        torch.testing.assert_close(program.module()(x), scan(x))
    with pytest.raises(ValueError, match="is a table: export the model for one grid size"):
        torch.export.export(scan, (x,), dynamic_shapes=({2: torch.export.Dim.AUTO},), strict=False)


@pytest.mark.parametrize("spec", ["cross", "hilbert", dict(type="local", directions=["v", "w3"]), "shuffle"], ids=str)
def test_compiled_without_a_graph_break(spec: object) -> None:
    scan = Scan(spec)
    compiled = torch.compile(scan, fullgraph=True, backend="eager")
    for grid in ((6, 7), (4, 5), (7, 3)):
        x = torch.ones(1, 2, *grid)
        if spec == "shuffle":
            assert compiled(x).shape == scan(x).shape
        else:
            torch.testing.assert_close(compiled(x), scan(x))


# ---- helpers ------------------------------------------------------------------------------------------------------
def test_invert_left_out_and_repeated_tokens() -> None:
    assert invert(torch.tensor([[2, -1, 0, 2], [1, 1, -1, 1]]), 4).tolist() == [[2, -1, 0, -1], [-1, 0, -1, -1]]


def test_side_by_side_fills_up_with_the_zero_token() -> None:
    joined = side_by_side([torch.tensor([[0, 1, 2]]), torch.tensor([[0], [1]])])
    assert joined.tolist() == [[0, 1, 2], [0, -1, -1], [1, -1, -1]]


def test_orders_from_permutations() -> None:
    walks = torch.stack([torch.randperm(5) for _ in range(6)]).reshape(3, 2, 5).int()
    orders = orders_from_permutations(walks)
    x = torch.randn(3, 5, 2)
    y = gather_tokens(x, orders)
    assert torch.equal(y[1, 1], x[1, walks[1, 1].long()])
    assert torch.equal(return_tokens(y, orders), x[:, None].expand(3, 2, 5, 2))
    with pytest.raises(ValueError, match="does not hold every number from 0 to 4 once"):
        orders_from_permutations(torch.tensor([[0, 1, 2, 3, 3]]))
    with pytest.raises(ValueError, match=r"expected integers of shape \(orders, length\)"):
        orders_from_permutations(torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"scores: shape \(\), expected"):
        orders_from_scores(torch.tensor(1.0))


def test_the_helpers_refuse_other_shapes() -> None:
    orders = SCAN_ORDERS.build("cross")((2, 3))
    with pytest.raises(ValueError, match=r"x: shape \(1, 5, 2\) has 5 on axis 1, expected 6"):
        gather_tokens(torch.randn(1, 5, 2), orders)
    with pytest.raises(ValueError, match="has 2 on axis 1, expected 4"):
        return_tokens(torch.randn(1, 2, 6, 2), orders)


@pytest.mark.parametrize("where,places", [("head", (0,)), ("middle", (3,)), ("tail", (7,)), ("head_tail", (0, 8))])
def test_class_tokens(where: str, places: tuple[int, ...]) -> None:
    assert class_token_places(where, 7) == places
    x, extra = torch.randn(2, 7, 3), torch.randn(1, len(places), 3)
    joined = insert_tokens(x, extra, places)
    assert joined.shape == (2, 7 + len(places), 3)
    assert torch.equal(joined[:, list(places)], extra.expand(2, -1, -1))
    rest, out = split_tokens(joined, places)
    assert torch.equal(rest, x)
    assert torch.equal(out, extra.expand(2, -1, -1))
    assert torch.equal(joined[:, [patch_token(patch, places) for patch in range(7)]], x)
    assert torch.equal(split_tokens(x, ())[0], x) and split_tokens(x, ())[1].shape == (2, 0, 3)
    with pytest.raises(ValueError, match="class token 'center', expected one of head, middle, tail, head_tail"):
        class_token_places("center", 7)


def test_combined_orders_take_the_grids_that_all_of_them_take():
    order = SCAN_ORDERS.build(["cross", "bidirectional"])
    assert order.grid_ranks == (2,)
    with pytest.raises(ValueError, match=r"grid \(12,\) has 1 axes, expected 2"):
        order((12,))
    assert SCAN_ORDERS.build(["raster", "bidirectional"]).grid_ranks == (1, 2, 3)
    # so a sequence with a class token keeps it at its step, as for the cross order alone
    assert sequence_order(order, (2, 3), (3,)).shape == (6, 7)
