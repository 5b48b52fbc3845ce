"""Scan orders: a grid shape in, K index sequences out. See docs/scan-orders.md for pictures of all."""

from mamba_vision.scan_orders.base import (
    ZERO,
    Orders,
    ScanOrder,
    clear_cache,
    hold_orders,
    invert,
    register,
    side_by_side,
    token_grid,
)
from mamba_vision.scan_orders.class_tokens import around_class_tokens, grid_orders, orders_around, sequence_order
from mamba_vision.scan_orders.combined import Combined, Prompted
from mamba_vision.scan_orders.cross import Cascade, Cross
from mamba_vision.scan_orders.hilbert import Hilbert
from mamba_vision.scan_orders.interleaved import Reorder, TriOriented
from mamba_vision.scan_orders.late_tokens import read_last
from mamba_vision.scan_orders.local import Local
from mamba_vision.scan_orders.random_paths import Random, Shuffle, orders_from_permutations, orders_from_scores
from mamba_vision.scan_orders.raster import Bidirectional, Raster
from mamba_vision.scan_orders.tokens import (
    class_token_places,
    fold,
    gather_tokens,
    insert_tokens,
    matrices_of_tokens,
    orders_of_table,
    patch_token,
    return_as_published,
    return_tokens,
    split_tokens,
    unfold,
)
from mamba_vision.scan_orders.zigzag import Zigzag, ZigzagVideo

__all__ = [
    "ZERO",
    "Bidirectional",
    "Cascade",
    "Combined",
    "Cross",
    "Hilbert",
    "Local",
    "Orders",
    "Prompted",
    "Random",
    "Raster",
    "Reorder",
    "ScanOrder",
    "Shuffle",
    "TriOriented",
    "Zigzag",
    "ZigzagVideo",
    "around_class_tokens",
    "class_token_places",
    "clear_cache",
    "fold",
    "gather_tokens",
    "grid_orders",
    "hold_orders",
    "insert_tokens",
    "invert",
    "matrices_of_tokens",
    "orders_around",
    "orders_from_permutations",
    "orders_from_scores",
    "orders_of_table",
    "patch_token",
    "read_last",
    "register",
    "return_as_published",
    "return_tokens",
    "sequence_order",
    "side_by_side",
    "split_tokens",
    "token_grid",
    "unfold",
]
