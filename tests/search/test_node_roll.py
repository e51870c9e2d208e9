"""Roll of nodes: those that get segments, and what is said of the others, as they come, answer and go."""

from __future__ import annotations

import pytest

from evocompress.errors import RunError
from evocompress.search.node_probe import Seen
from evocompress.search.node_roll import Node, NodeNews, NodeRoll

A, B, C = ({name: Node(f"host-{name}", places)} for name, places in (("a", 2), ("b", 4), ("c", 8)))


def opened(*unfit: str) -> NodeRoll:
    roll = NodeRoll(patience=60.0)
    assert roll.enter(A | B, 0.0) == ["a", "b"]
    assert (roll.fit, roll.others, roll.places, roll.waits) == ([], ["a", "b"], 0, True)
    for name in "ab":
        roll.hear(name, Seen(f"host-{name}", ("has no data",) if name in unfit else ()))
    roll.open()
    return roll


def test_all_are_fit_and_nothing_is_said() -> None:
    roll = opened()
    assert (roll.fit, roll.others, roll.places, roll.waits, roll.news()) == (["a", "b"], [], 6, False, [])


def test_an_unfit_node_is_left_out_and_told_once() -> None:
    roll = opened("b")
    assert (roll.fit, roll.others, roll.places) == (["a"], ["b"], 2)
    assert roll.news() == [NodeNews("host-b", "unfit", "has no data", 2)]
    assert roll.news() == []
    assert roll.enter(A | B, 5.0) == []


def test_no_node_is_fit() -> None:
    with pytest.raises(RunError, match=r"^no node of the cluster is fit for this run: host-a and host-b: has no data$"):
        opened("a", "b")
    roll = NodeRoll(60.0)
    roll.enter({}, 0.0)
    with pytest.raises(RunError, match="there is none"):
        roll.open()


def test_a_node_that_joins_counts_once_it_has_answered() -> None:
    roll = opened()
    assert roll.enter(A | B | C, 10.0) == ["c"]
    assert (roll.fit, roll.others, roll.places) == (["a", "b"], ["c"], 6)
    roll.hear("c", Seen("host-c"))
    assert (roll.others, roll.places) == ([], 14)
    assert roll.news() == [NodeNews("host-c", "joined", "", 14)]


def test_a_node_that_is_gone_is_forgotten_and_asked_anew_where_it_comes_back() -> None:
    roll = opened("b")
    roll.news()
    assert roll.enter({}, 10.0) == []
    assert roll.news() == [NodeNews("host-a", "gone", "", 0)]  # the other one was none of the run's
    assert roll.enter(A | B, 20.0) == ["a", "b"]
    assert roll.fit == []


def test_what_a_node_says_that_is_gone_says_nothing() -> None:
    roll = opened()
    roll.enter(A | B | C, 10.0)
    roll.enter(A | B, 20.0)
    roll.hear("c", Seen("host-c"))
    assert (roll.fit, roll.news()) == (["a", "b"], [])


def test_a_silent_node_is_unfit_until_it_answers() -> None:
    roll = opened()
    roll.enter(A | B | C, 10.0)
    roll.check_time(69.0)
    assert (roll.waits, roll.news()) == (True, [])
    roll.check_time(70.0)
    roll.check_time(71.0)
    (news,) = roll.news()
    assert (news.nodes, news.change) == ("host-c", "unfit") and "has not answered for 60 s" in news.reason
    assert (roll.waits, roll.others) == (False, ["c"])
    roll.hear("c", Seen("host-c"))
    assert [news.change for news in roll.news()] == ["joined"] and roll.places == 14


def test_nodes_that_could_not_be_asked_are_new_again() -> None:
    roll = opened()
    new = roll.enter(A | B | C, 10.0)
    roll.forget(new)
    assert roll.others == [] and roll.enter(A | B | C, 20.0) == ["c"]
