"""The detection trunk against a plain reference, the detector around it, and that it learns boxes."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from micro import MACHINE, SWIN, run
from PIL import Image
from reference_models import trunk_maps
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.ops import StochasticDepth

from sept.backbones import Backbone
from sept.backbones.networks import build
from sept.backbones.swin import swin_trunk
from sept.backbones.weights import save_backbone
from sept.data.detection.boxes import Boxed
from sept.data.detection.targets import DetectionImages, FlippedImages, as_lists, mirrored
from sept.data.labelled import batches_of
from sept.data.loading import Batches, loader
from sept.data.rng import generator, numpy_rng
from sept.errors import ConfigError
from sept.store import CHECKPOINTS
from sept.training.callbacks import EvaluateEvery
from sept.training.loop import Checkpoint, train
from sept.transfer.detect import Detector, stepped
from sept.transfer.faster_rcnn import build_detector
from sept.transfer.recipes import Detect

SWIN_T = "swin_tiny_patch4_window7_224"
SHIFTED = SWIN.args | {"depths": [2, 2]}
THREE = {**SHIFTED, "img_size": 48, "window_size": 3, "depths": [1, 2, 2], "num_heads": [1, 2, 4]}
SIDE = 64
COLOURS = [(230, 40, 40), (40, 230, 40), (40, 40, 230)]


def recipe(**changes):
    sizes = {"fpn_width": 32, "head_width": 64, "anchor_sides": [8, 16, 32, 64, 128], "rpn_samples": 32}
    sides = {"short_sides": [SIDE], "long_side": SIDE, "test_short_side": SIDE}
    boxes = {"proposals": [60, 30], "roi_samples": 24, "detections": 10}
    short = {"epochs": 2, "batch_size": 4, "lr": 2e-3, "milestones": [], "warmup_steps": 0, "drop_path_rate": 0.0}
    return Detect(**sizes | sides | boxes | short | changes)


def drawn(folder, count, *, empty=0):
    """Images of one to three coloured rectangles, the class is the colour, over noise; the last `empty` have none."""
    found = []
    for i in range(count):
        rng = numpy_rng(0, "rectangles", i)
        pixels = rng.integers(90, 150, (SIDE, SIDE, 3)).astype(np.uint8)
        boxes = np.zeros((0 if i >= count - empty else rng.integers(1, 4), 4), np.float32)
        labels = rng.integers(len(COLOURS), size=len(boxes))
        for place, label in enumerate(labels):
            size = rng.integers(12, 24, 2)
            corner = np.array([place % 2, place // 2]) * SIDE // 2 + rng.integers(0, SIDE // 2 - size)
            boxes[place] = [*corner, *(corner + size)]
            pixels[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = COLOURS[label]
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        found.append(Boxed(path.name, path, boxes, labels.astype(np.int64), np.zeros(len(boxes), np.bool_)))
    return found


def batches(images, batch_size):
    return Batches(FlippedImages(images, seed=0), len(images), batch_size, 0, as_lists)


def learner(images, spec=None, *, backbone=None, seed=0):
    spec = spec or recipe()
    per_epoch = max(1, len(images) // spec.batch_size)
    return Detector(spec, SWIN, len(COLOURS), backbone, seed=seed, steps_per_epoch=per_epoch)


def pixels(*shape):
    return torch.rand(*shape, generator=generator(0))


# The trunk


def randomised(name, args):
    """A timm Swin whose every tensor, biases, norms and tables too, differs from what it starts as."""
    swin = build(name, args)
    for i, parameter in enumerate(swin.parameters()):
        scale = 0.02 if parameter.ndim in (2, 4) else 0.1
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator(1, i)))
    return swin


def official(state):
    """timm's names to the published ones: a stage's downsample is its last part, not the first of the next."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts)] = value.double()
    return renamed


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        (SWIN.name, SWIN.args, (2, 3, 96, 96)),
        (SWIN.name, SHIFTED, (2, 3, 61, 99)),
        (SWIN.name, SHIFTED, (1, 3, 130, 46)),
        (SWIN.name, THREE, (2, 3, 75, 58)),
        (SWIN_T, {}, (1, 3, 231, 261)),
    ],
)
def test_the_trunk_equals_a_plain_forward_on_sizes_that_are_no_multiples_of_its_windows(name, args, shape, tmp_path):
    swin = randomised(name, args)
    save_file(swin.state_dict(), tmp_path / "swin.safetensors")
    trunk = swin_trunk(name, args, tmp_path / "swin.safetensors", drop_path_rate=0.5).eval()
    state = official(swin.state_dict())
    for stage, norm in enumerate(trunk.norms):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        state |= {f"norm{stage}.{key}": value.double() for key, value in norm.state_dict().items()}
    heads = [stage.blocks[0].attn.num_heads for stage in swin.layers]
    with torch.no_grad():
        maps = trunk(pixels(*shape))
    expected = trunk_maps(state, pixels(*shape).double(), heads, swin.layers[0].blocks[0].window_size[0])
    assert [found.shape[1] for found in maps] == trunk.channels
    for found, plain in zip(maps, expected, strict=True):
        torch.testing.assert_close(found.permute(0, 2, 3, 1).double(), plain, rtol=0, atol=1e-5)


