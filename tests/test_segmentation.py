"""Segmentation: the official layouts, training views, UPerNet, that it learns masks, and how they are counted."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import MACHINE, SWIN, run
from PIL import Image
from safetensors.torch import load_file
from segmentation_layouts import (
    ADE_SPLITS,
    VOC_SPLITS,
    blocks,
    make_ade20k,
    make_voc_masks,
    save_mask,
)

from sept.backbones import Backbone
from sept.backbones.flops import counted_flops
from sept.compose import experiment
from sept.data.annotated import draw_images
from sept.data.detection.patterns_boxes import read_patterns_boxes
from sept.data.labelled import batches_of
from sept.data.loading import Batches, loader
from sept.data.locate import Location
from sept.data.patterns.boxed import draw_boxed_task
from sept.data.rng import generator, numpy_rng
from sept.data.segmentation.ade20k import read_ade20k
from sept.data.segmentation.masks import IGNORE, Masked, check_masks, digest, read_mask, read_masked
from sept.data.segmentation.patterns_masks import read_patterns_masks, write_masks
from sept.data.segmentation.views import GROUND, Crop, CroppedImages, WholeImages, as_lists, fitted
from sept.data.segmentation.voc import read_voc_masks
from sept.errors import ConfigError, DataError
from sept.ranges import check_ranges
from sept.runtime.hardware import no_loggers
from sept.stages.finetune import FinetuneSpec, build
from sept.store import Artefact
from sept.training.callbacks import EvaluateEvery
from sept.training.loop import train
from sept.transfer.recipes import Segment
from sept.transfer.segment import ABSENT, Segmenter, class_ious, linear
from sept.transfer.segmentation import SEGMENTER, painted, palette
from sept.transfer.segmentation_loss import pixel_loss
from sept.transfer.training import PREDICTIONS
from sept.transfer.upernet import build_segmenter

SIDE = 48
CLASSES = 4
COLOURS = [(230, 40, 40), (40, 230, 40), (40, 40, 230)]


def recipe(**changes):
    sizes = {"side": SIDE, "long_side": SIDE, "scale": [1.0, 1.0], "decoder_width": 32, "dropout": 0.0}
    short = {"epochs": 2, "batch_size": 4, "lr": 3e-3, "warmup_steps": 0, "drop_path_rate": 0.0}
    return Segment(**{"name": "segment_micro"} | sizes | short | changes)


def drawn(folder, count):
    """Coloured rectangles over noise; the class is the colour, and a rim around each is to be ignored."""
    found = []
    for i in range(count):
        rng = numpy_rng(0, "rectangles", i)
        pixels = rng.integers(90, 150, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for place, corner in enumerate(((2, 2), (26, 26))):
            label, (height, width) = (2 * i + place) % len(COLOURS), rng.integers(10, 18, 2)
            top, left = corner + rng.integers(0, 3, 2)
            mask[top - 1 : top + height + 1, left - 1 : left + width + 1] = IGNORE
            mask[top : top + height, left : left + width] = label + 1
            pixels[top : top + height, left : left + width] = COLOURS[label]
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        found.append(Masked(path.name, path, save_mask(folder / f"{i}_mask.png", mask)))
    return found


def crop(**changes):
    return Crop(**{"side": SIDE, "long_side": SIDE, "scale": (1.0, 1.0)} | changes)


def batches(images, batch_size, view=None):
    return Batches(CroppedImages(images, CLASSES, view or crop(), seed=0), len(images), batch_size, 0)


def learner(images, spec=None, seed=0):
    spec = spec or recipe()
    return Segmenter(spec, SWIN, CLASSES, None, seed=seed, steps_per_epoch=max(1, len(images) // spec.batch_size))


# The layouts


def test_voc_is_read_as_released(tmp_path):
    put = make_voc_masks(tmp_path)
    task = read_voc_masks(tmp_path)
    assert task == read_voc_masks(tmp_path / "VOCdevkit")
    assert (len(task.classes), task.classes[0], task.classes[1], task.classes[-1]) == (
        21,
        "background",
        "aeroplane",
        "tvmonitor",
    )
    for images, split in ((task.train, "train"), (task.test, "val")):
        assert [image.path.stem for image in images] == VOC_SPLITS[split]
    for image in [*task.train, *task.test]:
        pixels, mask = read_masked(image, 21)
        assert pixels.shape == (40, 60, 3)
        assert np.array_equal(mask, put[image.id])


def test_ade20k_is_read_as_released_its_classes_from_0_and_the_rest_ignored(tmp_path):
    put = make_ade20k(tmp_path)
    task = read_ade20k(tmp_path)
    assert task == read_ade20k(tmp_path / "ADEChallengeData2016")
    assert (len(task.classes), task.classes[:4]) == (150, ["wall", "building, edifice", "sky", "bed"])
    assert [len(task.train), len(task.test)] == [count for _, count in ADE_SPLITS.values()]
    for image in [*task.train, *task.test]:
        mask = read_mask(image, 150)
        expected = np.where(put[image.id] == 0, IGNORE, put[image.id] - 1)
        assert np.array_equal(mask, expected)
    assert set(np.unique(mask)) <= {0, 2, 149, IGNORE}


def test_the_digest_is_of_ids_and_classes_and_opens_nothing(tmp_path):
    for name in ("a", "b"):
        make_voc_masks(tmp_path / name)
    first, second = read_voc_masks(tmp_path / "a"), read_voc_masks(tmp_path / "b")
    assert digest(first) == digest(second)
    for image in second.train:
        image.path.write_bytes(b"")
        image.mask.write_bytes(b"")
    assert digest(read_voc_masks(tmp_path / "b")) == digest(first)
    others = (
        replace(first, classes=first.classes[:-1]),
        replace(first, train=first.train[:-1]),
        replace(first, train=first.test, test=first.train),
        replace(first, train=[image._replace(first=1) for image in first.train]),
    )
    assert len({digest(task) for task in (first, *others)}) == 5


def test_a_smaller_draw_begins_a_larger_one(tmp_path):
    images = [Masked(f"{i}.jpg", tmp_path, tmp_path) for i in range(9)]
    assert draw_images(images, 4, 0) == draw_images(images[::-1], 7, 0)[:4]
    assert draw_images(images, 9, 0) != draw_images(images, 9, 1)
    for count in (0, 10):
        with pytest.raises(DataError, match=f"^{count} training images asked for, of 9 there are; ask for fewer"):
            draw_images(images, count, 0)


def test_one_image_is_too_few_for_the_batch_norm():
    with pytest.raises(ConfigError, match=r"^task.images=1: the batch norm of finetune=segment_micro needs at least 2"):
        experiment(["task=patterns_masks", "finetune=segment_micro", "task.images=1"])


def test_a_mask_follows_its_image_when_that_is_turned_upright(tmp_path):
    stored = blocks((20, 12), 0, (3, 0, 0, 5, 4))
    upright = np.rot90(stored, -1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 12)).save(tmp_path / "x.jpg", exif=exif)
    image = Masked("x.jpg", tmp_path / "x.jpg", save_mask(tmp_path / "x.png", stored))
    assert read_masked(image, 21)[0].shape[:2] == (20, 12)
    assert np.array_equal(read_mask(image, 21), upright)
    save_mask(tmp_path / "x.png", upright)
    assert np.array_equal(read_mask(image, 21), upright)


DAMAGE = {
    "of another size": (lambda path: save_mask(path, np.zeros((40, 61))), r"61 x 40 pixels.* its image has 60 x 40"),
    "of colours": (lambda path: Image.new("RGB", (60, 40)).save(path), r"mode RGB.* one byte a pixel"),
    "of an unknown class": (lambda path: save_mask(path, np.full((40, 60), 21)), r"the value 21.* 0 to 20, or 255"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:60]), "no mask can be read"),
    "no PNG": (lambda path: path.write_bytes(b"x" * 99), "no mask can be read"),
    "gone": (lambda path: path.unlink(), r"no mask can be read \(No such file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_mask_that_cannot_be_used_is_named_before_the_training(kind, tmp_path):
    make_voc_masks(tmp_path)
    task = read_voc_masks(tmp_path)
    check_masks(task.train, 21, threads=2)
    damage, said = DAMAGE[kind]
    damage(task.train[1].mask)
    with pytest.raises(DataError, match=f"^{re.escape(str(task.train[1].mask))}: .*{said}.*; restore it") as refused:
        check_masks(task.train, 21, threads=2)
    assert "\n" not in str(refused.value)


def test_an_image_that_cannot_be_used_is_named(tmp_path):
    make_voc_masks(tmp_path)
    [image, *_] = read_voc_masks(tmp_path).train
    image.path.write_bytes(b"no image")
    for read in (read_masked, read_mask):
        with pytest.raises(DataError, match=f"^{re.escape(str(image.path))}: not an image"):
            read(image, 21)


VOC_LISTS, VOC_FOLDERS = "VOCdevkit/VOC2012/ImageSets/Segmentation", "VOCdevkit/VOC2012"
MISSING_VOC = [
    (f"{VOC_LISTS}/val.txt", None, r"val\.txt: cannot be read"),
    (f"{VOC_LISTS}/val.txt", "", r"val\.txt: is empty"),
    (f"{VOC_LISTS}/val.txt", "../x\n", r"val\.txt: '\.\./x' is no name of an image"),
    (f"{VOC_LISTS}/val.txt", "2007_000033\n2007_000033\n", r"lists '2007_000033' again"),
    (f"{VOC_LISTS}/val.txt", "2007_000033\n", r"trainval\.txt: differs .* by 1 images.*'2007_000042'; a list was cut"),
    (f"{VOC_LISTS}/val.txt", "2007_000032\n", r"val\.txt: 1 images are also in train\.txt.*'2007_000032'"),
    (
        f"{VOC_FOLDERS}/SegmentationClass/2007_000033.png",
        None,
        r"2007_000033\.png: no such file, though val\.txt .*1 of 2",
    ),
    (f"{VOC_FOLDERS}/JPEGImages/2007_000039.jpg", None, r"2007_000039\.jpg: no such file, though train\.txt .*1 of 3"),
]
ADE = "ADEChallengeData2016"
MISSING_ADE = [
    (f"{ADE}/objectInfo150.txt", None, r"objectInfo150\.txt: cannot be read"),
    (f"{ADE}/objectInfo150.txt", "Idx\tName\n1\twall\n", r"no list of 150 classes"),
    (f"{ADE}/annotations/training/ADE_train_00000002.png", None, r"00002\.png: no such file, though its image"),
    (f"{ADE}/images/validation/ADE_val_00000002.jpg", None, r"00002\.jpg: no such file, though its mask"),
    (
        f"{ADE}/sceneCategories.txt",
        "ADE_val_00000003 zoo\n",
        r"sceneCategories\.txt: 1 of its 1 images.*ADE_val_00000003",
    ),
]


@pytest.mark.parametrize(
    ("make", "read", "path", "text", "said"),
    [(make_voc_masks, read_voc_masks, *case) for case in MISSING_VOC]
    + [(make_ade20k, read_ade20k, *case) for case in MISSING_ADE],
)
def test_what_is_missing_or_contradicts_is_refused_in_one_line(make, read, path, text, said, tmp_path):
    make(tmp_path)
    if text is None:
        (tmp_path / path).unlink()
    else:
        (tmp_path / path).write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}/.*{said}.*; unpack ") as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}: has no folder VOC2012; unpack VOCtrainval"):
        read_voc_masks(tmp_path)
    with pytest.raises(DataError, match=r"objectInfo150\.txt: cannot be read .*; unpack ADEChallengeData2016\.zip"):
        read_ade20k(tmp_path)


# Training views


def test_an_image_is_fitted_to_both_sides():
    assert fitted(375, 500, 512, 2048) == (512, 683)
    assert fitted(100, 1000, 512, 2048) == (205, 2048)
    assert fitted(1, 50, 8, 8) == (1, 8)


def test_a_view_depends_on_seed_epoch_and_sample_alone(tmp_path):
    images = drawn(tmp_path, 2)
    view = crop(side=32, scale=(0.5, 2.0), long_side=64)
    first, again, reseeded = (CroppedImages(images, CLASSES, view, seed=seed) for seed in (0, 0, 1))
    for name, value in first[3, 1].items():
        assert torch.equal(value, again[3, 1][name])
        for differing in (reseeded[3, 1], first[4, 1], first[3, 0]):
            assert not torch.equal(value, differing[name])


@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 99))
def test_image_and_mask_stay_on_each_other_and_what_lies_outside_is_ignored(height, width, seed):
    """The image is its own mask, as grey levels 0 and 60: one class to the left of a line, another to its right."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, numpy_rng(seed, "line").integers(width) :] = 1
    pixels = np.repeat(60 * mask[..., None], 3, axis=2)
    view = crop(side=32, scale=(0.5, 2.0), long_side=128)(pixels, mask, numpy_rng(seed, "crop"))
    assert view["images"].shape == (3, 32, 32)
    assert view["masks"].shape == (32, 32)
    outside = view["masks"] == IGNORE
    assert torch.equal(view["images"][:, outside], GROUND[:, :, 0].expand(-1, int(outside.sum())))
    rows, columns = (int((~outside).any(dim=dim).sum()) for dim in (1, 0))
    assert not outside[:rows, :columns].any()
    wrong = ((view["images"][0] > 30) != (view["masks"] == 1)) & ~outside
    changes = (view["masks"].diff(dim=1) != 0).float()[None]
    beside = torch.nn.functional.max_pool1d(torch.nn.functional.pad(changes, (1, 2)), 3, 1)[0] > 0
    assert not (wrong & ~beside)[:, 1:-1].any()  # of the outer columns the line may lie just outside


