"""The trained networks that come with the package. The classifiers were trained with the paper's full recipe."""

from pathlib import Path

from resjax.system.errors import check

FOLDER = Path(__file__).parents[1] / "trained"  # one folder per network, as written by `export`
OWNER = "resjax/"


def trained(weights: str = "model.safetensors") -> list[str]:
    """Return the names of the included networks whose weights file has this name; by default, the classifiers."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{weights}"))


def find_trained(target: str) -> Path | None:
    """Return the folder of `NAME` or `resjax/NAME`, or None. Raises BadInput for an unknown `resjax/` name."""
    name, names = target.removeprefix(OWNER), trained("*.safetensors")
    check(name in names or not target.startswith(OWNER), f"{target}: resjax includes only {', '.join(names)}")
    return FOLDER / name if name in names else None
