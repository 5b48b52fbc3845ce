import pytest


@pytest.fixture(scope="session", autouse=True)
def plain_config_text():
    """Laying out the text of a configuration takes longer than these trainings, and nothing here reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **options: (text, True))
        yield
