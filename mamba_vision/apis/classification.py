"""Classifying pictures with MMPretrain's inferencer: files, folders or arrays, of any size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope

from mamba_vision.apis.example_inputs import first_convolution
from mamba_vision.apis.image_model import init_image_model
from mamba_vision.utils.image_files import check_sides, read_image
from mamba_vision.utils.quiet import quiet_imports

with quiet_imports():
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.structures import DataSample


@dataclass
class Classified:
    """What became of one picture.

    Attributes:
        image: its file, or number among the arrays.
        labels: names of the likeliest classes, likeliest first; numbers where names are not known.
        scores: their probabilities.
        error: why there is none of these.
    """

    image: str
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    error: str | None = None

    def as_dict(self) -> dict:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class ImageClassifierInferencer(ImageClassificationInferencer):
    """MMPretrain's inferencer for a configuration or a name, with our strict weights-only loading.

    `classify` goes through many pictures, of which some may be damaged; calling the object is MMPretrain's own way.

    Args:
        model: a configuration, or a name of `mamba_vision.list_models()`.
        pretrained: file of weights.
        device: a GPU by default if there is one.

    Raises:
        FileNotFoundError, ValueError, CheckpointError: see `init_image_model`.
    """

    def __init__(
        self,
        model: str | Path | Config,
        pretrained: str | Path,
        device: str | torch.device | None = None,
    ) -> None:
        network = init_image_model(model, pretrained, device)
        if not hasattr(network, "head") or not hasattr(network.head, "predict"):
            raise ValueError(f"{model}: expected an image classifier, found {type(network).__name__}")
        super().__init__(network, pretrained=False)
        self.channels = first_convolution(network.backbone).in_channels

    def _init_pipeline(self, cfg: Config) -> Callable:
        """The test pipeline; where the data set has arrays and no files, the configuration's `test_pipeline`."""
        cfg = cfg.copy()
        data = cfg.test_dataloader.dataset
        if data.pipeline[0].type != "LoadImageFromFile" and "test_pipeline" in cfg:
            data.pipeline = cfg.test_pipeline
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return super()._init_pipeline(cfg)

    def classify(
        self,
        images: Iterable[str | Path | np.ndarray],
        batch_size: int = 8,
        topk: int = 5,
        draw: Callable[[str], Path] | None = None,
    ) -> Iterator[Classified]:
        """The likeliest classes of pictures, in their order; one that can't be read has an error instead.

        Args:
            images: files, or arrays (H, W, C), colour as BGR.
            batch_size: pictures predicted together.
            topk: classes reported.
            draw: file for the picture with its label on it, from `Classified.image`; None for no pictures.
        """
        rest = iter(enumerate(images))
        while batch := list(islice(rest, batch_size)):
            found, ready, pictures = [], [], []
            for number, image in batch:
                result = Classified(str(number) if isinstance(image, np.ndarray) else str(image))
                found.append(result)
                try:
                    picture = read_image(image, self.channels)
                    check_sides(picture, result.image)
                    shape = picture.shape[:2]
                    ready.append(self.pipeline(dict(img=picture, img_shape=shape, ori_shape=shape)))
                    pictures.append((result, picture))
                except (ValueError, OSError) as error:
                    result.error = str(error)
            samples = self.forward(default_collate(ready)) if ready else []
            for (result, picture), sample in zip(pictures, samples):
                self._fill(result, sample, topk)
                if draw is not None:
                    self._draw(picture, sample, draw(result.image))
            yield from found

    def _fill(self, result: Classified, sample: DataSample, topk: int) -> None:
        scores, numbers = sample.pred_score.float().topk(min(topk, sample.pred_score.numel()))
        result.scores = [round(score, 6) for score in scores.tolist()]
        result.labels = [self.classes[n] if self.classes else str(n) for n in numbers.tolist()]

    def _draw(self, picture: np.ndarray, sample: DataSample, file: Path) -> None:
        if self.visualizer is None:
            from mmpretrain.visualization import UniversalVisualizer

            self.visualizer = UniversalVisualizer()
        rgb = np.ascontiguousarray(picture[..., ::-1] if picture.shape[2] == 3 else picture.repeat(3, axis=2))
        file.parent.mkdir(parents=True, exist_ok=True)
        short = min(picture.shape[:2])
        self.visualizer.visualize_cls(
            rgb, sample, self.classes, draw_gt=False, resize=None if short >= 224 else 224, out_file=str(file)
        )
