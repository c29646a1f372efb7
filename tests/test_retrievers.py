"""Retrievers by name: they see what timm shows, take what timm gives, and what they lack is refused."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict

import micro
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hub_server import Hub, published
from PIL import Image
from safetensors.torch import load, save_file
from timm.data import create_transform, resolve_model_data_config

from sept import capability, compose
from sept.backbones import Backbone, hub, trial
from sept.backbones.flops import counted_flops
from sept.backbones.weights import save_backbone
from sept.data.transforms import embed_view, normalise
from sept.errors import ConfigError
from sept.pipeline import Pipeline
from sept.retrievers import FEATURES, settings
from sept.retrievers.encoder import Encoder
from sept.retrievers.settings import Preprocess, PreprocessSettings, Retriever
from sept.retrievers.timm_networks import build
from sept.runtime.hardware import Runtime
from sept.stages.inputs import open_encoder
from sept.store import Store

NAMED = {
    "dinov2_s14": "cls",
    "dinov2_b14": "cls",
    "dinov2_s14_reg": "cls",
    "dinov2_b14_reg": "cls",
    "dinov3_s16": "cls",
    "dinov3_b16": "cls",
    "clip_b16": "pooled",
    "siglip2_b16": "pooled",
    "vit_b16_in21k": "cls",
    "convnext_b": "pooled",
}
# Where the authors show images otherwise than timm records: each YAML says where they do.
EVALUATED = {"resize": 256, "crop": 224}
OTHERWISE = {
    "dinov2_s14": EVALUATED,
    "dinov2_b14": EVALUATED,
    "dinov2_s14_reg": EVALUATED,
    "dinov2_b14_reg": EVALUATED,
    "dinov3_s16": EVALUATED,
    "dinov3_b16": EVALUATED,
    "clip_b16": {"resize": 224},
    "siglip2_b16": {"resize": 224, "squash": True},
}
WIDTH = 32
VIT = {"embed_dim": WIDTH, "depth": 2, "num_heads": 2}
SMALL = {  # every kind of network at a small size: name, arguments
    "plain": ("vit_small_patch16_224", VIT),
    "registers": ("vit_small_patch14_reg4_dinov2.lvd142m", VIT),
    "registers alone": ("vit_medium_patch16_reg4_gap_256", VIT),
    "dinov3": ("vit_small_patch16_dinov3.lvd1689m", VIT),
    "clip": ("vit_base_patch16_clip_quickgelu_224.openai", VIT),
    "siglip": ("vit_base_patch16_siglip_224.v2_webli", VIT),
    "average": ("vit_base_patch16_224.mae", {**VIT, "global_pool": "avg", "fc_norm": True}),
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}),
    "convnext": ("convnext_base.fb_in22k", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 32]}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]}),
}
OFFERED = {
    **dict.fromkeys(["plain", "registers", "dinov3", "clip", "average"], ("cls_mean", "cls", "mean", "pooled")),
    **dict.fromkeys(["registers alone", "siglip"], ("mean", "pooled")),
    **dict.fromkeys(["resnet", "convnext", "swin"], ("pooled",)),
}
PAIRS = [(kind, feature) for kind, features in OFFERED.items() for feature in features]


def retriever(kind, **settings) -> Retriever:
    name, args = SMALL[kind]
    nothing = PreprocessSettings(*[None] * 6)
    return Retriever(backbone=Backbone(name, dict(args)), weights="x", preprocess=nothing, **settings)


def weights_of(kind, tmp_path, **more):
    """A file of random weights as timm would publish it, with a classifier; and the network in timm's own hands."""
    name, args = SMALL[kind]
    torch.manual_seed(0)
    network = timm.create_model(name, **args, **more).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", network


