"""What a user may call a model, and the checkpoint folder it stands for."""

from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from knowshift.errors import InputError
from knowshift.models import contents
from knowshift.progress import console

EMBEDDED = "smollm2"

WANTED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "tokenizer*",
    "merges.txt",
    "vocab.txt",
)
# Second copies of the same weights, and folders for other frameworks.
UNWANTED = ("*/*", "consolidated*")


def resolve(name: str) -> Path:
    """The checkpoint folder that ``name`` stands for.

    Args:
        name: ``smollm2`` (the embedded model), a local checkpoint folder, a local PEFT adapter folder (merged
            onto its base once, in the user's cache), or a hub id ``namespace/name`` (``@revision``).

    Raises:
        InputError: unknown model, no network and nothing cached, missing ``config.json`` or safetensors.
    """
    if name == EMBEDDED:
        from knowshift.models.smollm2 import embedded

        return embedded()
    if not name:
        raise InputError("the model's name is empty: no such model folder")
    path = Path(name).expanduser()
    if path.is_dir():
        return _local(path)
    if path.exists():
        raise InputError(f"{name}: a checkpoint folder is expected, this is a file")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"{name}: no such model folder")
    return _local(_download(name))


def _local(folder: Path) -> Path:
    adapter = (folder / contents.ADAPTER_CONFIG).is_file()
    if adapter and contents.has_weights(folder):
        raise InputError(
            f"{folder}: holds a full model and {contents.ADAPTER_CONFIG}: keep the two in separate folders"
        )
    if adapter:
        from knowshift.models.adapter import merged

        return merged(folder)
    return contents.check(folder)


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    shown = not are_progress_bars_disabled()
    if not console.is_terminal:
        disable_progress_bars()
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
        )
    except HFValidationError as error:
        raise InputError(
            f"{name}: neither a folder nor a model name ({EMBEDDED}, or a hub id as in namespace/name)"
        ) from error
    except GatedRepoError as error:
        raise InputError(f"{name}: access to this model must be granted on the hub (then: hf auth login)") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{name}: the hub has this model, but no such revision") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{name}: neither a folder here nor a model on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise InputError(
            f"{name}: no such folder, and {why} and this model is not in the local cache: give a folder with "
            f"config.json and safetensors, or the embedded model {EMBEDDED}"
        ) from error
    finally:
        if shown:
            enable_progress_bars()
    return Path(folder)
