"""Self-supervised methods, one folder each; any of them trains a target's backbone or a retriever."""

from sept.methods.dino.recipe import DinoRecipe
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Recipe

METHODS: dict[str, type[Recipe]] = {
    "dino": DinoRecipe,
    "moby": MoByRecipe,
    "ibot": IBotRecipe,
}
