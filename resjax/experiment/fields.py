"""The types of fields and flags that several modules share, with the conditions on their values."""

from typing import Annotated, Literal

from resjax.system.serialization import Must

In32Bits = Must("fit in 32 bits", lambda n: n < 2**31)
Count = Annotated[int, Must("be at least 1", lambda n: n >= 1), In32Bits]
Natural = Annotated[int, Must("be at least 0", lambda n: n >= 0), In32Bits]
Positive = Annotated[float, Must("be above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Must("be at least 0", lambda x: x >= 0)]
Kept = Annotated[float, Must("be in [0, 1)", lambda x: 0 <= x < 1)]
DistinctNames = Annotated[tuple[str, ...], Must("contain no name twice", lambda names: len({*names}) == len(names))]
TestProtocol = Literal["single", "ten-crop", "multi-scale"]  # for testing on photographs, section 3.4
Format = Literal[  # formats in which weights are written
    "torchvision", "huggingface", "keras", "akamaster", "resjax", "stablehlo", "onnx"]
