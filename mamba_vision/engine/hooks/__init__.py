from mamba_vision.engine.hooks.checkpoint import AtomicCheckpointHook, latest_checkpoint
from mamba_vision.engine.hooks.comparison import ComparisonHook
from mamba_vision.engine.hooks.cuda_graph import CudaGraphHook
from mamba_vision.engine.hooks.direction_search import DirectionSearchHook
from mamba_vision.engine.hooks.finite_loss import FiniteLossHook, TrainingDivergedError
from mamba_vision.engine.hooks.interrupt import InterruptHook, TrainingInterrupted
from mamba_vision.engine.hooks.progress import ProgressHook
from mamba_vision.engine.hooks.progress_plot import ProgressPlotHook
from mamba_vision.engine.hooks.sample_picture import SamplePictureHook
from mamba_vision.engine.hooks.schedule_change import ScheduleChangeHook
from mamba_vision.engine.hooks.training_report import TrainingReportHook
from mamba_vision.engine.hooks.validation_picture import ValidationPictureHook

__all__ = [
    "AtomicCheckpointHook",
    "ComparisonHook",
    "CudaGraphHook",
    "DirectionSearchHook",
    "FiniteLossHook",
    "InterruptHook",
    "ProgressHook",
    "ProgressPlotHook",
    "SamplePictureHook",
    "ScheduleChangeHook",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "TrainingReportHook",
    "ValidationPictureHook",
    "latest_checkpoint",
]
