"""Ten backbones of every family, at tiny size, through everything that a backbone is used for."""

import re

import pytest
import timm
import torch
from micro import MACHINE, cropped, finetune, moby, run, subset
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from sept import capability
from sept.backbones import IMAGENET, OWN, Backbone, trial
from sept.backbones.families import MAPS, build_trunk
from sept.backbones.flops import forward_flops, is_plain, training_flops, width
from sept.backbones.networks import build, layer_ids, statistics
from sept.backbones.trial import OFFERS
from sept.backbones.weights import save_backbone
from sept.compose import CONF, experiment
from sept.data.detection.targets import as_lists
from sept.data.loading import Batches
from sept.data.rng import generator
from sept.data.transforms import normalise
from sept.errors import ConfigError
from sept.gpu import micro
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.retrievers import FEATURES
from sept.runtime.hardware import no_loggers
from sept.transfer.classify import Classifier
from sept.transfer.detect import Detector
from sept.transfer.recipes import SegmentLinear
from sept.transfer.segment import Segmenter

SIDE = micro.SIDE
SMALL_VIT = {"img_size": SIDE, "embed_dim": 16, "depth": 3, "num_heads": 2}
BACKBONES = {
    "swin": micro.SWIN,
    "vit": micro.VIT,
    "vit without class token": Backbone("vit_base_patch16_gap_224", SMALL_VIT | {"patch_size": 8}),
    "dinov2": Backbone("vit_small_patch14_reg4_dinov2", SMALL_VIT | {"img_size": 28}),
    "clip": Backbone("vit_base_patch16_clip_224", SMALL_VIT | {"patch_size": 8}),
    "siglip": Backbone("vit_base_patch16_siglip_224", SMALL_VIT | {"patch_size": 8}),
    "resnet": Backbone("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "output_stride": 8}),
    "convnext": Backbone("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "output_stride": 16}),
    "efficientnet": Backbone("test_efficientnet"),
    "plain_conv": Backbone("plain_conv", {"widths": [8, 16]}),
}
TOKENS = {"vit", "vit without class token", "dinov2", "clip", "siglip"}
CLS = {"vit", "dinov2", "clip"}
PLAIN = TOKENS  # of one grid
MAPPED = {"least": 2, "most": 5, "maps": "spread"}
OPTIONS = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml") if path.stem != "timm")
EVERY = pytest.mark.parametrize("name", BACKBONES)


def side_of(name):
    return 28 if name == "dinov2" else SIDE


class Samples(Dataset):
    """uint8 (3, side, side) images of noise with a bright square, and what `target` says of sample i and the square."""

    def __init__(self, side, target):
        self.side, self.target = side, target

    def __getitem__(self, place):
        sample = place[1]
        image = torch.randint(0, 100, (3, self.side, self.side), generator=generator(0, sample), dtype=torch.uint8)
        left = 4 + 8 * (sample % 2)
        image[:, left : left + 16, left : left + 16] = 220
        return self.target(image, sample, left)


def classed(image, sample, left):
    return {"images": image, "labels": sample % 2}


def boxed(image, sample, left):
    return image, {
        "boxes": torch.tensor([[left, left, left + 16.0, left + 16]]),
        "labels": torch.tensor([1 + sample % 2]),
    }


def masked(image, sample, left):
    mask = torch.zeros(image.shape[1:], dtype=torch.uint8)
    mask[left : left + 16, left : left + 16] = 1 + sample % 2
    return {"images": image, "masks": mask}


def linear(**changes):
    sizes = {"side": micro.SCENE, "long_side": micro.SCENE, "scale": [1.0, 1.0], "dropout": 0.1, "warmup_steps": 0}
    return SegmentLinear(**{"name": "segment_linear_micro", "lr": 1e-3, **sizes} | changes)


def pixels(*shape):
    return torch.rand(*shape, generator=generator(0))


def refusal(*args, **how):
    """What a plan says of it, None if nothing: one line."""
    try:
        trial.attempt(*args, **how)
    except ConfigError as error:
        return str(error)
    return None


# What it offers


@EVERY
def test_each_feature_that_a_plan_finds_is_given_and_no_other(name):
    network = build(BACKBONES[name].name, BACKBONES[name].args, side=side_of(name)).eval()
    backbone, side, features = (
        BACKBONES[name],
        side_of(name),
        [key for key, each in FEATURES.items() if each.library == "timm"],
    )
    hows = [FEATURES[feature] for feature in features]
    role = ("retriever.backbone", "embed", backbone, [side])
    said = [refusal(*role, how.needs, function=how.function, times=how.times) for how in hows]
    expected = {"pooled"} | ({"mean"} if name in TOKENS else set()) | ({"cls", "cls_mean"} if name in CLS else set())
    assert {feature for feature, why in zip(features, said, strict=True) if why is None} == expected
    assert all(re.search("no class token; |tokens are not those of a ViT", why) for why in said if why)
    for how in (FEATURES[feature] for feature in expected):
        with torch.no_grad():
            vectors = how.load()(network, pixels(3, 3, side_of(name), side_of(name)))
        assert vectors.shape == (3, how.times * width(BACKBONES[name]))
        assert vectors.isfinite().all()
        assert (vectors[0] != vectors[1]).any()


@EVERY
def test_layers_count_from_the_stem_to_the_head(name):
    network = build(BACKBONES[name].name, BACKBONES[name].args, num_classes=3)
    ids, layers = layer_ids(network)
    assert ids.keys() == {key for key, _ in network.named_parameters()}
    assert {*ids.values()} <= {*range(layers)}
    stem = next(iter(key for key in ids if "conv" in key or "patch_embed" in key or "stem" in key))
    head = [key for key, _ in network.get_classifier().named_parameters(prefix="head")]
    assert ids[stem] == 0
    assert head
    assert max(ids.values()) == layers - 1


@EVERY
@pytest.mark.parametrize("maps", MAPS)
def test_maps_have_the_channels_and_the_cells_that_they_are_said_to_have(name, maps):
    trunk = build_trunk(BACKBONES[name], None, maps=maps).eval()
    shape = (45, 70)
    with torch.no_grad():
        found = trunk(pixels(2, 3, *shape))
    assert [each.shape[1] for each in found] == trunk.channels
    height, width_ = trunk.size(torch.empty(1, 3, *shape))
    assert (height >= shape[0], width_ >= shape[1]) == (True, True)
    sides = [each.shape[2] for each in found]
    assert sides == sorted(sides, reverse=True)
    assert height % found[0].shape[2] == 0
    assert height / found[0].shape[2] == width_ / found[0].shape[3]
    if name in PLAIN and maps != "last":
        assert [64 // side for side in sides] == [4, 8, 16, 32]
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("name", ["resnet", "convnext", "efficientnet"])
def test_maps_of_stages_are_timms(name):
    backbone = BACKBONES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = build_trunk(backbone, None).eval()
        torch.manual_seed(0)
        theirs = timm.create_model(backbone.name, num_classes=0, **backbone.args)
    theirs.load_state_dict(theirs.state_dict() | trunk.network.state_dict())
    x = pixels(2, 3, 64, 64)
    with torch.no_grad():
        every = theirs.eval().forward_intermediates(x, intermediates_only=True)
        for place, found in zip(trunk.places, trunk(x), strict=True):
            torch.testing.assert_close(found, every[place], rtol=0, atol=1e-6)


def test_a_vits_map_of_an_image_of_its_own_size_is_its_tokens():
    backbone = BACKBONES["siglip"]
    trunk = build_trunk(backbone, None, maps="last").eval()
    vit = build(backbone.name, backbone.args).eval()
    vit.load_state_dict(vit.state_dict() | trunk.network.state_dict())
    x = pixels(2, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(trunk(x)[0].flatten(2).mT, vit.forward_features(x), rtol=0, atol=1e-6)


def test_a_patch_of_14_pixels_stands_for_16():
    trunk = build_trunk(BACKBONES["dinov2"], None).eval()
    with torch.no_grad():
        assert [each.shape[2:] for each in trunk(pixels(1, 3, 64, 96))] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_batch_norms_that_come_with_weights_keep_their_statistics_and_fresh_ones_learn(tmp_path):
    backbone = BACKBONES["resnet"]
    save_file(build(backbone.name, backbone.args).state_dict(), tmp_path / "resnet.safetensors")
    for start in (None, tmp_path / "resnet.safetensors"):
        trunk = build_trunk(backbone, start).train()
        before = [m.running_mean.clone() for m in trunk.modules() if isinstance(m, _BatchNorm)]
        trunk(pixels(2, 3, 64, 64))
        after = [m.running_mean for m in trunk.modules() if isinstance(m, _BatchNorm)]
        kept = all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert kept == (start is not None)


@EVERY
def test_a_trunk_takes_the_weights_of_the_backbone(name, tmp_path):
    backbone = BACKBONES[name]
    network = build(backbone.name, backbone.args)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    first, second = (build_trunk(backbone, tmp_path / "weights.safetensors", maps="last") for _ in range(2))
    for trunk in (first, second):
        for key, value in trunk.named_parameters():
            if "norms." not in key:  # a Swin trunk's own
                assert value.std() == 0 or value.abs().max() < 0.2, key
    x = pixels(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(first.eval()(x), second.eval()(x), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


# What it is used for


def moves(learner, batches, folder):
    """Trains, and says whether the backbone, the frozen and the others, moved."""
    before = {key: value.detach().clone() for key, value in learner.named_parameters()}
    run(learner, batches, folder, MACHINE)
    return {key for key, value in learner.named_parameters() if not torch.equal(value, before[key])}


@EVERY
def test_it_is_pretrained_with_moby_and_hands_its_weights_on(name, tmp_path):
    backbone, side = BACKBONES[name], side_of(name)
    recipe = moby(side=side, batch_size=4, lr_batch=4, queue=8, drop_path_rate=0.1)
    learner = MoBy(recipe, backbone, seed=0, length=Length(2, 1))
    moved = moves(learner, cropped(learner, subset(tmp_path / "subset", 4), 4), tmp_path)
    assert any(key.startswith("online.encoder") for key in moved)
    weights = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in learner.encoder.state_dict().items()}, weights)
    made = Classifier(finetune(side=side), backbone, 3, weights, seed=0, steps_per_epoch=1)
    state = made.model.state_dict()
    for key, value in learner.encoder.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


@EVERY
def test_it_is_finetuned_as_a_classifier(name, tmp_path):
    recipe = finetune(side=side_of(name), epochs=2, batch_size=4, lr_batch=4, drop_path_rate=0.1)
    learner = Classifier(recipe, BACKBONES[name], 2, None, seed=0, steps_per_epoch=1)
    moved = moves(learner, Batches(Samples(side_of(name), classed), 4, 4, 0), tmp_path)
    assert any("head" in key or "classifier" in key or "fc" in key for key in moved)
    assert len(moved) > 3


@EVERY
def test_it_is_finetuned_as_a_detector(name, tmp_path):
    recipe = micro.detect(epochs=2, batch_size=2, drop_path_rate=0.1)
    learner = Detector(recipe, BACKBONES[name], 2, None, seed=0, steps_per_epoch=1)
    moved = moves(learner, Batches(Samples(micro.SCENE, boxed), 2, 2, 0, as_lists), tmp_path)
    assert any("trunk" in key for key in moved)
    with torch.no_grad():
        [found] = learner.eval().predict([torch.zeros(3, 50, 70, dtype=torch.uint8)])
    assert found["boxes"].shape[1] == 4


@EVERY
@pytest.mark.parametrize("kind", ["upernet", "frozen linear", "linear"])
def test_it_is_finetuned_as_a_segmenter(name, kind, tmp_path):
    recipe = micro.segment(epochs=2, batch_size=2, drop_path_rate=0.1)
    if kind != "upernet":
        recipe = linear(epochs=2, batch_size=2, drop_path_rate=0.1, frozen=kind == "frozen linear")
    learner = Segmenter(recipe, BACKBONES[name], 3, None, seed=0, steps_per_epoch=1)
    moved = moves(learner, Batches(Samples(micro.SCENE, masked), 2, 2, 0), tmp_path)
    assert any("trunk" in key for key in moved) == (kind != "frozen linear")
    assert any("head" in key for key in moved)
    found = learner.eval().predict(torch.zeros(3, 50, 70, dtype=torch.uint8))
    assert found.shape == (50, 70)


# Its pixels


def test_pixels_are_normalised_by_timms_record_unless_imagenets_are_asked_for():
    clip = statistics(BACKBONES["clip"])
    assert clip == ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    assert statistics(Backbone("vit_small_patch16_224.augreg_in1k")) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert statistics(Backbone("vit_small_patch16_224", {}, "imagenet")) == IMAGENET
    for name in ("swin", "resnet", "convnext", "efficientnet", "dinov2", "plain_conv"):
        assert statistics(BACKBONES[name]) == IMAGENET


def test_every_learner_normalises_by_its_backbones_statistics(tmp_path):
    clip = BACKBONES["clip"]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in statistics(clip))
    image = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=generator(0), dtype=torch.uint8)
    torch.testing.assert_close(normalise(image, statistics(clip)), (image / 255 - mean) / std)
    packed = subset(tmp_path / "subset", 4)
    recipe = moby(batch_size=4, lr_batch=4, queue=8, jitter=0.0, grayscale=0.0, blur=[0.0, 0.0], solarise=[0.0, 0.0])
    training = Pretraining(
        recipe, clip, packed, 0, Length.of_epochs(1, len(packed), recipe.batch_size), {}, tmp_path, "test", no_loggers
    )
    learner = training.make()
    views = learner.views.colour([image, image], 0)
    flipped = (image.flip(-1) / 255 - mean) / std
    for view in views:
        for found, plain, mirrored in zip(view, (image / 255 - mean) / std, flipped, strict=True):
            assert torch.allclose(found, plain, atol=1e-6) or torch.allclose(found, mirrored, atol=1e-6)
    assert Classifier(finetune(), clip, 2, None, seed=0, steps_per_epoch=1).statistics == statistics(clip)
    assert Segmenter(linear(), clip, 2, None, seed=0, steps_per_epoch=1).statistics == statistics(clip)
    detector = Detector(micro.detect(), clip, 2, None, seed=0, steps_per_epoch=1).model
    assert (tuple(detector.transform.image_mean), tuple(detector.transform.image_std)) == statistics(clip)


def test_a_saved_backbone_tells_its_statistics(tmp_path):
    clip = BACKBONES["clip"]
    save_backbone(build(clip.name, clip.args), tmp_path, clip.name, clip.args, {}, statistics(clip))
    config = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).pretrained_cfg
    assert (tuple(config["mean"]), tuple(config["std"])) == statistics(clip)
    assert "the mean (0.48145466, 0.4578275, 0.40821073)" in (tmp_path / "README.md").read_text()


# FLOPs


def counted(network, side):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "side", "args"),
    [
        ("resnet18", 224, {}),
        ("resnet34", 97, {}),
        ("resnet50", 224, {}),
        ("resnet50.a1_in1k", 65, {"output_stride": 16}),
        ("resnet18", 32, {"layers": [1, 1, 1, 1], "channels": [32, 48, 64, 128], "output_stride": 8}),
        ("convnext_tiny", 224, {}),
        ("convnext_tiny", 101, {"depths": [1, 1, 2, 1]}),
        ("convnext_tiny", 32, {"depths": [1, 1, 2, 1], "dims": [32, 48, 64, 128], "output_stride": 8}),
    ],
)
def test_closed_forms_equal_torchs_counter(name, side, args):
    backbone = Backbone(name, args)
    with torch.device("meta"):
        network = build(name, args).eval()
    assert is_plain(backbone)
    assert forward_flops(backbone, side) == counted(network, side)
    assert width(backbone) == network.num_features