def test_every_tensor_of_the_file_is_in_the_trunk_and_the_rest_of_it_is_as_new(tmp_path):
    swin = build(SWIN.name, SHIFTED)
    with torch.no_grad():
        for i, parameter in enumerate(swin.parameters()):
            parameter.fill_(i + 2)
    save_backbone(swin, tmp_path, SWIN.name, SHIFTED, {})
    trunk = swin_trunk(SWIN.name, SHIFTED, tmp_path / "model.safetensors")
    fills = {value.unique().item() for value in trunk.features.parameters()}
    file = load_file(tmp_path / "model.safetensors")
    assert fills == {value.unique().item() for key, value in file.items() if not key.startswith("norm.")}
    assert len(fills) == len(list(trunk.features.parameters()))
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in trunk.norms)


def test_a_file_that_does_not_fit_key_by_key_is_refused(tmp_path):
    state, path = build(SWIN.name, SWIN.args).state_dict(), tmp_path / "file.safetensors"
    for change, said in (
        ({f"more.{i:02}": torch.zeros(1) for i in range(11)}, r"unexpected 11 \(more\.00, .*, more\.07, \.\.\.\)"),
        ({"patch_embed.proj.bias": torch.zeros(5)}, r"other shape 1 \(patch_embed\.proj\.bias\)"),
    ):
        save_file(state | change, path)
        with pytest.raises(ConfigError, match=rf"{path.name} does not fit .*{said}"):
            swin_trunk(SWIN.name, SWIN.args, path)
    for key in ("layers.1.downsample.reduction.weight", "layers.0.blocks.0.attn.relative_position_bias_table"):
        save_file({name: value for name, value in state.items() if name != key}, path)
        with pytest.raises(ConfigError, match=rf"missing 1 \({key}\)"):
            swin_trunk(SWIN.name, SWIN.args, path)
    head = {"head.fc.weight": torch.zeros(3, 32), "head.fc.bias": torch.zeros(3)}
    save_file(state | head, path)
    swin_trunk(SWIN.name, SWIN.args, path)


def test_a_swin_of_several_windows_is_refused():
    with pytest.raises(ConfigError, match=r"windows of \[\(2, 2\), \(4, 4\)\].*always_partition=true"):
        swin_trunk(SWIN.name, SWIN.args | {"img_size": 16}, None)


