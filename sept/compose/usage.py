"""The text of `--help`."""

import textwrap
from dataclasses import fields, is_dataclass

from sept.compose.names import defaults, options
from sept.config import Experiment

WIDTH = 110  # characters, of the lists of options
ADDED = {  # groups without a default: `+table=NAME`
    "experiment": "A named choice of the groups below.",
    "table": "A named sweep: the paper's tables and figures, and their counterparts in the embedded world.",
}
USAGE = """\
usage: python {program} [GROUP=OPTION ..] [KEY=VALUE ..]

{purpose}

{groups}

KEY=VALUE: any setting; --cfg job prints all with their values. Several values and -m make a sweep: seed=0,1,2 -m
Any timm network: backbone.name=NAME backbone.args.KEY=VALUE, and retriever.backbone.name=NAME likewise
Completion of groups and options in bash (zsh, fish): eval "$(python {program} -sc install=bash)"
Hydra's own flags: --hydra-help"""


def usage(program: str, purpose: str) -> str:
    """Each group with its default, a one-line description and its options."""
    told = dict(ADDED)
    for item in fields(Experiment):
        if is_dataclass(item.type) and options(item.name):
            told[item.name] = str(item.type.__doc__).split(". ")[0].split(".\n")[0].rstrip(".") + "."
    lines = []
    for key, default in ({f"+{name}": "NAME" for name in ADDED} | defaults()).items():
        group = key.lstrip("+")
        wrapped = textwrap.wrap(" ".join(options(group)), WIDTH, break_on_hyphens=False)
        lines += ["", f"{key}={default}: {told[group]}", *(f"    {line}" for line in wrapped)]
    return USAGE.format(program=program, purpose=purpose, groups="\n".join(lines[1:]))
