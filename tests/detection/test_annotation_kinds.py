"""Annotations as tools write them, and mutations of good ones: boxes lie on their objects, or a line says why not."""

import pytest
from annotation_kinds import KINDS, LANDS, outcome
from annotation_mutations import tried

BOXES = {"an image without objects": 5, "an object twice": 7}


@pytest.mark.parametrize("layout", ["voc", "coco"])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_lie_on_their_objects_or_a_line_says_why_not(tmp_path, layout, kind):
    found, boxes = outcome(tmp_path / "set", layout, kind)
    assert found == KINDS[kind].right
    assert boxes == (BOXES.get(kind, 6) if found == LANDS else 0)


def test_mutations_are_refused_in_a_line_or_change_nothing_else(tmp_path):
    """The long form is tests/campaign/annotations.py."""
    counts, faults = tried(tmp_path, 500, seed=1)
    assert not faults
    assert min(counts.values()) > 100
