"""Weights by timm name from the Hugging Face Hub, or from its local cache; no torch at the top, for plans."""

from pathlib import Path

from sept.errors import ConfigError

HUB = "hub"  # what a `weights` setting says for "fetch what timm names"
FILES = ("model.safetensors", "pytorch_model.bin")  # in timm's order
SECONDS = 10  # that the Hub may take for an answer
REPOSITORIES = {  # of networks that have a named option, where it is not timm/NAME: a plan of those needs no timm
    "vit_base_patch16_clip_quickgelu_224.openai": "timm/vit_base_patch16_clip_224.openai",
}
REPOSITORIES |= {
    name: f"timm/{name}"
    for name in (
        *("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m"),
        *("vit_small_patch14_reg4_dinov2.lvd142m", "vit_base_patch14_reg4_dinov2.lvd142m"),
        *("vit_small_patch16_dinov3.lvd1689m", "vit_base_patch16_dinov3.lvd1689m"),
        *("vit_base_patch16_siglip_224.v2_webli", "vit_base_patch16_224.augreg_in21k", "convnext_base.fb_in22k"),
    )
}


def fetch(name: str, option: str, *, online: bool = True) -> Path:
    """The weights file that timm names for its model `name`: from the Hub, or the copy in its local cache.

    option: the setting that asks for it, for messages. online=False looks into the cache alone, as a plan does. The
    Hub is asked once and waited for SECONDS; where it does not answer, the copy is taken. Raises ConfigError in one
    line for a name without published weights, for a repository that is refused, and where there is no copy either.
    """
    repository, files = _source(name, option)
    return from_repository(repository, files, f"{option}={HUB}", option, online=online)


def from_repository(repository: str, files: tuple[str, ...], asked: str, option: str, *, online: bool = True) -> Path:
    """The first of `files` that the repository OWNER/NAME has; see `fetch`. asked: how messages begin."""
    why, instead = "" if online else "and a plan fetches nothing", f"or give a file: {option}=FILE"
    for file in files if online else ():
        try:
            return _downloaded(repository, file)
        except _Absent:
            continue
        except _Silent as error:
            why = str(error)
            break
        except _Refused as error:
            raise ConfigError(f"{asked}: {error}; {instead}") from None
    else:
        if online:
            none = f"has none of {', '.join(files)}"
            raise ConfigError(f"{asked}: {repository} at the Hugging Face Hub {none}; {instead}")
    found = next((path for file in files if (path := _cached(repository, file)) is not None), None)
    if found is None:
        raise ConfigError(
            f"{asked}: {repository} is not in the local cache of the Hugging Face Hub, {why}: "
            f"try again where it can be reached, {instead}"
        )
    return found


class _Absent(Exception):
    """The repository does not have this file."""


class _Silent(Exception):
    """The Hub cannot be reached, or may not be asked."""


class _Refused(Exception):
    """The Hub answers, and gives nothing."""


def _downloaded(repository: str, file: str) -> Path:
    """hf_hub_download alone would wait for minutes, and try again, where the Hub does not answer."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    hub = constants.ENDPOINT
    try:
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=SECONDS)
        return Path(hf_hub_download(repository, file, etag_timeout=SECONDS))
    except errors.RemoteEntryNotFoundError:
        raise _Absent from None
    except errors.GatedRepoError:
        raise _Refused(f"{repository} is gated: accept its terms at {hub}/{repository} and `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise _Refused(f"{hub} has no {repository}, or not for you: `hf auth login` if it is private") from None
    except errors.OfflineModeIsEnabled:
        raise _Silent("and HF_HUB_OFFLINE is set") from None
    except Exception as error:  # the library and its transport raise a dozen kinds
        if isinstance(error, OSError) and error.filename is not None:  # the disk's
            raise
        told = " ".join(str(error).split())[:200]
        raise _Silent(f"and {hub} does not answer ({type(error).__name__}: {told})") from None


def _cached(repository: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _source(name: str, option: str) -> tuple[str, tuple[str, ...]]:
    """Repository and files of the model's weights. ConfigError where timm knows none."""
    if name in REPOSITORIES:
        return REPOSITORIES[name], FILES
    import timm

    from sept.backbones.networks import record_of

    record = record_of(name, "backbone.name")
    if record is None or not record.hf_hub_id:
        raise ConfigError(
            f"{option}={HUB}: timm {timm.__version__} names no weights of {name} at the Hugging Face Hub; "
            f"give a file: {option}=FILE"
        )
    return record.hf_hub_id, (record.hf_hub_filename,) if record.hf_hub_filename else FILES
