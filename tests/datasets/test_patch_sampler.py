import pytest
from mmengine.dataset import DefaultSampler

from mamba_vision.datasets import Draw, PatchBatchSampler


def sampler(**options) -> PatchBatchSampler:
    settings = {"batch_size": 3, "iterations": 4, **options}
    return PatchBatchSampler(DefaultSampler(range(5), seed=7), **settings)


def test_draws_are_numbered_through_epochs():
    one = sampler()
    first = [draw for batch in one for draw in batch]
    one.set_epoch(1)
    second = [draw for batch in one for draw in batch]
    assert [draw.number for draw in first + second] == list(range(24))
    assert {draw.seed for draw in first} == {7}
    assert len(one) == 4


def test_a_skipped_start_gives_the_rest_of_the_epoch_once():
    one = sampler()
    whole = list(one)
    one.set_epoch(0, skip=3)
    assert list(one) == whole[3:]
    assert list(one) == whole


@pytest.mark.parametrize(
    ("batch_size", "part", "forced"), [(2, 0.33, 1), (3, 0.33, 1), (9, 0.33, 3), (4, 0, 0), (2, 1, 2)]
)
def test_the_last_patches_of_a_batch_are_forced_as_in_nnunet(batch_size, part, forced):
    for batch in sampler(batch_size=batch_size, foreground=part):
        assert [draw.foreground for draw in batch] == [False] * (batch_size - forced) + [True] * forced


def test_processes_share_the_series_without_overlap(monkeypatch):
    alone = sampler(iterations=4)
    shared = []
    for rank in range(2):
        monkeypatch.setattr("mamba_vision.datasets.patch_sampler.get_dist_info", lambda rank=rank: (rank, 2))
        shared += [draw for batch in sampler(iterations=2) for draw in batch]
    assert sorted(shared) == sorted(draw for batch in alone for draw in batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"iterations": 0}, "iterations"), ({"batch_size": 0}, "batch_size"), ({"foreground": 33}, "between 0 and 1")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)


def test_draw_is_ordered_and_hashable():
    assert Draw(0, 1, False) < Draw(0, 2, False)
    assert len({Draw(0, 1, False), Draw(0, 1, False)}) == 1
