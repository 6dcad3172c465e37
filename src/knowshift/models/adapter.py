"""A PEFT adapter folder as an ordinary checkpoint: merged onto its base, once, in the user's cache."""

import hashlib
import importlib.util
from pathlib import Path

from knowshift.errors import InputError, missing_extra
from knowshift.files import digest_file, read_json
from knowshift.models import contents
from knowshift.models.cache import cache_folder, once
from knowshift.progress import bar

WEIGHTS = "adapter_model.safetensors"


def merged(folder: Path) -> Path:
    """The checkpoint in the cache that equals the adapter in ``folder`` applied to its base.

    The sum is taken in float32 and stored in the base's own types. The cache is keyed by the content of both,
    so an adapter that was trained again is merged again.

    Raises:
        InputError: no safetensors in the folder, the base unknown, or an adapter that does not fit it.
    """
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "train")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} beside {contents.ADAPTER_CONFIG} (pickle files are never read)")
    base = base_of(folder)
    parts = (
        digest_file(folder / contents.ADAPTER_CONFIG),
        digest_file(folder / WEIGHTS),
        contents.digest(base),
    )
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return once(cache_folder() / "models" / f"merged-{key}", lambda partial: _merge(base, folder, partial))


def base_of(folder: Path) -> Path:
    """The checkpoint folder of the base that the adapter in ``folder`` was trained on."""
    from knowshift.models import names, smollm2

    config = read_json(folder / contents.ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f'{folder / contents.ADAPTER_CONFIG}: "base_model_name_or_path" is missing')
    # The embedded model's cache path differs from user to user, its folder name does not.
    if Path(name).name == smollm2.FOLDER:
        name = names.EMBEDDED
    try:
        return names.resolve(name)
    except InputError as error:
        raise InputError(f"{folder}: the adapter's base cannot be had: {error}") from error


def _merge(base: Path, adapter: Path, target: Path) -> None:
    from peft import PeftModel

    from knowshift.models.load import load_model
    from knowshift.models.quiet import quiet
    from knowshift.models.write import write_like

    with bar("Merging the adapter onto its base", total=None), quiet():
        model = load_model(base, dtype="float32", device="cpu")
        try:
            model = PeftModel.from_pretrained(model, adapter, use_safetensors=True, local_files_only=True)
            model = model.merge_and_unload(safe_merge=True)
        except (ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{adapter}: the adapter does not fit its base {base}: {reason}") from error
    write_like(base, model, target)
    (target / "README.md").write_text(
        f"# {adapter.name}, merged\n\nThe adapter `{adapter}` applied to `{base}` by knowshift.\n", "utf-8"
    )
