"""Average precision against the COCO reference, where it is installed, and against both protocols spelled out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.data.rng import numpy_rng
from sept.transfer.detection_metrics import ABSENT, DetectionMetrics, headline, voc_precisions

CLASSES = 4


def image(boxes, labels, **more):
    values = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels).long()}
    return values | {key: torch.tensor(value) for key, value in more.items()}


def there(boxes, labels, ignored=None):
    return image(boxes, labels, iscrowd=np.array(ignored if ignored is not None else [0] * len(labels), np.int64))


def found(boxes, labels, scores):
    return image(boxes, labels, scores=np.array(scores, np.float32))


def drawn(seed, images, *, classes=CLASSES, ignored=0.2):
    """Images with boxes on a coarse grid, so that an IoU of exactly .5 or .6 occurs, and found boxes near them."""
    rng = numpy_rng(seed, "boxes")
    pairs = []
    for _ in range(images):
        count, more = rng.integers(0, 6), rng.integers(0, 5)
        corner, size = rng.integers(0, 12, (count, 2)), rng.integers(1, 7, (count, 2))
        labels = rng.integers(1, classes + 1, count)
        truth = there(np.hstack([corner, corner + size]) * 8, labels, rng.random(count) < ignored)
        moved = np.hstack([corner, corner + size])[rng.permutation(count)[: rng.integers(0, count + 1)].repeat(2)]
        moved = moved + rng.integers(-1, 2, moved.shape) * np.array([1, 0, 1, 0])
        start = rng.integers(0, 12, (more, 2))
        boxes = np.vstack([moved, np.hstack([start, start + rng.integers(1, 7, (more, 2))])])
        boxes = boxes[boxes[:, 2] > boxes[:, 0]]
        pairs.append((boxes, rng.integers(1, classes + 1, len(boxes)), truth))
    scores = iter((rng.permutation(sum(len(boxes) for boxes, _, _ in pairs)) + 1) / 1000)  # all different
    return [found(b * 8, k, [next(scores) for _ in k]) for b, k, _ in pairs], [truth for _, _, truth in pairs]


def measured(detected, truth, classes=CLASSES):
    metrics = DetectionMetrics(classes)
    half = len(truth) // 2
    metrics.update(detected[:half], truth[:half])
    metrics.update(detected[half:], truth[half:])
    return metrics.compute()


# The protocols, box by box


def iou(a, b, *, of_first=False):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if min(width, height) <= 0:
        return 0.0
    first, second = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (first if of_first else first + second - width * height)


def ranked(detected, label):
    """(score, image, box) of a class, the best first."""
    rows = [
        (score, place, box)
        for place, each in enumerate(detected)
        for score, box, kind in zip(
            each["scores"].tolist(), each["boxes"].tolist(), each["labels"].tolist(), strict=True
        )
        if kind == label
    ]
    return sorted(rows, key=lambda row: -row[0])


def truths(truth, label):
    return [
        [
            [box, bool(crowd), False]
            for box, crowd, kind in zip(
                each["boxes"].tolist(), each["iscrowd"].tolist(), each["labels"].tolist(), strict=True
            )
            if kind == label
        ]
        for each in truth
    ]


def voc_by_hand(detected, truth, label):
    boxes = truths(truth, label)
    total = sum(not difficult for image_boxes in boxes for _, difficult, _ in image_boxes)
    if not total:
        return ABSENT
    hits, misses, curve = 0, 0, []
    for _, place, box in ranked(detected, label):
        best = max(boxes[place], key=lambda each: iou(box, each[0]), default=None)
        if best is None or iou(box, best[0]) < 0.5:
            misses += 1
        elif best[1]:
            continue
        elif best[2]:
            misses += 1
        else:
            hits, best[2] = hits + 1, True
        curve.append((hits, hits / (hits + misses)))
    precisions = [max([p for h, p in curve if 10 * h >= tenth * total], default=0) for tenth in range(11)]
    return 100 * sum(precisions) / 11


def coco_by_hand(detected, truth, label, threshold):
    """Average precision of a class at an IoU threshold, at 101 recalls; a crowd may be found any number of times."""
    boxes = truths(truth, label)
    total = sum(not crowd for image_boxes in boxes for _, crowd, _ in image_boxes)
    if not total:
        return None
    hits, misses, curve = 0, 0, []
    for _, place, box in ranked(detected, label):
        free = [each for each in boxes[place] if not each[1] and not each[2] and iou(box, each[0]) >= threshold]
        if free:
            best = max(reversed(free), key=lambda each: iou(box, each[0]))  # of equal ones, the last
            hits, best[2] = hits + 1, True
        elif any(crowd and iou(box, other, of_first=True) >= threshold for other, crowd, _ in boxes[place]):
            continue
        else:
            misses += 1
        curve.append((hits / total, hits / (hits + misses)))
    recalls = np.linspace(0, 1, 101)
    return 100 * np.mean([max([p for r, p in curve if r >= recall], default=0) for recall in recalls])


def coco_of_classes(detected, truth, thresholds):
    """(C,) means over the thresholds; NaN where a class is not there."""
    rows = [[coco_by_hand(detected, truth, label, t) for t in thresholds] for label in range(1, CLASSES + 1)]
    return np.array([np.nan if None in row else np.mean(row) for row in rows])


THRESHOLDS = np.linspace(0.5, 0.95, 10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_both_precisions_equal_the_protocols_box_by_box(seed, images):
    detected, truth = drawn(seed, images)
    result = measured(detected, truth)
    voc = [voc_by_hand(detected, truth, label) for label in range(1, CLASSES + 1)]
    np.testing.assert_allclose(result["class_voc_ap50"], voc, atol=1e-4)
    by_class = coco_of_classes(detected, truth, THRESHOLDS)
    np.testing.assert_allclose(result["class_ap"], np.where(np.isnan(by_class), ABSENT, by_class), atol=1e-4)
    if np.isnan(by_class).all():
        assert all(result[name] == ABSENT for name in ("ap", "ap50", "ap75", "voc_ap50"))
        return
    assert result["voc_ap50"].item() == pytest.approx(np.mean([v for v in voc if v != ABSENT]), abs=1e-4)
    for name, thresholds in (("ap", THRESHOLDS), ("ap50", [0.5]), ("ap75", [0.75])):
        expected = np.nanmean(coco_of_classes(detected, truth, thresholds))
        assert result[name].item() == pytest.approx(expected, abs=1e-4), name


def test_the_precisions_are_those_of_the_coco_reference(capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    detected, truth = drawn(3, 40, classes=3)
    reference, results = coco.COCO(), coco.COCO()
    for dataset, images in ((reference, truth), (results, detected)):
        dataset.dataset = as_coco(images)
        dataset.createIndex()
    judge = evaluation.COCOeval(reference, results, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    capsys.readouterr()
    result = measured(detected, truth)
    expected = dict(zip(("ap", "ap50", "ap75"), 100 * judge.stats[:3], strict=True))
    assert {name: result[name].item() for name in expected} == pytest.approx(expected, abs=1e-4)
    by_class = 100 * judge.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    np.testing.assert_allclose(result["class_ap"], [*by_class, ABSENT], atol=1e-4)


def as_coco(images):
    annotations = [
        {
            "id": 1 + 1000 * place + k,
            "image_id": place,
            "category_id": int(each["labels"][k]),
            "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": int(each["iscrowd"][k]) if "iscrowd" in each else 0,
            "score": float(each["scores"][k]) if "scores" in each else 0,
        }
        for place, each in enumerate(images)
        for k, box in enumerate(each["boxes"].tolist())
    ]
    categories = [{"id": label} for label in (1, 2, 3)]
    return {"images": [{"id": i} for i in range(len(images))], "categories": categories, "annotations": annotations}


# What is worked out by hand


HERE, THERE = [0, 0, 10, 10], [50, 50, 60, 70]


def test_boxes_found_exactly_are_all_right_and_a_miss_after_them_costs_nothing():
    detected = [found([HERE, THERE, [80, 80, 90, 90]], [1, 2, 1], [0.9, 0.8, 0.1])]
    result = measured(detected, [there([HERE, THERE], [1, 2])], classes=3)
    assert [result[name].item() for name in ("ap", "ap50", "ap75", "voc_ap50")] == [100] * 4
    assert result["class_ap"].tolist() == result["class_voc_ap50"].tolist() == [100, 100, ABSENT]


def test_a_box_found_twice_is_a_hit_and_a_miss():
    detected = [found([HERE, HERE, THERE], [1, 1, 1], [0.9, 0.8, 0.7])]
    [precision] = voc_precisions(detected, [there([HERE, THERE], [1, 1])], 1)
    assert precision == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)  # recalls to .5 at precision 1, then 2/3


def test_a_difficult_box_is_neither_hit_nor_miss_and_a_class_of_such_alone_is_absent():
    truth = [there([HERE, THERE, THERE], [1, 1, 2], [0, 1, 1])]
    detected = [found([THERE, THERE, HERE, THERE], [1, 1, 1, 2], [0.9, 0.8, 0.7, 0.6])]
    assert voc_precisions(detected, truth, 2).tolist() == [100, ABSENT]


def test_an_overlap_of_exactly_one_half_is_a_hit_and_of_three_fifths_counts_at_that_threshold():
    half = [found([[0, 0, 10, 5]], [1], [0.9])]
    assert voc_precisions(half, [there([HERE], [1])], 1).tolist() == [100]
    result = measured([found([[0, 0, 10, 6]], [1], [0.9])], [there([HERE], [1])], classes=1)
    assert result["ap"].item() == pytest.approx(30)  # at .5, .55 and .6 of ten thresholds


def test_nothing_found_is_zero_and_nothing_there_is_absent():
    nothing, empty = found([], [], []), there([], [])
    result = measured([nothing, nothing], [there([HERE], [2]), empty], classes=2)
    assert [result[name].item() for name in ("ap", "ap50", "ap75", "voc_ap50")] == [0] * 4
    assert result["class_ap"].tolist() == result["class_voc_ap50"].tolist() == [ABSENT, 0]
    result = measured([found([HERE], [1], [0.9]), nothing], [empty, empty])
    assert all((value == ABSENT).all() for value in result.values())


def test_what_was_counted_is_forgotten():
    metrics = DetectionMetrics(1)
    for _ in range(2):
        metrics.update([found([HERE], [1], [0.9])], [there([HERE], [1])])
        assert metrics.compute()["ap50"] == 100
    metrics.update([found([], [], [])], [there([HERE], [1])])
    assert metrics.compute()["ap50"] == 0


def test_the_headline_is_cocos_for_cityscapes_and_vocs_for_the_others():
    assert headline("cityscapes") == "ap"
    assert {headline(kind) for kind in ("voc", "logodet")} == {"voc_ap50"}
    assert set(DetectionMetrics(1).none()) >= {headline("cityscapes"), headline("voc")}
