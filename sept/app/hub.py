"""`python -m sept.app.hub FOLDER OWNER/NAME`: push a saved backbone to a Hugging Face repository."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sept.backbones.saved import CARD, CONFIG, WEIGHTS, facts_of
from sept.errors import ConfigError, SeptError
from sept.paths import path
from sept.runtime import command
from sept.store import check
from sept.store.step import MANIFEST, load_artefact

FILES = (CARD, CONFIG, WEIGHTS)


def push(folder: Path, repository: str, public: bool = False) -> str:
    """Creates the repository, private unless `public`, if there is none, uploads the backbone, and returns the URL.

    Raises ConfigError when the folder is no saved backbone or the user is not logged in, DataError when it is not what
    was published, SeptError with the error of the Hub or the network.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}: pass the folder `backbone` of a pre-training or a retriever")
    facts_of(folder / WEIGHTS)
    if (folder.absolute().parent / MANIFEST).exists():  # in a copy elsewhere nothing records what was published
        check(load_artefact(folder.absolute().parent))
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ConfigError("no Hugging Face token: log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi(library_name="sept")
    try:
        url = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=list(FILES), commit_message="Backbone from sept"
        )
    except Exception as error:  # the library, its transport and its upload threads raise a dozen kinds
        raise SeptError(f"{folder} was not pushed to {repository}: {_one_line(error)}") from error
    return str(url)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pushes, prints the URL, and returns the exit code: 0 or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m sept.app.hub", description=__doc__)
    parser.add_argument("folder", type=path, help="a saved backbone: .../backbone of a pre-training or a retriever")
    parser.add_argument("repository", metavar="OWNER/NAME", help="created if it does not exist")
    parser.add_argument("--public", action="store_true", help="create the repository as public, not private")
    options = parser.parse_args(arguments)
    try:
        print(push(options.folder, options.repository, options.public))
    except SeptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _one_line(error: Exception) -> str:
    """One line; a failed upload has its reason only in its cause."""
    cause = f" {error.__cause__}" if type(error) is RuntimeError else ""
    return " ".join(f"{type(error).__name__}: {error}{cause}".split())


if __name__ == "__main__":
    command.run(main)
