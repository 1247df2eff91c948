import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.inference.fusion import join, pieces_of, vote
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.structures import RawDetections

RULES = PostProcess(score_threshold=0.05)
NO, L, T, R, B = (0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)


def raw(*rows) -> RawDetections:
    """Detections of rows (x1, y1, x2, y2, score, label)."""
    values = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return RawDetections(values[:, :4], values[:, 4], values[:, 5].long())


def joined(*tiles, rules=RULES, merge="nms", limit=None) -> list[list[float]]:
    """Rows of what is left of tiles, each a list of (row, cut sides)."""
    parts = [raw(*[row for row, _ in tile]) for tile in tiles]
    cut = [torch.tensor([sides for _, sides in tile], dtype=torch.bool).view(-1, 4) for tile in tiles]
    left = join(pieces_of(parts, cut), rules, merge, limit=limit)
    return torch.cat([left.boxes, left.scores[:, None], left.labels[:, None].float()], dim=1).tolist()


def rounded(rows):
    return [[round(value, 4) for value in row] for row in rows]


def test_join__object_seen_whole_by_two_tiles():
    a, b = (10, 10, 30, 30, 0.5, 0), (11, 10, 30, 30, 0.75, 0)
    assert joined([(a, NO)], [(b, NO)]) == [list(map(float, b))]


def test_join__cut_box_yields_to_the_whole_one_even_with_a_better_score():
    whole, piece = (80, 10, 120, 50, 0.5, 0), (80, 10, 92, 50, 0.75, 0)
    assert joined([(piece, R)], [(whole, NO)]) == [list(map(float, whole))]
    # the same box, if nothing has cut it, is an object of its own
    assert len(joined([(piece, NO)], [(whole, NO)])) == 2


def test_join__another_class_suppresses_nothing_unless_agnostic():
    whole, piece = (80, 10, 120, 50, 0.5, 0), (80, 10, 92, 50, 0.75, 1)
    assert len(joined([(piece, R)], [(whole, NO)])) == 2
    assert len(joined([(piece, R)], [(whole, NO)], rules=PostProcess(nms="agnostic"))) == 1


def test_join__pieces_of_a_long_object_become_one():
    left, middle, right = (10, 40, 100, 60, 0.5, 0), (80, 41, 180, 61, 0.75, 0), (160, 40, 200, 60, 0.25, 0)
    assert joined([(left, R)], [(middle, (1, 0, 1, 0))], [(right, L)]) == [[10, 40, 200, 61, 0.75, 0]]


def test_join__four_pieces_around_a_corner_become_one():
    tiles = [
        [((10, 10, 100, 100, 0.5, 0), (0, 0, 1, 1))],
        [((80, 10, 190, 100, 0.5, 0), (1, 0, 0, 1))],
        [((10, 80, 100, 190, 0.5, 0), (0, 1, 1, 0))],
        [((80, 80, 190, 190, 0.75, 0), (1, 1, 0, 0))],
    ]
    assert joined(*tiles) == [[10, 10, 190, 190, 0.75, 0]]


def test_join__pieces_that_do_not_fit_stay_apart():
    above, below = (10, 0, 100, 20, 0.5, 0), (80, 60, 180, 80, 0.75, 0)
    assert len(joined([(above, R)], [(below, L)])) == 2
    assert len(joined([(above, R)], [((80, 0, 180, 20, 0.75, 1), L)])) == 2


@pytest.mark.parametrize(("merge", "count"), [("nms", 2), ("ios", 1), ("soft", 2)])
def test_join__box_inside_another_from_another_tile(merge, count):
    outer, inner = (0, 0, 100, 100, 0.75, 0), (10, 10, 40, 40, 0.5, 0)
    assert len(joined([(outer, NO)], [(inner, NO)], merge=merge)) == count
    assert len(joined([(outer, NO), (inner, NO)], merge=merge)) == 2  # boxes of one tile are not merged


def test_join__soft_lowers_scores():
    a, b = (10, 10, 30, 30, 0.75, 0), (10, 10, 30, 30, 0.5, 0)
    (first, second) = joined([(a, NO)], [(b, NO)], merge="soft")
    assert first[4] == 0.75
    assert second[4] == pytest.approx(0.5 * torch.exp(torch.tensor(-2.0)).item())


def test_join__sorted_limited_and_above_the_threshold():
    rows = [(i * 50, 0, i * 50 + 20, 20, 0.25 + i / 8, 0) for i in range(4)]
    fused = joined([(rows[0], NO), (rows[1], NO)], [(rows[2], NO), (rows[3], NO)])
    assert [row[4] for row in fused] == [0.625, 0.5, 0.375, 0.25]
    assert len(joined([(row, NO) for row in rows], limit=3)) == 3
    strict = PostProcess(score_threshold=0.4)
    assert [row[4] for row in joined([(row, NO) for row in rows], rules=strict)] == [0.625, 0.5]


@pytest.mark.parametrize("merge", ["nms", "soft", "ios"])
def test_join__nothing(merge):
    assert joined([], [], merge=merge) == []


def test_vote__mean_box_and_mean_score():
    versions = [raw((0, 0, 10, 10, 0.5, 0), (50, 50, 60, 60, 0.9, 0)), raw((0, 0, 12, 10, 0.25, 0))]
    fused = vote(versions, RULES)
    assert_close(fused.scores, torch.tensor([0.45, 0.375]))
    assert_close(fused.boxes[1], torch.tensor([0.0, 0, (0.5 * 10 + 0.25 * 12) / 0.75, 10]))


def test_vote__classes_and_threshold():
    versions = [raw((0, 0, 10, 10, 0.5, 0), (0, 0, 10, 10, 0.5, 1)), raw((0, 0, 10, 10, 0.5, 0))]
    fused = vote(versions, PostProcess(score_threshold=0.3))
    assert fused.labels.tolist() == [0]
    assert len(vote([raw(), raw()], RULES).boxes) == 0


def test_vote__of_one_version_changes_nothing():
    version = raw((0, 0, 10, 10, 0.75, 0), (3, 0, 13, 10, 0.5, 1), (40, 40, 44, 48, 0.25, 0))
    fused = vote([version], RULES)
    assert_close(fused.boxes, version.boxes)
    assert_close(fused.scores, version.scores)
