"""Downloads repositories of the Hugging Face Hub through the official client, with its cache and offline mode."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from resjax.system.errors import BadInput
from resjax.system.progress import advance, working
from resjax.weights.files import INDEX, read_places

WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin")  # in order of preference
BESIDE = ("model.json", "mean.npy", "config.json", "preprocessor_config.json")


def is_repository(target: str) -> bool:
    """Return whether a name has the form OWNER/NAME or OWNER/NAME@REVISION."""
    owner, slash, name = target.partition("/")
    return bool(owner and slash and name) and "/" not in name and not owner.startswith((".", "~"))


def fetch(target: str) -> Path:
    """Download the weights of `OWNER/NAME[@REVISION]` and their descriptions to the cache; return the folder.

    Raises BadInput if the repository does not exist or has no weights, or if the Hub cannot be reached and the cache
    does not contain the weights.
    """
    from huggingface_hub import errors, snapshot_download  # imported here, so that other commands start faster

    def download(*files: str) -> Path:
        with working(f"downloading {target}, MB"):
            return Path(snapshot_download(name, revision=revision or None, allow_patterns=[*files, *BESIDE],
                                          tqdm_class=Megabytes))

    name, _, revision = target.partition("@")
    try:
        for weights in WEIGHTS:
            folder = download(weights)
            if weights.endswith(INDEX) and (folder / weights).is_file():
                download(weights, *sorted(set(read_places(folder / weights).values())))
            if (folder / weights).is_file():
                return folder
    except BadInput:
        raise
    except errors.LocalEntryNotFoundError:
        raise BadInput(f"{target}: neither a local file or folder nor in the cache of the Hugging Face Hub, which "
                       "is unreachable or disabled by HF_HUB_OFFLINE; download it on a machine with network access, "
                       "or give a local weights file") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(f"{target}: neither a local file or folder nor a repository of the Hugging Face Hub (for a "
                       "private one, run `hf auth login`)") from None
    except Exception as error:  # connection errors include types that the client does not define
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{target}: not a local file or folder, and the Hugging Face Hub failed ({reason})"
                       ) from None
    raise BadInput(f"{target}: the repository (or, offline, its cached part) has neither "
                   f"{' nor '.join(WEIGHTS)}")


class Megabytes(tqdm):  # type: ignore[misc]
    """The client's progress bars. The bar that counts bytes on disk is shown like all progress in resjax."""

    def __init__(self, *items: Any, **settings: Any) -> None:
        super().__init__(*items, **{**settings, "disable": True})
        self.counts = str(settings.get("desc")).startswith("Reconstruct")

    def update(self, n: float | None = 1) -> None:
        """Count additional bytes."""
        self.n += n or 0
        if self.counts:
            advance(int(self.n) // 10**6, total=int(self.total or 0) // 10**6)
