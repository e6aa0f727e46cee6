"""The Hugging Face Hub: the files of a repository, through its own client's cache and offline mode."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from resjax.system.errors import BadInput
from resjax.system.progress import advance, working
from resjax.weights.files import INDEX, read_places

WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin")  # each where those before are missing
BESIDE = ("model.json", "mean.npy", "config.json", "preprocessor_config.json")


def is_repository(target: str) -> bool:
    """Return whether a name has the form OWNER/NAME or OWNER/NAME@REVISION."""
    owner, slash, name = target.partition("/")
    return bool(owner and slash and name) and "/" not in name and not owner.startswith((".", "~"))


def fetch(target: str) -> Path:
    """Bring the weights of `OWNER/NAME[@REVISION]`, and what describes them, into the cache; return their folder.

    Raises BadInput if there is no such repository, it holds no weights, or the network does not answer and the
    cache does not hold them.
    """
    from huggingface_hub import errors, snapshot_download  # here, as other commands need not wait for it

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
        raise BadInput(f"{target}: neither a file or folder here nor in the cache of the Hugging Face Hub, which "
                       "cannot be reached (or HF_HUB_OFFLINE forbids it); fetch it where there is a network, or name "
                       "a local file of weights") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(f"{target}: neither a file or folder here nor a repository of the Hugging Face Hub (or a "
                       "private one: `hf auth login`)") from None
    except Exception as error:  # what a network can do is more than the client has names for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{target}: neither a file or folder here nor to be had from the Hugging Face Hub ({reason})"
                       ) from None
    raise BadInput(f"{target}: the repository, or without a network what the cache holds of it, has neither "
                   f"{' nor '.join(WEIGHTS)}")


class Megabytes(tqdm):  # type: ignore[misc]
    """The client's bars, of which the one that counts bytes on the disk is shown as all other work is."""

    def __init__(self, *items: Any, **settings: Any) -> None:
        super().__init__(*items, **{**settings, "disable": True})
        self.counts = str(settings.get("desc")).startswith("Reconstruct")

    def update(self, n: float | None = 1) -> None:
        """Count more bytes."""
        self.n += n or 0
        if self.counts:
            advance(int(self.n) // 10**6, total=int(self.total or 0) // 10**6)
