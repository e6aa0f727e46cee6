"""Networks that we trained by the paper's whole recipe; they come with the package and need no network."""

from pathlib import Path

from resjax.system.errors import check

FOLDER = Path(__file__).parents[1] / "trained"  # a folder each, as `export` writes it
OWNER = "resjax/"


def trained() -> list[str]:
    """Name the networks there are."""
    return sorted(folder.name for folder in FOLDER.glob("*/"))


def find_trained(target: str) -> Path | None:
    """Return the folder of `NAME` or `resjax/NAME`, None for another name. Raises BadInput for an unknown `resjax/`."""
    name, names = target.removeprefix(OWNER), trained()
    check(name in names or not target.startswith(OWNER), f"{target}: resjax comes with {', '.join(names)}")
    return FOLDER / name if name in names else None
