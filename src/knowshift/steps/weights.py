"""What changed in weights, and how it goes back: ``diff``, ``restore``, ``merge``, ``patch``."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from knowshift.errors import InputError
from knowshift.files import digest_file
from knowshift.runs import record

if TYPE_CHECKING:
    from knowshift.weights.diff import Diff
    from knowshift.weights.merge import Merged
    from knowshift.weights.merge.method import Option
    from knowshift.weights.scores import Arithmetic, Of, Order, Rank


def diff(
    base: str,
    tuned: str,
    out: Path,
    *,
    region: str = "blocks",
    arithmetic: "Arithmetic" = "float32",
    fractions: Sequence[float | str],
    seed: int = 0,
    matrices: bool = False,
    charts: bool = False,
) -> "Diff":
    """``knowshift diff``: concentration and place of an update; on request by matrix, and drawn."""
    from knowshift.memory import keep_freed_memory
    from knowshift.models import resolve
    from knowshift.weights.diff import diff as compare

    keep_freed_memory()
    base_path, tuned_path = resolve(base), resolve(tuned)
    if out.resolve() in (base_path.resolve(), tuned_path.resolve()):
        raise InputError(f"--out {out}: is one of the two models: the record of how it was made would be written over")
    digests = _digests_later(base=base_path, tuned=tuned_path)
    choices = {"region": region, "arithmetic": arithmetic, "fractions": fractions, "matrices": matrices}
    with record(out, "diff", {"base": base, "tuned": tuned, **choices, "charts": charts}, seed=seed) as entry:
        result = compare(
            base_path,
            tuned_path,
            region=region,
            arithmetic=arithmetic,
            fractions=fractions,
            seed=seed,
            matrices=matrices,
        )
        if charts:
            from knowshift.report.drawn import draw_diff

            draw_diff(result.concentration, result.modules, out)
        result.write(out)
        entry["models"] = digests()
    return result


def restore(
    base: str,
    tuned: str,
    fractions: Sequence[float | str],
    out: Path,
    *,
    rank: "Rank" = "relative",
    order: "Order" = "top",
    region: str = "blocks",
    of: "Of" = "all",
    arithmetic: "Arithmetic" = "float32",
    patch: bool = False,
    seed: int = 0,
) -> list[Path]:
    """``knowshift restore``: one checkpoint folder per fraction, or with ``patch`` one patch file."""
    from knowshift.memory import keep_freed_memory
    from knowshift.models import resolve
    from knowshift.weights.restore import restore as put_back

    keep_freed_memory()
    base_path, tuned_path = resolve(base), resolve(tuned)
    digests = _digests_later(base=base_path, tuned=tuned_path)
    choices = {"rank": rank, "order": order, "region": region, "of": of, "arithmetic": arithmetic}
    options = {"base": base, "tuned": tuned, "fractions": fractions, **choices, "patch": patch}
    with record(out, "restore", options, seed=seed) as entry:
        written = put_back(
            base_path,
            tuned_path,
            fractions,
            out,
            rank=rank,
            order=order,
            region=region,
            of=of,
            arithmetic=arithmetic,
            seed=seed,
            patch=patch,
            base_name=base,
            tuned_name=tuned,
        )
        entry["models"] = digests()
    return written


def merge(
    method: str,
    base: str,
    tuned: str,
    out: Path,
    *,
    region: str = "all",
    seed: int = 0,
    **options: "Option",
) -> "Merged":
    """``knowshift merge``: the checkpoint of a control or rival of restoration."""
    from knowshift.steps.inputs import resolve_pair
    from knowshift.weights.merge import write

    base_path, tuned_path, models = resolve_pair(base, tuned)
    given = {"method": method, "base": base, "tuned": tuned, "region": region, **options}
    with record(out, "merge", given, seed=seed, models=models) as entry:
        merged = write(
            method, base_path, tuned_path, out, region=region, seed=seed, base_name=base, tuned_name=tuned, **options
        )
        entry |= {"removed_norm_share": merged.removed_norm_share, "moved": merged.moved}
    return merged


def _digests_later(**folders: Path) -> Callable[[], dict[str, str]]:
    """Digest checkpoints beside other work: what is returned waits for the digests, by role."""
    from knowshift.models import digest

    digests: dict[str, Future[str]] = {role: Future() for role in folders}

    def run(role: str, folder: Path) -> None:
        try:
            digests[role].set_result(digest(folder))
        except BaseException as error:
            digests[role].set_exception(error)

    for role, folder in folders.items():  # not a pool: work that failed does not wait for them
        threading.Thread(target=run, args=(role, folder), daemon=True).start()
    return lambda: {role: future.result() for role, future in digests.items()}


def patch_apply(patch: Path, model: str, out: Path) -> Path:
    """``knowshift patch apply``: the restored checkpoint from a patch and the tuned one."""
    from knowshift.weights.patch import apply

    return _turn_patch("patch apply", patch, model, out, lambda folder: apply(patch, folder, out))


def patch_revert(patch: Path, model: str, out: Path) -> Path:
    """``knowshift patch revert``: the tuned checkpoint again from a patch and the restored one."""
    from knowshift.weights.patch import revert

    return _turn_patch("patch revert", patch, model, out, lambda folder: revert(patch, folder, out, model_name=model))


def _turn_patch(command: str, patch: Path, model: str, out: Path, turn: Callable[[Path], Path]) -> Path:
    from knowshift.models import digest, resolve
    from knowshift.weights.patch import Patch

    seed = Patch(patch).manifest.origin.settings.get("seed")
    folder = resolve(model)
    digests = {"model": digest(folder), "patch": f"sha256:{digest_file(patch)}"}
    options = {"patch": patch, "model": model}
    with record(out, command, options, seed=seed if isinstance(seed, int) else 0, models=digests):
        return turn(folder)
