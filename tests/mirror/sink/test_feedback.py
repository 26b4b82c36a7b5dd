"""Which request Seldon's feedback is about."""

from __future__ import annotations

import pytest

from govern.mirror.sink.half import heading_of
from govern.mirror.sink.inference import feedback_of
from tests.mirror.sink.conftest import MakeConfig

BODY = b'{"response": {"meta": {"puid": "of the body"}}, "reward": 1, "truth": {"data": {"ndarray": [[1]]}}}'


@pytest.mark.parametrize("of_the_event", ["", "of the event"])
def test_the_event_names_the_request_or_its_body_does(make_config: MakeConfig, of_the_event: str) -> None:
    attributes = {"specversion": "1.0", "id": "f-1", "source": "/seldon", "type": "io.seldon.serving.feedback"}
    if of_the_event:
        attributes["requestid"] = of_the_event
    heading = heading_of(attributes, {}, make_config(), now_ns=1)
    assert heading is not None
    feedback = feedback_of(heading, BODY, "bank")
    assert feedback.request_id == (of_the_event or "of the body")
    assert (feedback.namespace, feedback.label, feedback.reward) == ("bank", "1", 1.0)