def test_half_of_the_views_are_mirrored_and_crops_avoid_a_single_class():
    pixels = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :8] = 1
    view = crop(side=16, scale=(4.0, 4.0), long_side=64)
    views = [view(pixels, mask, numpy_rng(i, "crop"))["masks"] for i in range(200)]
    at_left = sum(bool((view[:, 0] == 1).all() and not (view[:, -1] == 1).all()) for view in views)
    at_right = sum(bool((view[:, -1] == 1).all() and not (view[:, 0] == 1).all()) for view in views)
    both = at_left + at_right
    assert both > 100
    assert 0.35 < at_left / both < 0.65


# The network and its loss


@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (1, 3, 61, 34)])
def test_logits_are_those_of_the_images_pixels(shape):
    model = build_segmenter(recipe(), SWIN, 5, None).eval()
    with torch.no_grad():
        assert model(torch.rand(shape, generator=generator(0))).shape == (shape[0], 5, *shape[2:])


def test_logits_are_enlarged_in_full_precision_under_autocast():
    model = build_segmenter(recipe(), SWIN, 5, None).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits, coarse = model(torch.rand(2, 3, 48, 48, generator=generator(0)))
    for found in (logits, coarse):
        assert found.dtype == torch.float32
        assert (found != found.bfloat16().float()).any()