def photo(height, width, seed=0):
    """Smooth, as photographs are, and in colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


# What they see


@pytest.mark.parametrize("kind", SMALL)
def test_null_settings_become_timms_own_evaluation(kind):
    name, args = SMALL[kind]
    network = timm.create_model(name, num_classes=0, **args)
    data = resolve_model_data_config(network)
    p = retriever(kind).resolved_preprocess()
    assert (p.crop, p.crop, p.interpolation) == (*data["input_size"][1:], data["interpolation"])
    assert (p.mean, p.std, p.squash) == (data["mean"], data["std"], data["crop_mode"] == "squash")
    theirs = create_transform(**data)
    for image in (photo(p.resize, p.resize), photo(p.resize + 40, p.resize)):  # nothing to resize: equal to rounding
        view = embed_view(image, p.resize, p.crop, p.squash, p.interpolation)[None]
        expected = theirs(Image.fromarray(image))
        torch.testing.assert_close(normalise(view, (p.mean, p.std))[0], expected, atol=1e-6, rtol=1e-6)
    image = photo(300, 411)  # Pillow and torch resize to within two grey levels of one another
    view = normalise(embed_view(image, p.resize, p.crop, p.squash, p.interpolation)[None], (p.mean, p.std))[0]
    assert (view - theirs(Image.fromarray(image))).abs().max() <= 2.1 / 255 / min(p.std)


def test_squashed_and_bilinear_images_are_timms_too():
    p = Preprocess(80, 64, True, "bilinear")
    theirs = create_transform((3, 64, 64), crop_pct=0.8, crop_mode="squash", interpolation="bilinear")
    image = photo(150, 111)
    view = normalise(embed_view(image, p.resize, p.crop, p.squash, p.interpolation)[None])[0]
    assert (view - theirs(Image.fromarray(image))).abs().max() <= 2.1 / 255 / min(p.std)


def test_what_is_set_stands_and_a_crop_of_another_size_keeps_timms_share_of_the_image():
    r = retriever("plain")  # timm: 224 of 248 pixels
    r.preprocess = PreprocessSettings(None, 64, True, "bilinear", [0.1, 0.2, 0.3], None)
    assert r.resolved_preprocess() == Preprocess(71, 64, True, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


# What they take


@pytest.mark.parametrize(("kind", "feature"), PAIRS)
def test_vectors_are_those_of_timms_transform_and_forward(tmp_path, kind, feature):
    file, theirs = weights_of(kind, tmp_path, num_classes=5)
    r = retriever(kind, feature=feature)
    p, images = r.resolved_preprocess(), [photo(300, 411, 1), photo(260, 224, 2)]
    encoder = Encoder(file, r.backbone, feature, p, micro.MACHINE, 2)
    found, failures = encoder(images.__getitem__, range(2))
    assert not failures
    assert found.shape == (2, settings.dim("timm", r.backbone, feature))
    transform = create_transform(**resolve_model_data_config(theirs))
    with torch.inference_mode():
        expected = by_hand(theirs, feature, torch.stack([transform(Image.fromarray(image)) for image in images]))
        exact = by_hand(theirs, feature, torch.stack([seen(image, p) for image in images]))
    assert np.abs(found - exact.numpy()).max() < 1e-5
    assert (found * expected.numpy()).sum(axis=1).min() > 1 - 1e-4  # a few pixels are a grey level off


def seen(image, p):
    """torchvision's resize of pixels: what timm's transform does to a tensor."""
    return normalise(embed_view(image, p.resize, p.crop, p.squash, p.interpolation)[None], (p.mean, p.std))[0]


def by_hand(network, feature, images):
    out = network.forward_features(images)
    first = network.num_prefix_tokens if hasattr(network, "num_prefix_tokens") else 0
    match feature:
        case "cls":
            vectors = out[:, 0]
        case "mean":
            vectors = torch.stack([each[first:].mean(dim=0) for each in out])
        case "cls_mean":
            vectors = torch.cat([out[:, 0], out[:, first:].mean(dim=1)], dim=1)
        case "pooled":
            network.reset_classifier(0)
            vectors = network(images)
    return F.normalize(vectors, dim=1)


def test_registers_are_no_patches(tmp_path):
    file, network = weights_of("registers", tmp_path)
    assert network.num_prefix_tokens == 5
    r = retriever("registers", feature="mean")
    encoder = Encoder(file, r.backbone, "mean", Preprocess(56, 56, True), micro.MACHINE, 2)
    tokens = encoder.network.forward_features(torch.zeros(1, 3, 56, 56))
    assert tokens.shape[1] == 5 + (56 // 14) ** 2
    torch.testing.assert_close(encoder.feature(encoder.network, torch.zeros(1, 3, 56, 56)), tokens[:, 5:].mean(dim=1))


# Named options


@pytest.fixture(scope="module", params=NAMED)
def named(request):
    return request.param, compose.experiment([f"retriever={request.param}"]).retriever


def test_a_named_option_says_what_timm_records_but_where_its_authors_differ(named):
    name, r = named
    data = resolve_model_data_config(None, pretrained_cfg=timm.get_pretrained_cfg(r.backbone.name).to_dict())
    crop = data["input_size"][1]
    record = {
        "resize": int(crop / data["crop_pct"]),
        "crop": crop,
        "squash": data["crop_mode"] == "squash",
        "interpolation": data["interpolation"],
        "mean": data["mean"],
        "std": data["std"],
    }
    assert asdict(r.resolved_preprocess()) == record | OTHERWISE.get(name, {})
    assert (r.feature, r.weights, r.name) == (NAMED[name], "hub", name)


def test_what_a_plan_knows_of_a_named_option_is_so(named):
    _, r = named
    crop, known = r.resolved_preprocess().crop, settings.KNOWN[r.backbone.name]
    assert settings.is_known(r.backbone, crop, r.feature)
    with torch.device("meta"):
        network = build(r.backbone, crop).eval().requires_grad_(False)
        images = torch.empty(2, 3, crop, crop)
        assert (known.crop, known.width) == (crop, network.num_features)
        assert counted_flops(network, images[:1]) == known.flops
        offered = {name for name, (offers, _) in trial.OFFERS.items() if offers(network, images)}
    assert known.features == tuple(
        name for name, each in FEATURES.items() if each.library == "timm" and {*each.needs} <= offered
    )


def test_a_plan_of_named_options_imports_no_torch():
    code = (
        "import sys\nfrom sept import capability, compose\nfrom sept.pipeline import Pipeline\n"
        "from sept.runtime.hardware import Runtime\n"
        f"for name in {[*NAMED]}:\n"
        "    e = compose.experiment([f'retriever={name}'])\n    capability.require(e, selection_only=True)\n"
        "    absent = {}\n    step = Pipeline(e, Runtime(threads=1), absent=absent).selection\n"
        "    assert [*absent] == ['retriever.weights=hub'], absent\n"
        "heavy = {'torch', 'timm', 'lightning', 'torchvision', 'open_clip'} & {*sys.modules}\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_ibots_retrievers_see_what_they_saw():
    for name, sides in (("ibot_micro", (32, 32)), ("ibot_vit_s16", (256, 224)), ("ibot_vit_b16_in22k", (256, 224))):
        assert compose.experiment([f"retriever={name}"]).retriever.resolved_preprocess() == Preprocess(*sides, True)


# What is refused


def required(*overrides):
    e = compose.experiment(["retriever=timm", *overrides])
    capability.require(e, selection_only=True)
    return e


def refused(*overrides) -> str:
    with pytest.raises(ConfigError) as told:
        required(*overrides)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_name_that_timm_does_not_have_is_refused_with_the_nearest():
    told = refused("retriever.backbone.name=vit_smal_patch14_dinov2.lvd142m")
    assert told.startswith("retriever.backbone.name=vit_smal_patch14_dinov2.lvd142m: timm ")
    assert "near it: vit_small_patch14_dinov2" in told
    told = refused("retriever.backbone.name=vit_small_patch14_dinov2.lvd")
    assert told.endswith("has no weights lvd of vit_small_patch14_dinov2; it has lvd142m")


@pytest.mark.parametrize(
    ("name", "feature", "why"),
    [
        ("resnet18", "cls", "it has no class token; most ViTs (vit_*) have one"),
        ("resnet18", "mean", "its tokens are not those of a ViT (vit_*)"),
        ("vit_base_patch16_siglip_224", "cls_mean", "it has no class token; most ViTs (vit_*) have one"),
        ("vit_medium_patch16_reg4_gap_256", "cls", "it has no class token; most ViTs (vit_*) have one"),
    ],
)
def test_a_network_without_the_feature_is_refused(name, feature, why):
    told = refused(f"retriever.backbone.name={name}", f"retriever.feature={feature}")
    assert told == f"retriever.backbone.name={name} with {{}}: {why}"


def test_a_side_that_the_network_refuses_is_refused():
    told = refused("retriever.backbone.name=vit_small_patch14_dinov2.lvd142m", "retriever.preprocess.crop=200")
    assert "side=200: vit_small_patch14_dinov2.lvd142m takes sides that are multiples of its patches of 14" in told


def test_settings_that_cannot_be_are_refused():
    told = refused("retriever.backbone.name=resnet18", "retriever.preprocess.resize=100")
    assert told == "retriever.preprocess.crop=224 is larger than retriever.preprocess.resize=100"
    assert refused("retriever.backbone.name=resnet18", "retriever.preprocess.interpolation=nearest") == (
        "retriever.preprocess.interpolation=nearest: must be one of bilinear, bicubic; did you mean bilinear?"
    )
    assert "retriever.preprocess.mean=[0.5]: must be 3 values" in refused(
        "retriever.backbone.name=resnet18", "retriever.preprocess.mean=[0.5]"
    )
    assert "of networks of retriever.library=timm are taken cls_mean, cls, mean, pooled" in refused(
        "retriever.backbone.name=resnet18", "retriever.feature=joint"
    )


def test_weights_of_another_shape_are_refused_by_up_to_eight_names_of_each_kind(tmp_path):
    file, _ = weights_of("plain", tmp_path)
    other = Backbone("vit_small_patch16_224", {**VIT, "embed_dim": 48, "depth": 4})
    with pytest.raises(ConfigError) as told:
        Encoder(file, other, "cls", Preprocess(224, 224), micro.MACHINE, 2)
    message = str(told.value)
    assert "missing 24 (blocks.2.attn.proj.bias, " in message
    assert "other shape " in message
    assert message.count(", ...") == 2


# Of a key


def key(**settings):
    e = compose.experiment(["retriever=ibot_micro"])
    e.retriever.preprocess = PreprocessSettings(32, 32, True, **settings)
    return Pipeline(e, Runtime(threads=1)).features[0].key


def test_statistics_and_interpolation_are_part_of_the_key_whether_set_or_recorded():
    assert len({key(), key(interpolation="bilinear"), key(mean=[0.5] * 3), key(std=[0.5] * 3)}) == 4
    e = compose.experiment(["retriever=ibot_micro"])
    recorded = Pipeline(e, Runtime(threads=1)).features[0].key
    assert recorded == key()


def test_an_encoder_of_a_saved_backbone_is_that_of_the_file(tmp_path):
    file, network = weights_of("resnet", tmp_path, num_classes=0)
    name, args = SMALL["resnet"]
    save_backbone(network, tmp_path / "backbone", name, args, {})
    p, image = retriever("resnet").resolved_preprocess(), photo(90, 70)
    both = [
        Encoder(each, Backbone(name, args), "pooled", p, micro.MACHINE, 1)(lambda i: image, [0])[0]
        for each in (file, tmp_path / "backbone" / "model.safetensors")
    ]
    assert np.array_equal(*both)


def test_the_files_kept_say_what_images_the_weights_are_for(tmp_path):
    from sept.retrievers import timm_networks

    name, args = SMALL["clip"]
    for statistics, mean in (("timm", 0.48145466), ("imagenet", 0.485)):
        folder, backbone = tmp_path / statistics, Backbone(name, args, statistics)
        timm_networks.save(build(backbone), folder, backbone, {})
        assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["mean"][0] == mean
        assert ("of ImageNet." in (folder / "README.md").read_text()) == (mean == 0.485)


# From the Hub


TINY = [  # of the network that the server below gives
    "retriever=timm",
    "retriever.backbone.name=resnet18",
    "+retriever.backbone.args.layers=[1,1,1,1]",
    "+retriever.backbone.args.channels=[8,8,16,32]",
    "retriever.preprocess.crop=32",
    "retriever.weights=hub",
]


def test_weights_of_the_hub_are_kept_by_their_digest_and_read_from_its_cache(monkeypatch, tmp_path):
    name, args = SMALL["resnet"]
    e, repository = compose.experiment(TINY), "timm/resnet18.a1_in1k"
    with Hub() as server:
        server.publish(repository, published(timm.create_model(name, num_classes=5, **args)))
        server.known_here(monkeypatch, tmp_path / "cache")
        absent = {}
        before = Pipeline(e, micro.MACHINE, absent=absent).retriever
        assert "timm/resnet18.a1_in1k is not in the local cache" in absent["retriever.weights=hub"]
        assert not server.requests
        made = Store(str(tmp_path / "store")).make(Pipeline(e, micro.MACHINE).retriever)
        content = server.repositories[repository]["model.safetensors"]
        assert made.manifest["spec"]["sha256"] == hashlib.sha256(content).hexdigest()
        server.silent = True
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        assert Pipeline(e, micro.MACHINE).retriever.key == made.key != before.key
        server.silent = False
        server.publish(repository, published(timm.create_model(name, num_classes=6, **args)))
        assert Pipeline(e, micro.MACHINE).retriever.key != made.key
    p, image = e.retriever.resolved_preprocess(), photo(40, 60)
    assert p == Preprocess(33, 32, squash=False)
    encoder = open_encoder(made, "pooled", p, micro.MACHINE, 2, "32-true")
    network = timm.create_model(name, num_classes=5, **args).eval()
    network.load_state_dict(load(content))
    assert np.abs(encoder(lambda i: image, [0])[0] - pooled(network, seen(image, p)[None])).max() < 1e-5


def pooled(network, images):
    with torch.inference_mode():
        return by_hand(network, "pooled", images).numpy()
