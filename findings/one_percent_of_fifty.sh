#!/usr/bin/env bash
# TFDS: a percentage that is less than half an example opens no set of length 0 but raises about paths.
#
# One would expect: `train[:1%]` of 50 examples is a set of 0 or 1 examples.
# What happens: it is rounded to 0, then no file is needed, and ArrayRecord refuses: "Paths sequence can not be of 0
# length". So a loop over 100 slices of 1 % of a small set fails at a slice that depends on the size. A slice of exactly
# nothing does likewise.
# Versions: tensorflow-datasets 4.9.10, array-record 0.8.6. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile tensorflow-datasets==4.9.10 array-record==0.8.6 \
    importlib_resources==7.1.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import logging
import os

logging.disable(logging.ERROR)
import numpy as np
import tensorflow_datasets as tfds


class Numbers(tfds.core.GeneratorBasedBuilder):
    """Fifty numbers."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = os.getcwd()

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"number": np.int64}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(50):
            yield number, {"number": number}


tfds.disable_progress_bar()
builder = Numbers(data_dir="data", file_format="array_record")
builder.download_and_prepare()
lengths = []
for percent in range(4):
    try:
        lengths.append(len(builder.as_data_source(f"train[{percent}%:{percent + 1}%]")))
    except ValueError as error:
        lengths.append(str(error))
print("slices of 1 %:", lengths)
assert lengths.count("Paths sequence can not be of 0 length") == 2 and lengths.count(1) == 2
END
