"""Networks of open_clip as retrievers, of images and text: how they are described, built, filled, kept and fetched.

Named MODEL.TAG, as in `ViT-B-16-quickgelu.openai`: open_clip's model and its tag of weights, which may be left out.
Arguments are parts of the model's configuration: `retriever.backbone.args.vision_cfg.layers=6`.
"""

import difflib
import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from sept.backbones import Backbone, hub
from sept.backbones.weights import load_backbone, write_weights
from sept.errors import ConfigError

NEAR = 5  # names in a message
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # of a repository, in open_clip's order
CONFIG = "open_clip_config.json"  # beside weights: open_clip.create_model("local-dir:FOLDER") reads both
SQUASHES = {"shortest": False, "squash": True}
KEY = "retriever.backbone.name"
PACKAGE = str(Path(open_clip.__file__).parent)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Not so what open_clip logs by the root logger of each name that it parses and each tokenizer that it takes."""
    chatter = record.levelno <= logging.INFO and record.pathname.startswith(PACKAGE)
    return not chatter or logging.getLogger().isEnabledFor(logging.DEBUG)


logging.getLogger().addFilter(_is_of_use)


def preprocess(name: str, args: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What open_clip shows the network, as the fields of a `Preprocess`; given: what is set already."""
    model, tag = _parts(name)
    side = _config(Backbone(name, args))["vision_cfg"]["image_size"]
    if not isinstance(side, int) and "crop" not in given:
        raise ConfigError(f"{KEY}={name} is for images of {side} pixels: only squares are shown here")
    record = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    mode = record.get("resize_mode", "shortest")
    if mode not in SQUASHES and "squash" not in given:
        raise ConfigError(
            f"{KEY}={name}: its images are resized by resize_mode={mode}: set retriever.preprocess.squash"
        )
    return {
        "resize": given.get("crop", side),
        "crop": side,
        "squash": SQUASHES.get(mode, False),
        "interpolation": record.get("interpolation", "bicubic"),
        "mean": record.get("mean", open_clip.OPENAI_DATASET_MEAN),
        "std": record.get("std", open_clip.OPENAI_DATASET_STD),
    }


def build(backbone: Backbone, side: int | None = None) -> nn.Module:
    """Both towers with fresh weights. Raises ConfigError for a name or side that it cannot have."""
    config = _config(backbone)
    own = config["vision_cfg"]["image_size"]
    if side is not None and side != own:
        raise ConfigError(f"retriever.preprocess.crop={side}: {backbone.name} takes images of {own} pixels")
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    try:
        network: nn.Module = kind(**config)
    except Exception as error:  # of open_clip's constructors, which check few of their arguments
        told = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"retriever.backbone.args={backbone.args} do not fit {backbone.name}: {told}") from error
    network.joint_width = config["embed_dim"]
    return network


def image_tower(network: Any) -> nn.Module:
    """What makes images (B, 3, H, W) features."""
    return network.visual  # type: ignore[no-any-return]


def width(network: Any) -> int:
    """Of the space that images and text share."""
    return int(network.joint_width)


def attempt(backbone: Backbone, side: int, text: bool) -> None:
    """ConfigError for what the network cannot do; tried without memory. text: whether text is to be embedded."""
    with torch.device("meta"), torch.no_grad():
        network: Any = build(backbone, side)
        try:
            found = network.encode_image(torch.empty(2, 3, side, side)).shape
        except Exception as error:
            told = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(f"{KEY}={backbone.name} with {backbone.args} does not take images: {told}") from None
    if found != (2, width(network)):
        raise ConfigError(f"{KEY}={backbone.name}: it gives {tuple(found)} of 2 images")
    if text:
        _tokens(backbone, [""])


def load(network: nn.Module, file: Path, branch: str = "teacher") -> None:
    load_backbone(network, file, branch)


def save(network: nn.Module, folder: Path, backbone: Backbone, facts: dict[str, Any]) -> None:
    """Write model.safetensors and open_clip_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    record = preprocess(backbone.name, backbone.args, {})
    shown = {
        "size": record["crop"],
        "mean": record["mean"],
        "std": record["std"],
        "interpolation": record["interpolation"],
        "resize_mode": "squash" if record["squash"] else "shortest",
    }
    (folder / CONFIG).write_text(json.dumps({"model_cfg": _config(backbone), "preprocess_cfg": shown}, indent=2))
    write_weights(network, folder, facts)


def fetch(backbone: Backbone, option: str, *, online: bool) -> Path:
    """The file that open_clip names for these weights; see `sept.backbones.hub.fetch`."""
    model, tag = _parts(backbone.name)
    owner, _, rest = open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "").partition("/") if tag else ("", "", "")
    name, _, file = rest.partition("/")
    if not name:
        raise ConfigError(
            f"{option}={hub.HUB}: open_clip names no weights of {backbone.name} at the Hugging Face Hub; "
            f"give a file: {option}=FILE"
        )
    return hub.from_repository(
        f"{owner}/{name}", (file,) if file else FILES, f"{option}={hub.HUB}", option, online=online
    )


def embed_text(network: Any, backbone: Backbone, lines: list[str]) -> Tensor:
    """Vectors (B, D) float32 of the lines, not yet of unit length, on the network's device."""
    device = next(network.parameters()).device
    return network.encode_text(_tokens(backbone, lines).to(device)).float()  # type: ignore[no-any-return]


def _tokens(backbone: Backbone, lines: list[str]) -> Tensor:
    model, _ = _parts(backbone.name)
    try:
        tokenizer = open_clip.get_tokenizer(model, context_length=_config(backbone)["text_cfg"].get("context_length"))
        return tokenizer(lines)  # type: ignore[no-any-return]
    except Exception as error:  # some are of transformers or fetched
        told = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{KEY}={backbone.name}: its tokens cannot be made here: {told}") from None


def _parts(name: str) -> tuple[str, str]:
    """Model and tag. Raises ConfigError for those that open_clip does not have."""
    known = open_clip.list_models()
    model, tag = (name, "") if name in known else (name.rpartition(".")[0] or name, name.rpartition(".")[2])
    if model not in known:
        near = ", ".join(difflib.get_close_matches(model, known, n=NEAR, cutoff=0.5)) or "none"
        raise ConfigError(f"{KEY}={name}: open_clip {open_clip.__version__} has no such model; near it: {near}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        raise ConfigError(f"{KEY}={name}: open_clip has no weights {tag} of {model}; known are {', '.join(tags)}")
    return model, tag


def _config(backbone: Backbone) -> dict[str, Any]:
    """open_clip's configuration of the model with the arguments in it."""
    config: dict[str, Any] = open_clip.get_model_config(_parts(backbone.name)[0])
    if "hf_model_name" in config["text_cfg"]:
        raise ConfigError(f"{KEY}={backbone.name}: its text tower is one of transformers, which is not read here")
    for name, value in backbone.args.items():
        both = isinstance(value, dict) and isinstance(config.get(name), dict)
        config[name] = {**config[name], **value} if both else value
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False  # it would be fetched
    return config
