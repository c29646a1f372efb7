"""Networks by timm name: what a plan knows of them. No torch here; `sept.backbones.networks` builds them."""

from dataclasses import dataclass, field
from typing import Any

from sept import ranges
from sept.errors import ConfigError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel
"""Mean and deviation of red, green and blue in [0, 1], by which images are normalised."""

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

OWN = dict.fromkeys(("hog", "hog_conv"), "sept.backbones.hog") | {"plain_conv": "sept.backbones.plain_conv"}
"""Networks that are not timm's, by the name under which their module registers them with timm."""

SIZES = {  # arguments that are a count, or a list of counts, in every network that has them
    *("img_size", "patch_size", "window_size", "embed_dim", "depth", "num_heads"),
    *("depths", "dims", "layers", "channels", "widths", "output_stride"),
}
HEAD = "a head is made for the task's classes; leave it out"
PUBLISHED = {
    "backbone": "init=foundation fine-tunes published weights, and pretrain.from=hub continues from them; leave it out",
    "retriever.backbone": "retriever.weights=hub takes the published weights; leave it out",
}
FROM_FILE = {
    "backbone": "write init.weights=FILE or pretrain.from=FILE",
    "retriever.backbone": "write retriever.weights=FILE",
}
DROP_PATH = {
    "backbone": "write pretrain.drop_path_rate and finetune.drop_path_rate",
    "retriever.backbone": "write retriever.train.drop_path_rate",
}
TAKEN: dict[str, str | dict[str, str]] = {  # arguments that are set by other settings, or by none
    "num_classes": HEAD,
    "in_chans": "images have three channels; leave it out",
    "features_only": "networks are taken whole; leave it out",
    "drop_path_rate": DROP_PATH,
    "checkpoint_path": FROM_FILE,
    **dict.fromkeys(("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"), PUBLISHED),
}
"""What to do instead: in any network, or by the setting that holds it."""


@dataclass
class Backbone:
    """A network: its name in timm, and its arguments where they differ from timm's."""

    name: str = ranges.text("")
    args: dict[str, Any] = field(default_factory=dict)  # tried before any work: sept.capability
    statistics: str = ranges.choice(
        "timm", ("timm", "imagenet")
    )  # of pixels: in timm's record of the name, or ImageNet's

    def check(self, prefix: str) -> None:
        """ConfigError for an argument that is null, which timm leaves out, that is not set here, or is no size.

        prefix: the setting that holds the network, `backbone` or `retriever.backbone`.
        """
        for name, value in self.args.items():
            if value is None:
                raise ConfigError(f"{prefix}.args.{name}=null would have no effect: timm takes its own; leave it out")
            way = TAKEN.get(name)
            if way is None and name in SIZES and not _is_size(value):
                way = "must be a whole number of at least 1"
            if way is not None:
                told = way if isinstance(way, str) else way[prefix]
                raise ConfigError(f"{prefix}.args.{name}={ranges.format_value(value)}: {told}")

    @property
    def architecture(self) -> str:
        """The name without the tag of published weights: `resnet50` of `resnet50.a1_in1k`."""
        return self.name.partition(".")[0]


def _is_size(value: Any) -> bool:
    """Whether numbers, alone or in lists, are counts; of anything else the network itself is asked."""
    if isinstance(value, list):
        return all(map(_is_size, value))
    return not isinstance(value, int | float) or (type(value) is int and value > 0)
