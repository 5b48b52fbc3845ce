"""Testing any MMEngine configuration with its own test loop; volumes have volume_testing."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mamba_vision.apis.training import build_runner, join_processes
from mamba_vision.checkpoints import load_published


@dataclass(frozen=True)
class TestOptions:
    """The arguments of tools/test.py that concern MMEngine's test loop; see its --help."""

    __test__ = False  # not a test of pytest's

    work_dir: str | Path | None = None
    amp: bool = False
    tta: bool = False
    out: str | Path | None = None
    show: bool = False
    show_dir: str | Path | None = None
    interval: int = 1
    wait_time: float = 2
    launcher: str = "none"


def run_test(cfg: Config, checkpoint: str | Path, options: TestOptions | None = None) -> dict[str, float]:
    """Run the configuration's test loop on a checkpoint, ours or a published one, and return its metrics.

    Raises:
        ValueError: an option that the configuration has no part for, or a checkpoint that does not fit its model.
    """
    options = options or TestOptions()
    if cfg.get("test_cfg") is None or cfg.get("test_dataloader") is None:
        raise ValueError(f"{cfg.filename}: expected test_cfg, test_dataloader and test_evaluator, to test with")
    cfg.launcher, cfg.load_from, cfg.resume = options.launcher, None, False
    fallback = Path("work_dirs") / Path(cfg.filename or "test").stem
    cfg.work_dir = str(options.work_dir or cfg.get("work_dir") or fallback)
    if options.tta:
        augment_test(cfg)
    if options.amp:
        cfg.test_cfg.fp16 = True
    if options.show or options.show_dir is not None:
        hook = (cfg.get("default_hooks") or {}).get("visualization")
        if hook is None:
            raise ValueError(f"--show: expected default_hooks.visualization in {cfg.filename}")
        switch = "draw" if hook.type.endswith("SegVisualizationHook") else "enable"  # mmseg's name, mmpretrain's
        hook.update({switch: True, "show": options.show, "interval": options.interval, "wait_time": options.wait_time})
        if options.show_dir is not None:
            hook.out_dir = str(options.show_dir)
    if options.out is not None:
        if Path(options.out).suffix not in (".pkl", ".pickle"):
            raise ValueError(f"--out: expected a .pkl file for the predictions, found {options.out}")
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, {"type": "DumpResults", "out_file_path": str(options.out)}]
    join_processes(cfg, options.launcher)
    runner = build_runner(cfg)
    model = runner.model
    while hasattr(model, "module"):  # DDP, and the wrapper of test-time augmentation
        model = model.module
    load_published(model, checkpoint)
    return runner.test()


def augment_test(cfg: Config) -> None:
    """Test-time augmentation: as the configuration has it, and a classifier's without: the mean of it and its mirror.

    Raises:
        ValueError: another model's, that names none.
    """
    if cfg.model.type.rpartition(".")[2] == "ImageClassifier":
        *steps, pack = cfg.test_dataloader.dataset.pipeline
        flips = [dict(type="mmpretrain.RandomFlip", prob=prob) for prob in (0.0, 1.0)]
        cfg.setdefault("tta_model", ConfigDict(type="mmpretrain.AverageClsScoreTTA"))
        cfg.setdefault("tta_pipeline", [*steps, dict(type="mmcv.TestTimeAug", transforms=[flips, [pack]])])
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError(f"--tta: expected tta_model and tta_pipeline in {cfg.filename}")
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
