"""A set in COCO's layout whose annotations are changed, and refused in words that name their file."""

import json

import pytest

from resjax.detection.coco import read_coco
from resjax.system.errors import BadInput


def check_refused(folder, split, change, message):
    """Change the annotations of a split; `message` is the pattern of what then is said, with the file's name."""
    file = change_entries(folder, split, change)
    with pytest.raises(BadInput, match=message) as error:
        read_coco(folder, (split,))
    assert str(file) in str(error.value)


def change_entries(folder, split, change):
    """Change the annotations of a split, and return their file."""
    file = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file
