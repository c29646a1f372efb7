"""Methods of pre-training, one folder each; any of them trains a target's backbone or a retriever."""

from sept.methods.byol.recipe import BYOLRecipe
from sept.methods.clip.recipe import ClipRecipe
from sept.methods.dino.recipe import DinoRecipe
from sept.methods.distill.recipe import DistillRecipe
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.mae.recipe import MAERecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Recipe
from sept.methods.simclr.recipe import SimCLRRecipe
from sept.methods.simmim.recipe import SimMIMRecipe
from sept.methods.supervised.recipe import SupervisedRecipe

METHODS: dict[str, type[Recipe]] = {
    "byol": BYOLRecipe,
    "clip": ClipRecipe,
    "dino": DinoRecipe,
    "distill": DistillRecipe,
    "ibot": IBotRecipe,
    "mae": MAERecipe,
    "moby": MoByRecipe,
    "simclr": SimCLRRecipe,
    "simmim": SimMIMRecipe,
    "supervised": SupervisedRecipe,
}
