"""TypeIDs over UUIDv7."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, EventId, new_uuid7, parse_id, text_id

# From the TypeID specification's valid.json.
KNOWN = {
    "00000000-0000-0000-0000-000000000000": "00000000000000000000000000",
    "00000000-0000-0000-0000-000000000001": "00000000000000000000000001",
    "00000000-0000-0000-0000-00000000000a": "0000000000000000000000000a",
    "00000000-0000-0000-0000-000000000020": "00000000000000000000000010",
    "ffffffff-ffff-ffff-ffff-ffffffffffff": "7zzzzzzzzzzzzzzzzzzzzzzzzz",
    "0110c853-1d09-52d8-d73e-1194e95b5f19": "0123456789abcdefghjkmnpqrs",
    "01890a5d-ac96-774b-bcce-b302099a8057": "01h455vb4pex5vsknk084sn02q",
}


@pytest.mark.parametrize("uuid", KNOWN)
def test_known_typeids(uuid):
    assert text_id("prefix", UUID(uuid)) == f"prefix_{KNOWN[uuid]}"
    assert parse_id("prefix", f"prefix_{KNOWN[uuid]}") == UUID(uuid)


@given(st.uuids())
def test_every_uuid_goes_there_and_back(uuid):
    text = text_id("evt", uuid)
    assert len(text) == 30
    assert parse_id("evt", text) == parse_id("evt", str(uuid)) == parse_id("evt", uuid.hex) == uuid


@given(st.uuids(), st.uuids())
def test_text_sorts_as_the_uuid_does(one, other):
    assert (text_id("evt", one) < text_id("evt", other)) == (one < other)


def test_new_ids_are_version_7_of_now_and_differ():
    before = time.time_ns() // 1_000_000
    ids = [new_uuid7() for _ in range(2_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == len(ids)
    for each in ids:
        assert (each.version, each.variant) == (7, "specified in RFC 4122")
        assert before <= each.int >> 80 <= after


@pytest.mark.case("C26")
@pytest.mark.parametrize(
    "text",
    [
        *("", "evt_", "evt", "_", "sub_01h455vb4pex5vsknk084sn02q", "01h455vb4pex5vsknk084sn02q"),
        *("evt_81h455vb4pex5vsknk084sn02q", "evt_01h455vb4pex5vsknk084sn02", "evt_01h455vb4pex5vsknk084sn02qq"),
        *("evt_01h455vb4pex5vsknk084sn02i", "EVT_01h455vb4pex5vsknk084sn02q", "evt_01H455VB4PEX5VSKNK084SN02Q"),
        *("1'; drop table x", "%", "-1", str(2**63), "x" * 10_000, "evt_01h455vb4pex5vsknk084sn02q\n"),
        *("{01890a5d-ac96-774b-bcce-b302099a8057}", "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"),
    ],
)
def test_what_is_no_id_names_no_row(text):
    with pytest.raises(NotFoundError, match="evt_") as error:
        parse_id("evt", text)
    assert len(str(error.value)) < 200


class TestKinds:
    UUID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    TEXT = "dlv_01h455vb4pex5vsknk084sn02q"

    @pytest.mark.parametrize("value", [UUID, str(UUID), TEXT])
    def test_an_id_is_made_of_either_form_and_is_shown_as_text(self, value) -> None:
        made = DeliveryId.of(value)
        assert (made, str(made), f"{made}", type(made)) == (self.UUID, self.TEXT, self.TEXT, DeliveryId)
        assert hash(made) == hash(self.UUID)

    @pytest.mark.parametrize("value", [EventId.of(UUID), str(EventId.of(UUID)), "dlv_x", ""])
    def test_an_id_of_another_kind_names_nothing(self, value) -> None:
        with pytest.raises(NotFoundError, match="is not an id of the form dlv_"):
            DeliveryId.of(value)

    def test_a_null_stays_none(self) -> None:
        assert DeliveryId.maybe(None) is None
        assert DeliveryId.maybe(self.UUID) == self.UUID
