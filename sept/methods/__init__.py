"""Self-supervised methods, one folder each; any of them trains a target's backbone or a retriever."""

from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.mae.recipe import MAERecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Recipe
from sept.methods.simmim.recipe import SimMIMRecipe

METHODS: dict[str, type[Recipe]] = {
    "moby": MoByRecipe,
    "ibot": IBotRecipe,
    "mae": MAERecipe,
    "simmim": SimMIMRecipe,
}