def test_a_step_of_a_resnet_costs_what_torch_counts():
    backbone = BACKBONES["resnet"]
    network = build(backbone.name, backbone.args)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert 2 * training_flops(backbone, 32) == counter.get_total_flops()


@pytest.mark.parametrize("args", [{"layers": [1, 1]}, {"output_stride": 4}, {"stem_type": "deep"}, {"channels": 8}])
def test_arguments_without_a_closed_form_are_not_plain(args):
    assert not is_plain(Backbone("resnet18", args))


def test_the_pooled_width_of_a_network_with_a_wider_head_is_the_heads():
    assert width(Backbone("mobilenetv3_small_100")) == 1024


def test_a_frozen_backbone_has_no_backward_pass():
    models = [
        Segmenter(linear(frozen=frozen), BACKBONES["resnet"], 3, None, seed=0, steps_per_epoch=1).model
        for frozen in (True, False)
    ]
    frozen, trained = (model.flops(torch.zeros(1, 3, 64, 64)) for model in models)
    assert frozen < trained / 2


# Bad input


@pytest.mark.parametrize(
    ("name", "args", "role", "how", "message"),
    [
        ("resnet5", {}, "pretrain", {}, r"no such model; near it: resnet5\w+, "),
        ("vit_small_patch14_dinov3", {}, "pretrain", {}, r"near it: vit_small_patch1[46]_dinov[23], "),
        ("resnet50.imagenet", {}, "pretrain", {}, r"has no weights imagenet of resnet50; it has \w+, "),
        ("mixer_b16_224", {}, "trunk", MAPPED, "positions are for images of one size"),
        ("resnet18", {}, "pretrain", {"devices": 2}, "hardware.devices=2: the batch norm of resnet18"),
        ("resnet18", {}, "pretrain", {"chunk": 4}, "hardware.chunk=4: the batch norm of resnet18"),
        ("resnet18", {}, "classify", {"batch": 1}, "finetune.batch_size=1: the batch norm"),
        ("plain_conv", {"widths": [8]}, "trunk", MAPPED, "maps of 1 sizes, where 2 to 5"),
    ],
)
def test_what_a_network_cannot_do_is_told_in_one_line(name, args, role, how, message):
    rate = {} if role == "trunk" else {"drop_path_rate": 0.0}
    said = refusal("backbone", role, Backbone(name, args), [32], **rate, **how)
    assert re.search(message, said)
    assert len(said.splitlines()) == 1
    assert len(said) < 300


