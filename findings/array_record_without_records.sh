#!/usr/bin/env bash
# ArrayRecord: a writer that ends without close() leaves a file that opens as an empty set.
#
# One would expect: a file without its footer is refused, as one that is cut in the middle is.
# What happens: nothing is flushed before close(), so a process that stopped early leaves 0 bytes, and a reader of 0
# bytes says it has 0 records. Among many shards the set is only shorter: 30 records where 40 were written, and no
# error.
# Versions: array-record 0.8.6. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile array-record==0.8.6 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import subprocess
import sys

WRITE = """
import os, sys
from array_record.python.array_record_module import ArrayRecordWriter
for shard in range(4):
    writer = ArrayRecordWriter(f"part-{shard}", "group_size:1")
    for record in range(10):
        writer.write(b"record %d" % record)
    if shard < 3:
        writer.close()
sys.stdout.flush()
os._exit(0)  # as a process that is ended
"""
subprocess.run([sys.executable, "-c", WRITE], check=True)

from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader

size, records = Path("part-3").stat().st_size, ArrayRecordReader("part-3").num_records()
every = len(ArrayRecordDataSource([f"part-{shard}" for shard in range(4)]))
print(f"the shard that was not closed: {size} bytes, {records} records; the set of four: {every} records of 40")
assert records == 0 and every == 30
END
