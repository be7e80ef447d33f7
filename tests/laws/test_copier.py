"""What a copy takes a lost home's last words for."""

from cluster.log.copier import within
from cluster.log.wire import Mark
from cluster.position import SEQUENCE_MAX, position


def test_what_a_lost_home_said_beyond_its_end_is_not_waited_for() -> None:
    history = ((1, 80), (2, SEQUENCE_MAX))
    said = Mark(position(1, 142), position(1, 142), position(1, 148))
    assert within(history, said) == Mark(position(1, 80), position(1, 80), position(1, 80))
    followed = Mark(position(2, 1), position(2, 1), position(2, 3))
    assert within(history, followed) == followed
    assert within(history, Mark(position(1, 7), position(1, 6), position(1, 9))) == Mark(
        position(1, 7), position(1, 6), position(1, 9)
    )
