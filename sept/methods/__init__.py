"""Self-supervised methods, one folder each; any of them trains a target's backbone or a retriever."""

from sept.methods.byol.recipe import BYOLRecipe
from sept.methods.dino.recipe import DinoRecipe
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Recipe
from sept.methods.simclr.recipe import SimCLRRecipe

METHODS: dict[str, type[Recipe]] = {
    "byol": BYOLRecipe,
    "dino": DinoRecipe,
    "moby": MoByRecipe,
    "ibot": IBotRecipe,
    "simclr": SimCLRRecipe,
}
