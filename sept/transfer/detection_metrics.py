"""Average precision as COCO and as Pascal VOC 2007 define it, in percent.

COCO's is the mean over IoU thresholds .5 to .95 at 101 recalls; VOC's is taken at IoU .5 at 11 recalls.
"""

import logging
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from sept.errors import ConfigError

COUNTER: Literal["faster_coco_eval"] = "faster_coco_eval"
ABSENT = -1.0  # in place of the precision of a class without test boxes
RECALLS = 10  # VOC: at 0/10 to 10/10
VOC_IOU = 0.5
HEADLINES = {"cityscapes": "ap"}
HEADLINE = "voc_ap50"
SCALARS = {"ap": "map", "ap50": "map_50", "ap75": "map_75"}  # ours and torchmetrics' names
# As pycocotools has them; torchmetrics' own are rounded to float32, and 3 / 5 is less than their .6.
COCO_IOUS, COCO_RECALLS = np.linspace(0.5, 0.95, 10).tolist(), np.linspace(0, 1, 101).tolist()

Boxes = dict[str, Tensor]


def headline(kind: str) -> str:
    """The metric that SEPT's Table 7 most likely uses for a kind of task: COCO's for Cityscapes, VOC's for all others
    (see docs/paper.md)."""
    return HEADLINES.get(kind, HEADLINE)


class DetectionMetrics:
    """Collects detections and ground truth of images.

    found: boxes float32 (n, 4), labels int64 (n,) from 1, scores float32 (n,). there: boxes and labels, and iscrowd
    int64 (n,), 1 for boxes to be ignored. Detections in ignored boxes count neither as hit nor as miss: for COCO by the
    share of the detection inside, for VOC by IoU.
    """

    def __init__(self, classes: int) -> None:
        """Raises ConfigError if the package for COCO's metric is not installed."""
        if find_spec(COUNTER) is None:
            raise ConfigError(
                f"detection is evaluated by {COUNTER}, which is not installed: pip install 'sept[detect]'"
            )
        logging.getLogger(COUNTER).setLevel(logging.WARNING)  # it logs each of its steps
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        self.found: list[Boxes] = []
        self.there: list[Boxes] = []

    def update(self, found: list[Boxes], there: list[Boxes]) -> None:
        keys = ("boxes", "labels", "scores"), ("boxes", "labels", "iscrowd")
        self.found += [{key: image[key].detach().cpu() for key in keys[0]} for image in found]
        self.there += [{key: image[key].detach().cpu() for key in keys[1]} for image in there]

    def none(self) -> dict[str, Tensor]:
        """Results for no images."""
        scalars = {name: torch.tensor(ABSENT) for name in (*SCALARS, "voc_ap50")}
        return scalars | {name: torch.full((self.classes,), ABSENT) for name in ("class_ap", "class_voc_ap50")}

    def compute(self) -> dict[str, Tensor]:
        """ap, ap50, ap75 (COCO), voc_ap50: means over the classes with boxes; class_ap and class_voc_ap50 (C,), ABSENT
        for the others. Discards the images."""
        coco = MeanAveragePrecision(
            iou_thresholds=COCO_IOUS, rec_thresholds=COCO_RECALLS, class_metrics=True, backend=COUNTER
        )
        coco.warn_on_many_detections = False  # the 100 best per image are used, as by COCO
        coco.update(self.found, self.there)
        values = coco.compute()
        result = self.none()
        result |= {name: _percent(values[theirs]) for name, theirs in SCALARS.items()}
        result["class_ap"][values["classes"].reshape(-1).long() - 1] = _percent(values["map_per_class"]).reshape(-1)
        voc = voc_precisions(self.found, self.there, self.classes)
        result["class_voc_ap50"] = torch.from_numpy(voc).float()
        if (voc != ABSENT).any():
            result["voc_ap50"] = torch.tensor(voc[voc != ABSENT].mean()).float()
        self.reset()
        return result


def voc_precisions(found: list[Boxes], there: list[Boxes], classes: int) -> NDArray[np.float64]:
    """AP50 by class in percent, (C,), ABSENT for a class that has only ignored boxes (VOC 2007, devkit).

    By descending score, a detection is compared with the box of its class that it overlaps most: a hit if their IoU is
    at least .5 and the box was not hit before, not counted if the box is ignored, else a miss.
    """
    best = [_closest(image, truth) for image, truth in zip(found, there, strict=True)]
    starts = np.cumsum([0, *(len(truth["labels"]) for truth in there)])  # offsets of the images' boxes
    places = np.concatenate([place + start for (_, place), start in zip(best, starts[:-1], strict=True)])
    near = np.concatenate([overlap for overlap, _ in best]) >= VOC_IOU
    kinds, scores = _column(found, "labels"), _column(found, "scores")
    real, ignored = _column(there, "labels"), _column(there, "iscrowd") != 0
    counted = np.ones(len(places), np.bool_)
    counted[near] = ~ignored[places[near]]
    precisions = np.full(classes, ABSENT)
    for label in np.unique(real[~ignored]):
        mine = np.flatnonzero(counted & (kinds == label))
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        hit = _first_hits(places[mine], near[mine])
        precisions[label - 1] = 100 * _eleven_points(hit, int((real[~ignored] == label).sum()))
    return precisions


def _column(images: list[Boxes], key: str) -> NDArray:
    return np.concatenate([image[key].numpy() for image in images])


def _closest(found: Boxes, there: Boxes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each of n detections the largest IoU with a box of its class, and that box's index; 0 and 0 if there is
    none."""
    if len(there["boxes"]) == 0:
        return np.zeros(len(found["boxes"])), np.zeros(len(found["boxes"]), np.int64)
    overlaps = box_iou(found["boxes"].double(), there["boxes"].double())
    overlaps = torch.where(found["labels"][:, None] == there["labels"], overlaps, 0.0)
    best, place = overlaps.max(dim=1)
    return best.numpy(), place.numpy()


def _first_hits(place: NDArray[np.int64], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a detection is the first one for its box."""
    hit = np.zeros(len(place), np.bool_)
    hit[np.flatnonzero(near)[np.unique(place[near], return_index=True)[1]]] = True
    return hit


def _eleven_points(hit: NDArray[np.bool_], boxes: int) -> float:
    """Mean of the best precisions at a recall of at least 0, .1, .., 1; compared as integers, to avoid rounding."""
    hits = np.cumsum(hit)
    precision = hits / np.arange(1, len(hit) + 1)
    best = [precision[RECALLS * hits >= tenth * boxes].max(initial=0.0) for tenth in range(RECALLS + 1)]
    return float(np.mean(best))


def _percent(share: Tensor) -> Tensor:
    return torch.where(share < 0, ABSENT, 100 * share).float()
