"""The type that all readers of weights files return, and the error for invalid files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from resjax.system.errors import BadInput
from resjax.system.terminal import harmless
from resjax.weights.locate import Tensors


class Stored(NamedTuple):
    """The contents of a weights file: tensors by name, `arch`, and the epsilons of Keras's batch norms."""

    tensors: Tensors
    arch: str = ""
    epsilons: Mapping[str, float] = MappingProxyType({})


@contextmanager
def refusing(file: Path, kind: str) -> Iterator[None]:
    """Raise BadInput, naming the file, for any error that a damaged file of this kind causes inside the block.

    A BadInput of the block's own says what is wrong; it needs no file name.
    """
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except Exception as error:  # the libraries raise errors of many types for damaged files
        alone = " " not in str(error)  # the error's text is only a key or an index
        reason = shown(f"{type(error).__name__} {error}".strip() if alone else error, 200)
        raise BadInput(f"{file}: incomplete or invalid {kind} ({reason}); download it again") from None


def shown(name: object, most: int = 80) -> str:
    """Format a name or message from a file without control characters, and limit its length."""
    return harmless(str(name), most, allowed="")
