from mmengine.config import Config

from mamba_vision.utils.format_once import install_format_cache


def test_the_same_text_is_laid_out_once(monkeypatch):
    from yapf.yapflib import yapf_api

    calls, original = [], getattr(yapf_api.FormatCode, "__wrapped__", yapf_api.FormatCode)
    monkeypatch.setattr(yapf_api, "FormatCode", lambda text, **options: calls.append(1) or original(text, **options))
    cfg = Config({"a": {"b": [1, 2, 3]}, "model": {"type": "Some", "width": 3}})
    before = cfg.pretty_text
    install_format_cache()
    installed = yapf_api.FormatCode
    install_format_cache()
    assert yapf_api.FormatCode is installed
    del calls[:]
    assert [cfg.pretty_text for _ in range(3)] == [before] * 3 and len(calls) == 1
    cfg.a.b = [4]
    assert cfg.pretty_text != before and "4" in cfg.pretty_text
