"""Methods of pre-training, one folder each; any of them trains a target's backbone or a retriever."""

from sept.methods.byol.recipe import BYOLRecipe
from sept.methods.clip.recipe import ClipRecipe
from sept.methods.dino.recipe import DinoRecipe
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Recipe
from sept.methods.simclr.recipe import SimCLRRecipe
from sept.methods.supervised.recipe import SupervisedRecipe

METHODS: dict[str, type[Recipe]] = {
    "byol": BYOLRecipe,
    "clip": ClipRecipe,
    "dino": DinoRecipe,
    "ibot": IBotRecipe,
    "moby": MoByRecipe,
    "simclr": SimCLRRecipe,
    "supervised": SupervisedRecipe,
}
