"""What the parts of a pickle become when nothing is run: names, inert objects, strings and numbers."""

from dataclasses import dataclass

LONGEST_NUMBER = 255  # digits or bytes: reading more takes more than linear time


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle names: a class or a function, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """Stands for an object that a pickle makes, and holds nothing but whose it is and whether it was a `nn.Module`."""

    __slots__ = ("maker", "network")

    def __init__(self, maker: str) -> None:
        self.maker = maker
        self.network = False


def text(content: bytes) -> str:
    """Decode a string; Python 2 wrote bytes of any kind as one."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def integer(content: bytes) -> int | bool:
    """Read a whole number in digits, or a truth value as it was written before protocol 2."""
    return content == b"01" if content in (b"00", b"01") else int(digits(content).removesuffix(b"L"))


def digits(content: bytes) -> bytes:
    """Return the digits of a number. Raises ValueError for too many."""
    if len(content) > LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    return content
