"""VMamba's `forward_type` strings, and what each means in options of our mixers.

The published code parses them at run time. Types that differ only in their kernels mean the same here, where scans
always keep their state in float32.
"""

# What the word before the first underscore says.
TYPES: dict[str, dict] = {
    **{name: {} for name in ("v01", "v02", "v03", "v04", "v05", "v2", "v3")},
    "v051d": {"scan": {"type": "cross", "mode": "unidi"}},
    "v052d": {"scan": {"type": "cross", "mode": "bidi"}},
    "v052d3": {"scan": {"type": "cross", "mode": "rotations"}},
    "v052dc": {"type": "CascadeSS2D"},
    "m0": {"type": "SSD2D"},
}
# The first generation takes no suffix and fixes these options whatever the config says.
FIRST = {"act": "silu", "d_conv": 3, "conv_bias": True, "ssm_init": "v0"}
SUFFIXES: dict[str, dict] = {
    "no32": {},  # inputs in half precision are not raised before the scan: here they never are
    "noz": {"gate": False},
    "nozact": {"gate_act": False},
    "oact": {"out_act": True},
    "onnone": {"out_norm": "none"},
    "ondwconv3": {"out_norm": "dwconv3"},
    "oncnorm": {"out_norm": "cnorm"},
    "onsoftmax": {"out_norm": "softmax"},
    "onsigmoid": {"out_norm": "sigmoid"},
}


def options_of(forward_type: str) -> dict:
    """Config (type and options) of the mixer that a published `forward_type` stands for.

    Suffixes are taken in any order.

    Raises:
        ValueError: an unknown type or suffix, or one that fails in the published code too (xv1a, xv2a, xv3a).
    """
    base, *suffixes = forward_type.split("_")
    if forward_type in ("v0", "v0seq"):
        return {"type": "SS2D", **FIRST}
    unknown = [suffix for suffix in suffixes if suffix not in SUFFIXES]
    if base not in TYPES or unknown:
        raise ValueError(
            f"forward_type: found {forward_type!r}, expected v0, v0seq or one of {', '.join(TYPES)} "
            f"with suffixes of {', '.join('_' + suffix for suffix in SUFFIXES)}"
        )
    options = {"type": "SS2D", **TYPES[base]}
    for suffix in suffixes:
        options |= SUFFIXES[suffix]
    return options
