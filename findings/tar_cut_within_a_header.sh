#!/usr/bin/env bash
# tarfile: an archive that is cut between members, or within a member's header, reads as a shorter one, in silence.
#
# One would expect: an archive ends with two blocks of zeros, so one that does not is told apart from a whole one.
# What happens: the end of the file counts as the end of the archive, and so does a header of which only a part is
# there; a stream (`r|`) does the same. Only a cut within a member's data raises. A download that stopped loses its last
# members unseen: count them.
# Versions: CPython 3.11.7 and 3.13.0; webdataset 1.0.2, which reads by it. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile webdataset==1.0.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import io
import tarfile
from pathlib import Path

import webdataset

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for number in range(5):
        member = tarfile.TarInfo(f"{number}.jpg")
        member.size = 700
        tar.addfile(member, io.BytesIO(b"x" * 700))
whole, each = buffer.getvalue(), 512 + 1024


def names(end, mode):
    try:
        with tarfile.open(fileobj=io.BytesIO(whole[:end]), mode=mode) as tar:
            return len(list(tar))
    except tarfile.ReadError as error:
        return str(error)


for place, end in (("nowhere", None), ("between members", 3 * each), ("within a header", 3 * each + 100),
                   ("within data", 3 * each + 512 + 300)):
    found = [names(end, mode) for mode in ("r:", "r|")]
    print(f"cut {place}: {found}")
    assert found == [{"nowhere": 5, "within data": "unexpected end of data"}.get(place, 3)] * 2
Path("cut.tar").write_bytes(whole[:3 * each + 100])
read = [sample["__key__"] for sample in webdataset.WebDataset("cut.tar", shardshuffle=False)]
print("webdataset:", read)
assert read == ["0", "1", "2"]
END
