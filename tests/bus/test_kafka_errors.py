"""What brokers answer in a transaction, as our errors: by their codes, as aiokafka reads them."""

from __future__ import annotations

import pytest
from aiokafka.errors import UnknownError, for_code

from govern.bus.kafka_errors import NAMELESS, kafka_errors
from govern.bus.protocol import BusError, Fenced
from tests.mirror.conftest import DEADLINE_S

#: INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED.
FENCED = (47, 49, 90)


async def _raised(code: int) -> BusError:
    with pytest.raises(BusError) as caught:
        async with kafka_errors("income", timeout_s=DEADLINE_S):
            raise for_code(code)()
    return caught.value


@pytest.mark.parametrize("code", FENCED)
async def test_whoever_was_fenced_is_told_so_by_each_code_for_it(code: int) -> None:
    assert isinstance(await _raised(code), Fenced)


async def test_a_transaction_that_must_be_aborted_has_its_name() -> None:
    error = await _raised(120)
    assert not isinstance(error, Fenced)
    assert "TransactionAbortable" in error.why


def test_no_code_that_we_name_is_unknown() -> None:
    assert all(for_code(code) is not UnknownError for code in NAMELESS)