def test_stochastic_depth_rises_linearly_over_the_blocks():
    trunk = swin_trunk(SWIN.name, THREE, None, drop_path_rate=0.2)
    rates = [module.p for module in trunk.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


# The detector


@pytest.mark.parametrize(("name", "args"), [(SWIN.name, SWIN.args), (SWIN_T, {})])
def test_the_pyramid_has_five_levels_each_of_half_the_side_with_anchors_of_its_own(name, args):
    model = build_detector(recipe(anchor_ratios=[1.0]), Backbone(name, args), 3, None).eval()
    with torch.no_grad():
        levels = model.backbone(pixels(1, 3, 128, 192))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (32, 32 // 2**level, 48 // 2**level) for level in range(5)
    ]
    sides = [(box[2:] - box[:2]).tolist() for boxes in model.rpn.anchor_generator.cell_anchors for box in boxes]
    assert sides == [[side, side] for side in (8, 16, 32, 64, 128)]


def test_the_sizes_of_the_recipe_arrive():
    spec = recipe(proposals=[70, 40], detections=7, score=0.2, nms=0.4, rpn_samples=20, roi_samples=12)
    model = build_detector(spec, SWIN, 5, None)
    assert model.roi_heads.box_predictor.cls_score.out_features == 6
    assert (model.roi_heads.score_thresh, model.roi_heads.nms_thresh) == (0.2, 0.4)
    assert model.roi_heads.detections_per_img == 7
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 12
    assert model.rpn.fg_bg_sampler.batch_size_per_image == 20
    assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == (70, 40)
    model.eval()
    assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == (40, 40)


def test_a_short_side_is_drawn_for_each_image_in_training_and_one_is_set_for_the_test():
    model = build_detector(recipe(short_sides=[32, 48, 64], test_short_side=40, long_side=80), SWIN, 3, None)
    torch.manual_seed(0)
    images = [pixels(3, 20, 30)] * 40
    drawn_sides = [size[0] for size in model.transform(images)[0].image_sizes]
    assert set(drawn_sides) == {32, 48, 53}  # the longer side would pass 80 at 64
    torch.manual_seed(0)
    assert [size[0] for size in model.transform(images)[0].image_sizes] == drawn_sides
    model.eval()
    assert set(model.transform(images)[0].image_sizes) == {(40, 60)}
    assert model.transform(images)[0].tensors.shape == (40, 3, 64, 64)
    model.train()
    assert {size[0] for size in model.transform(images)[0].image_sizes} == {32, 48, 53}


def test_images_without_boxes_teach_that_there_is_nothing(tmp_path):
    images = drawn(tmp_path, 2, empty=2)
    model = learner(images).model
    torch.manual_seed(0)
    targets = [image[1] for image in DetectionImages(images, training=True)]
    losses = model([pixels(3, 40, 50), pixels(3, 60, 30)], targets)
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    assert losses["loss_classifier"] > 0
    assert losses["loss_objectness"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_boxes_keep_their_precision_under_autocast():
    model = build_detector(recipe(), SWIN, 3, None).eval()
    image = pixels(3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        levels = model.backbone(image[None])
        proposals = model.rpn(model.transform([image])[0], levels)[0][0]
        [found] = model([image])
    assert {level.dtype for level in levels.values()} == {proposals.dtype, found["boxes"].dtype} == {torch.float32}
    assert (proposals != proposals.bfloat16().float()).any()


# The learner


def test_the_rate_warms_up_and_drops_to_a_tenth_at_each_milestone():
    rates = [stepped(step, 1.0, [6, 8], 4, 0.1) for step in range(10)]
    assert rates == pytest.approx([0.1, 0.325, 0.55, 0.775, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert stepped(0, 1.0, [], 0, 0.1) == 1


def test_milestones_are_epochs_of_this_data(tmp_path):
    detector = learner(drawn(tmp_path, 8), recipe(milestones=[2, 3], batch_size=4, lr=1.0))
    assert [round(detector.lr(step), 3) for step in (0, 3, 4, 5, 6)] == [1, 1, 0.1, 0.1, 0.01]


def test_norms_and_position_tables_are_not_decayed_and_biases_are(tmp_path):
    detector = learner(drawn(tmp_path, 4))
    decayed, plain = detector.configure_optimizers().param_groups
    names = {id(parameter): name for name, parameter in detector.model.named_parameters()}
    kept = {names[id(parameter)] for parameter in plain["params"]}
    assert len(decayed["params"]) + len(kept) == len(names)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0)
    trunk = "backbone.trunk."
    assert {f"{trunk}features.0.2.weight", f"{trunk}features.2.norm.bias", f"{trunk}norms.1.weight"} <= kept
    assert f"{trunk}features.1.0.attn.relative_position_bias_table" in kept
    assert f"{trunk}features.0.0.bias" not in kept
    assert all(any(part in name for part in ("norm", "features.0.2", "bias_table")) for name in kept)


def test_the_head_depends_on_the_seed_and_the_trunk_on_the_backbone(tmp_path):
    images = drawn(tmp_path, 4)
    save_backbone(randomised(SWIN.name, SWIN.args), tmp_path, SWIN.name, SWIN.args, {})
    first, again, other = (
        learner(images, backbone=tmp_path / "model.safetensors", seed=seed).model.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    same = {key for key in first if torch.equal(first[key], other[key])}
    assert all(key in same for key in first if key.startswith("backbone.trunk"))
    assert "roi_heads.box_head.fc6.weight" not in same


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    images, spec = drawn(tmp_path, 6, empty=1), recipe(epochs=3, batch_size=3, short_sides=[48, 64], drop_path_rate=0.2)
    whole = run(learner(images, spec), batches(images, 3), tmp_path / "whole")

    class Stopped(Detector):
        def training_step(self, batch, batch_idx):
            if self.step == 4:
                raise KeyError("stop")
            return super().training_step(batch, batch_idx)

    halted = Stopped(spec, SWIN, len(COLOURS), None, seed=0, steps_per_epoch=2)
    with pytest.raises(KeyError, match="stop"):
        run(halted, batches(images, 3), tmp_path / "halved", replace(MACHINE, checkpoint_every_s=0.0))
    assert Checkpoint(tmp_path / "halved" / CHECKPOINTS).load()["step"] == 4
    resumed = run(learner(images, spec), batches(images, 3), tmp_path / "halved")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_eight_images_are_learnt_and_their_boxes_found_again(tmp_path):
    images = drawn(tmp_path, 8, empty=1)
    spec = recipe(epochs=60, batch_size=8, milestones=[45], warmup_steps=5)
    tests = loader(DetectionImages(images, training=False), batches_of(8, 3), 0, as_lists)
    detector = learner(images, spec)
    train(detector, batches(images, 8), tmp_path, MACHINE, what="test", watchers=[EvaluateEvery(tests, 60)])
    assert detector.ap50 > 95
    assert detector.voc_ap50 > 95
    assert 0 < detector.ap <= detector.ap50
    assert (detector.class_ap >= detector.ap - 40).all()
    [found] = detector.eval().predict([DetectionImages(images, training=False)[0][0]])
    best = found["scores"] > 0.5
    assert sorted(found["labels"][best].tolist()) == sorted((images[0].labels + 1).tolist())


# The data


def test_mirroring_moves_the_boxes_with_the_pixels(tmp_path):
    pixels, target = DetectionImages(drawn(tmp_path, 1), training=True)[0]
    flipped, moved = mirrored(pixels, target)
    left, top, right, bottom = target["boxes"][0].int().tolist()
    first, above, last, below = moved["boxes"][0].int().tolist()
    assert torch.equal(flipped[:, above:below, first:last].flip(2), pixels[:, top:bottom, left:right])
    again = mirrored(flipped, moved)
    assert torch.equal(again[0], pixels)
    assert torch.equal(again[1]["boxes"], target["boxes"])
    assert moved["labels"].tolist() == target["labels"].tolist()
    assert mirrored(pixels, {"boxes": torch.zeros(0, 4)})[1]["boxes"].shape == (0, 4)


def test_every_other_view_is_mirrored_by_seed_epoch_and_sample(tmp_path):
    images = drawn(tmp_path, 2)
    plain = DetectionImages(images, training=True)

    def flips(seed):
        views = FlippedImages(images, seed)
        return [not torch.equal(views[epoch, sample][0], plain[sample][0]) for epoch in range(40) for sample in (0, 1)]

    assert flips(0) == flips(0)
    assert flips(0) != flips(1)
    assert 25 < sum(flips(0)) < 55
    assert flips(0)[::2] != flips(0)[1::2]


def test_a_batch_holds_images_of_several_sizes():
    samples = [(pixels(3, 4, 5), {"image_id": "a"}), (pixels(3, 7, 2), {"image_id": "b"})]
    batch = as_lists(samples)
    assert [image.shape for image in batch["images"]] == [(3, 4, 5), (3, 7, 2)]
    assert [target["image_id"] for target in batch["targets"]] == ["a", "b"]


# The full size


@pytest.mark.slow
def test_a_full_size_step_at_800_by_1333_fits_in_12_gib():
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector = Detector(
        Detect(short_sides=[800], drop_path_rate=0.2), Backbone(SWIN_T, {}), 20, None, seed=0, steps_per_epoch=1
    )
    optimizer = detector.configure_optimizers()
    target = {"boxes": torch.tensor([[100.0, 80, 700, 500], [900, 300, 1200, 700]]), "labels": torch.tensor([3, 7])}
    torch.manual_seed(0)
    losses = detector.model([pixels(3, 800, 1333)], [target])
    loss = sum(losses.values())
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter).all() for parameter in detector.parameters())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20 < 12