def test_at_full_size_it_is_the_published_network():
    """UPerNet with Swin-T: 60 million parameters; 945 G multiply-adds at 512 x 2048, so 236 at 512 x 512."""
    with torch.device("meta"):
        model = build_segmenter(Segment(), Backbone("swin_tiny_patch4_window7_224", {}), 150, None)
        flops = counted_flops(model, torch.empty(1, 3, 512, 512))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(60e6, rel=0.005)
    assert flops / 2 == pytest.approx(945e9 / 4, rel=0.005)


def test_a_trunk_of_one_stage_is_refused():
    one = Backbone(SWIN.name, SWIN.args | {"depths": [2], "num_heads": [1]})
    with pytest.raises(ConfigError, match=r"'depths': \[2\].*: UPerNet needs at least 2 stages"):
        build_segmenter(recipe(), one, 3, None)


def test_ignored_pixels_have_no_part_in_the_loss():
    logits = torch.randn(2, 3, 4, 5, generator=generator(0), requires_grad=True)
    masks = torch.randint(0, 3, (2, 4, 5), generator=generator(1)).to(torch.uint8)
    masks[0, :2] = IGNORE
    loss = pixel_loss(logits, masks, IGNORE)
    logs = torch.log_softmax(logits.double(), dim=1)
    there = [(b, y, x) for b, y, x in np.ndindex(2, 4, 5) if masks[b, y, x] != IGNORE]
    expected = -sum(logs[b, int(masks[b, y, x]), y, x] for b, y, x in there) / len(there)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert (logits.grad[0, :, :2] == 0).all()
    assert (logits.grad[1] != 0).all()
    nothing = pixel_loss(logits, torch.full_like(masks, IGNORE), IGNORE)
    nothing.backward()
    assert nothing == 0
    assert torch.isfinite(logits.grad).all()