@pytest.mark.parametrize(
    ("name", "misses"),
    [
        ("resnet18", {"tokens", "cls", "plain_vit", "normed_tokens", "plain_swin", "positions"}),
        ("vit_small_patch16_dinov3", {"plain_vit", "plain_swin", "positions"}),
        ("vit_base_patch16_siglip_224", {"cls", "plain_swin"}),
        ("vit_small_patch14_reg4_dinov2", {"plain_swin"}),
    ],
)
def test_what_published_networks_offer(name, misses):
    side = 28 if "patch14" in name else 32
    shallow = {} if name == "resnet18" else {"depth": 1}
    role = ("backbone", "pretrain", Backbone(name, shallow), [side])
    assert {need for need in OFFERS if refusal(*role, (need,), drop_path_rate=0.0)} == misses


# The worked example, and the named options


def test_a_backbone_of_ones_own_is_one_file_one_line_and_one_yaml():
    assert OWN["plain_conv"] == "sept.backbones.plain_conv"
    e = experiment(["backbone=conv_micro", "plan=true"])
    assert e.backbone == Backbone("plain_conv", {"widths": [32, 64, 128]})
    capability.require(e)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_named_backbone_can_be_pretrained_and_finetuned(option):
    sizes = [] if "micro" in option else ["pretrain=moby_swin_t", "finetune=classify", "compute=300epochs"]
    capability.require(experiment([f"backbone={option}", *sizes]))
    for finetuning, task in (("detect", "boxes"), ("segment", "masks"), ("segment_linear", "masks")):
        chosen = [f"backbone={option}", *sizes[:1], f"task=patterns_{task}", f"finetune={finetuning}_micro"]
        capability.require(experiment(chosen))
