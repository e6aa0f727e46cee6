"""Commands about this machine: get data, and check what there is."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from resjax.data import prepare_cifar10
from resjax.data.prepared import data_directory
from resjax.doctor import examine


def prepare(
    name: Annotated[Literal["cifar10"], tyro.conf.Positional],
    directory: Path | None = None,
    archive: Path | None = None,
) -> None:
    """Get a data set and write it as TFDS reads it.

    Args:
        name: The data set.
        directory: Where to; by default RESJAX_DATA, else ~/tensorflow_datasets.
        archive: A local copy of the official cifar-10-binary.tar.gz; without it, it is downloaded.
    """
    prepare_cifar10(data_directory(directory), archive)


def doctor(directory: Path | None = None) -> None:
    """Check this machine: versions, devices, arithmetic, data.

    Args:
        directory: Where prepared TFDS sets lie; by default RESJAX_DATA, else ~/tensorflow_datasets.
    """
    findings = list(examine(data_directory(directory)))
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'LOOK'}  {finding.text}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)
