#!/usr/bin/env bash
# Grain: a MapDataset shuffled in windows loses its last records, and returns others twice, in silence.
#
# One would expect: a shuffle is a permutation, whether or not the window divides the number of records.
# What happens: the last window is filled up from the start of the next epoch and shuffled with it, so ten records in
# windows of four never return two records in the first epoch, and return two twice. The iterator's form is right.
# (Another fault of the same kind, of `shuffle` at certain sizes, has another cause.)
# Versions: grain 0.2.18. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile grain==0.2.18 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
from collections import Counter

from grain import MapDataset
from grain.experimental import WindowShuffleIterDataset, WindowShuffleMapDataset

for window in (5, 4):
    shuffled = WindowShuffleMapDataset(MapDataset.range(10), window_size=window, seed=1)
    epoch = [int(shuffled[place]) for place in range(len(shuffled))]
    twice = sorted(record for record, times in Counter(epoch).items() if times > 1)
    print(f"windows of {window}: {epoch}; missing {sorted(set(range(10)) - set(epoch))}, twice {twice}")
    assert bool(twice) == (window == 4)
iterated = WindowShuffleIterDataset(MapDataset.range(10).to_iter_dataset(), window_size=4, seed=1)
assert sorted(map(int, iterated)) == list(range(10))
print("the iterator: every record once")
END
