"""The smallest recorded cases on the Triton kernels, in Triton's interpreter, wherever the tests run.

Triton reads TRITON_INTERPRET when it is imported, hence processes of their own. By hand, for everything:
`TRITON_INTERPRET=1 pytest tests/kernels`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
TESTS = Path(__file__).parents[1]
SCAN = "kernels/test_selective_scan.py::test_recorded_case[triton-interpreted-scan_"
CONV = "kernels/test_causal_conv1d.py::test_recorded_case[triton-interpreted-conv_"
ORDERED = "kernels/test_ordered_scan.py::"
KERNELS = [
    *(f"{SCAN}{name}]" for name in ("l7_const_bc", "l7_var_b_const_c")),
    *(f"{CONV}{name}]" for name in ("seq_idx", "silu_w4", "w2_short", "w3_init")),
    f"{ORDERED}test_zero_token_passes_the_state_and_drops_its_output[triton-interpreted]",
    f"{ORDERED}test_repeated_tokens_add_up_and_merge_none_keeps_orders_apart[triton-interpreted]",
]
LAYERS = ["models/networks/test_umamba.py::test_mamba_layer_parity[mamba_layer_channel]"]


@pytest.mark.parametrize(
    ("chosen", "backend"), [(KERNELS, {}), (LAYERS, {"MAMBA_VISION_BACKEND": "triton"})], ids=["kernels", "layers"]
)
def test_recorded_cases_in_the_interpreter(chosen, backend):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{TESTS}/{name}" for name in chosen)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**inherited, "TRITON_INTERPRET": "1", **backend}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert re.search(rf"\b{len(chosen)} passed", run.stdout), run.stdout[-500:]
