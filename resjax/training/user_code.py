"""Calls and traces a user's functions, and reports their failures in one line."""

import hashlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.system.errors import BadInput, check

PACKAGE = Path(__file__).parents[1]


def asked(part: str, function: Any, *arguments: Any) -> Any:
    """Return the result of a custom function. Raises BadInput, with its file and line, if it fails."""
    try:
        return function(*arguments)
    except BadInput:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__)
                  if not re.search(r"/(lib/python3|site-packages)", f.filename)
                  and not Path(f.filename).is_relative_to(PACKAGE)]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        text = str(error).strip().partition("\n")[0]
        raise BadInput(f"{part} failed{place}: {type(error).__name__}: {text}") from error


def traced(part: str, function: Any, *arguments: Any) -> Any:
    """Return the shapes that a custom function returns. Raises BadInput if it fails or is not pure."""
    (one, shapes), (other, _) = (asked(part, jax.make_jaxpr(lambda *values: function(*values), return_shape=True),
                                       *arguments) for _ in range(2))
    check(digest_of(one) == digest_of(other),
          f"{part} computes something else when it is called again; it must be pure, because it is compiled once: "
          "every step would reuse the same random numbers from NumPy, or the same value of a counter"
          + "; use its key to draw random numbers" * (part == "augment"))
    return shapes


def digest_of(program: Any) -> str:
    """Return a digest of a traced program and its constants, without the addresses of Python objects."""
    digest = hashlib.sha256(re.sub("0x[0-9a-f]+", "", str(program)).encode())
    for constant in constants_of(program):
        key = isinstance(constant, jax.Array) and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key)
        digest.update(np.asarray(jax.random.key_data(constant) if key else constant).tobytes())
    return digest.hexdigest()[:16]


def constants_of(program: Any) -> Iterator[Any]:
    """List the constants of a program and of the functions it calls; printed programs show only the scalars."""
    yield from getattr(program, "consts", ())
    for equation in program.eqns:
        yield from (variable.val for variable in equation.invars if hasattr(variable, "val"))
        for value in jax.tree.leaves(list(equation.params.values())):
            if hasattr(value, "eqns"):
                yield from constants_of(value)