# The learner


def test_the_rate_warms_up_and_falls_linearly_to_nothing():
    rates = [linear(step, 10, 1.0, 4, 0.1) for step in (0, 2, 4, 5, 9, 10)]
    assert rates == pytest.approx([0.1, 0.8 * 0.55, 0.6, 0.5, 0.1, 0])
    assert linear(0, 10, 2.0, 0, 0.1) == 2


def test_layer_norms_and_position_tables_are_not_decayed(tmp_path):
    segmenter = learner(drawn(tmp_path, 4), recipe(weight_decay=0.01))
    decayed, plain = segmenter.configure_optimizers().param_groups
    names = {id(parameter): name for name, parameter in segmenter.model.named_parameters()}
    kept = {names[id(parameter)] for parameter in plain["params"]}
    assert len(decayed["params"]) + len(kept) == len(names)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0)
    assert {"trunk.norms.1.weight", "trunk.features.1.0.attn.relative_position_bias_table"} <= kept
    assert all(name.startswith("trunk.") and not name.endswith("mlp.0.bias") for name in kept)


def test_the_auxiliary_head_is_learnt_by_its_share_and_asked_in_training_alone(tmp_path):
    images = drawn(tmp_path, 4)
    batch = next(iter(batches(images, 4).between(0, 1, 0)))
    for weight in (0.0, 0.4):
        segmenter = learner(images, recipe(auxiliary=weight))
        segmenter.model.train()
        segmenter._trainer = SimpleNamespace(global_step=0, log_every_n_steps=10)
        segmenter.training_step(batch, 0).backward()
        assert all((p.grad != 0).any() == (weight > 0) for p in segmenter.model.auxiliary[0].parameters())
        assert all((p.grad != 0).any() for p in segmenter.model.head.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_the_iou_is_counted_over_the_pixels_of_all_images(seed, tmp_path):
    segmenter, rng = learner(drawn(tmp_path, 4), seed=seed).eval(), numpy_rng(seed, "masks")
    images = [torch.from_numpy(rng.integers(0, 256, (3, *rng.integers(20, 60, 2))).astype(np.uint8)) for _ in range(4)]
    masks = [rng.integers(0, CLASSES - 1, image.shape[1:]).astype(np.uint8) for image in images]
    for mask in masks[1:]:
        mask[rng.random(mask.shape) < 0.3] = IGNORE
    found = [segmenter.predict(image).numpy() for image in images]
    for part in (slice(0, 3), slice(3, 4)):
        segmenter.test_batch({"images": images[part], "masks": [torch.from_numpy(mask) for mask in masks[part]]})
    logged = segmenter.test_end()
    all_found, all_there = (np.concatenate([side.ravel() for side in sides]).tolist() for sides in (found, masks))
    pairs = [(f, t) for f, t in zip(all_found, all_there, strict=True) if t != IGNORE]
    hits = [sum(f == t == label for f, t in pairs) for label in range(CLASSES)]
    unions = [sum(label in pair for pair in pairs) for label in range(CLASSES)]
    ious = [100 * hit / union if union else ABSENT for hit, union in zip(hits, unions, strict=True)]
    assert segmenter.class_iou.tolist() == pytest.approx(ious)
    assert logged["miou"] == pytest.approx(np.mean([iou for iou in ious if iou != ABSENT]))
    assert logged["pixel_accuracy"] == pytest.approx(100 * sum(hits) / len(pairs))
    segmenter.test_batch({"images": images[:1], "masks": [torch.from_numpy(found[0])]})
    assert segmenter.test_end() == {"miou": 100, "pixel_accuracy": 100}


def test_a_class_that_is_neither_there_nor_found_has_no_iou():
    confusion = torch.tensor([[6, 2, 0, 0], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]])
    assert class_ious(confusion).tolist() == pytest.approx([600 / 9, 0, 75, ABSENT])


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    images, spec = drawn(tmp_path, 4), recipe(epochs=3, batch_size=2, drop_path_rate=0.2, dropout=0.2)
    view = crop(scale=(0.5, 1.5))
    whole = run(learner(images, spec), batches(images, 2, view), tmp_path / "whole")

    class Stopped(Segmenter):
        def training_step(self, batch, batch_idx):
            if self.step == 4:
                raise KeyError("stop")
            return super().training_step(batch, batch_idx)

    halted = Stopped(spec, SWIN, CLASSES, None, seed=0, steps_per_epoch=2)
    with pytest.raises(KeyError, match="stop"):
        run(halted, batches(images, 2, view), tmp_path / "halved", replace(MACHINE, checkpoint_every_s=0.0))
    resumed = run(learner(images, spec), batches(images, 2, view), tmp_path / "halved")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_four_images_are_learnt_and_their_masks_found_again(tmp_path):
    images = drawn(tmp_path, 4)
    spec = recipe(epochs=80, lr=1e-2, warmup_steps=5)
    tests = loader(WholeImages(images, CLASSES), batches_of(4, 3), 0, as_lists)
    segmenter = learner(images, spec)
    train(segmenter, batches(images, 4), tmp_path / "run", MACHINE, what="test", watchers=[EvaluateEvery(tests, 80)])
    assert segmenter.miou > 90
    assert segmenter.pixel_accuracy > 95
    sample = WholeImages(images, CLASSES)[0]
    found = segmenter.eval().predict(sample["images"])
    there = sample["masks"] != IGNORE
    assert (found[there] == sample["masks"][there]).float().mean() > 0.95


