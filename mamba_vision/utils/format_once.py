"""Laying out a configuration once: MMEngine does it four times for the same text, seconds each."""

from functools import lru_cache
from typing import Any


def install_format_cache() -> None:
    """Let yapf remember the last texts it has laid out. Calling it again changes nothing."""
    from yapf.yapflib import yapf_api

    if hasattr(yapf_api.FormatCode, "remembers"):
        return
    format_code = yapf_api.FormatCode

    @lru_cache(maxsize=4)
    def remembered(text: str, style: tuple | str | None) -> tuple[str, bool]:
        return format_code(text, style_config=dict(style) if isinstance(style, tuple) else style)

    def format_once(text: str, style_config: Any = None, **options: Any) -> tuple[str, bool]:
        if options:
            return format_code(text, style_config=style_config, **options)
        return remembered(text, tuple(style_config.items()) if isinstance(style_config, dict) else style_config)

    format_once.remembers = True
    yapf_api.FormatCode = format_once
