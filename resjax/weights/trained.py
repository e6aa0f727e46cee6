"""Networks that we trained ourselves, classifiers by the paper's whole recipe; they come with the package."""

from pathlib import Path

from resjax.system.errors import check

FOLDER = Path(__file__).parents[1] / "trained"  # a folder each, as `export` writes it
OWNER = "resjax/"


def trained(weights: str = "model.safetensors") -> list[str]:
    """Name the networks there are: classifiers, or those whose weights lie in another file."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{weights}"))


def find_trained(target: str) -> Path | None:
    """Return the folder of `NAME` or `resjax/NAME`, None for another name. Raises BadInput for an unknown `resjax/`."""
    name, names = target.removeprefix(OWNER), trained("*.safetensors")
    check(name in names or not target.startswith(OWNER), f"{target}: resjax comes with {', '.join(names)}")
    return FOLDER / name if name in names else None