def test_a_batch_of_one_is_refused():
    with pytest.raises(ConfigError, match=r"finetune\.batch_size=1: batch norm needs at least 2"):
        recipe(batch_size=1).check()
    with pytest.raises(ConfigError, match=r"finetune\.scale=\[2,1\]: must ascend"):
        check_ranges(recipe(scale=[2, 1]), "finetune.")


# Pictures


def test_a_picture_has_vocs_colours_over_the_image():
    assert palette()[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    pixels = np.full((1, 3, 3), 100, np.uint8)
    picture = painted(pixels, np.array([[0, 1, IGNORE]], np.uint8))
    assert picture[0, 0].tolist() == picture[0, 2].tolist() == [100, 100, 100]
    assert picture[0, 1].tolist() == [117, 40, 40]


# The stage


def test_the_stage_leaves_a_network_pictures_and_the_score(tmp_path):
    make_voc_masks(tmp_path / "data")
    task = Artefact("key", "task", tmp_path / "task", {})
    spec = FinetuneSpec(
        recipe(epochs=1, batch_size=2, test_every=1, scale=[0.5, 2.0]), SWIN, None, 3, 0, MACHINE.precision
    )
    location = Location("voc_masks", str(tmp_path / "data"))
    folder = tmp_path / "run"
    folder.mkdir()
    facts = build(folder, {"task": task}, spec=spec, location=location, runtime=MACHINE, loggers=no_loggers)
    assert (facts["metric"], facts["score"]) == ("miou", facts["miou"])
    assert (facts["images"], facts["tests"], facts["images_seen"]) == (3, 2, 2)
    assert list(facts["class_iou"])[:2] == ["background", "aeroplane"]
    seen = [iou for iou in facts["class_iou"].values() if iou != ABSENT]
    assert facts["miou"] == pytest.approx(np.mean(seen), rel=1e-5)
    assert facts["flops"] > 1e6
    state = load_file(folder / SEGMENTER)
    build_segmenter(recipe(), SWIN, 21, None).load_state_dict(state)
    pictures = sorted((folder / PREDICTIONS).iterdir())
    assert [path.name for path in pictures] == ["00000.png", "00001.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (2 * 60 * 8, 40 * 8)


def test_the_stage_tells_of_a_damaged_test_mask_before_it_trains(tmp_path):
    make_voc_masks(tmp_path / "data")
    mask = read_voc_masks(tmp_path / "data").test[1].mask
    mask.write_bytes(b"")
    spec = FinetuneSpec(recipe(epochs=10**6), SWIN, None, 3, 0, MACHINE.precision)
    location = Location("voc_masks", str(tmp_path / "data"))
    task = Artefact("key", "task", tmp_path / "task", {})
    with pytest.raises(DataError, match=f"^{re.escape(str(mask))}: "):
        build(tmp_path, {"task": task}, spec=spec, location=location, runtime=MACHINE, loggers=no_loggers)


# The embedded world


def test_the_embedded_worlds_masks_fill_the_boxes_of_its_scenes(tmp_path):
    draw_boxed_task(tmp_path, "glyphs", 1, 1, 64, 0, 1)
    write_masks(tmp_path)
    boxed, task = read_patterns_boxes(tmp_path), read_patterns_masks(tmp_path)
    assert task.classes == ["background", *boxed.classes]
    assert [[image.id for image in split] for split in (task.train, task.test)] == [
        [image.id for image in split] for split in (boxed.train, boxed.test)
    ]
    for image, annotated in zip(task.train, boxed.train, strict=True):
        _, mask = read_masked(image, len(task.classes))
        for (left, top, right, bottom), label in zip(annotated.boxes.astype(int), annotated.labels, strict=True):
            assert (mask[top:bottom, left:right] == label + 1).all()
            mask[top:bottom, left:right] = 0
        assert (mask == 0).all()
    task.test[0].mask.unlink()
    with pytest.raises(DataError, match=r"\.png: no such file, though JPEGImages has it .*; draw the task again"):
        read_patterns_masks(tmp_path)
