"""Sealing: what one public key seals, its private key alone opens, where it belongs and nowhere else."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from outbox.errors import SubscriptionError
from outbox.sealing import SealedText, SealingKey, info, seal
from outbox.secret import Secret
from relay.secrets.keyring import Keyring, KeyUnavailableError, new_private_key, private_keys

CLEAR = "whsec_" + "C" * 43 + "="
HERE, ELSEWHERE = bytes(range(16)), bytes(range(1, 17))
KINDS = ("signing", "headers", "authentication", "tls")
PRIVATE, PUBLIC = new_private_key()


def refusal(stored: str, ring: Keyring, subscription_id: bytes = HERE, kind: str = "signing") -> str:
    """Return why it did not open; the reason may hold nothing of the secret or of the key."""
    with pytest.raises(KeyUnavailableError) as refused:
        ring.open(Secret(stored), subscription_id, kind)
    reason = str(refused.value)
    assert refused.value.__cause__ is None
    assert "sub_" in reason
    assert f"the {kind} secret" in reason
    ciphertext = stored.rpartition(":")[2]
    assert len(ciphertext) < 20 or ciphertext not in reason
    assert "CCC" not in reason
    assert PRIVATE.reveal()[4:] not in reason
    return reason


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.sampled_from(KINDS))
def test_what_is_sealed_opens_to_the_same_text(clear: str, kind: str) -> None:
    sealed = seal(clear, PUBLIC, HERE, kind)
    assert sealed.startswith(f"sealed:1:{PUBLIC.id}:")
    assert Keyring([PRIVATE]).open(Secret(sealed), HERE, kind) == Secret(clear)


def test_what_lies_in_clear_passes_through_any_ring() -> None:
    for ring in (Keyring(), Keyring([PRIVATE])):
        assert ring.open(Secret(CLEAR), HERE, "signing").reveal() == CLEAR


def test_the_same_text_never_seals_alike() -> None:
    assert seal(CLEAR, PUBLIC, HERE, "signing") != seal(CLEAR, PUBLIC, HERE, "signing")


@pytest.mark.case("B13")
@pytest.mark.parametrize("kind", KINDS)
def test_a_ciphertext_of_another_subscription_or_kind_is_refused(kind: str) -> None:
    ring, sealed = Keyring([PRIVATE]), seal(CLEAR, PUBLIC, HERE, kind)
    assert "another subscription or kind" in refusal(sealed, ring, ELSEWHERE, kind)
    for other in set(KINDS) - {kind}:
        assert "another subscription or kind" in refusal(sealed, ring, HERE, other)


@pytest.mark.case("B13")
def test_a_key_that_is_not_held_is_named() -> None:
    sealed = seal(CLEAR, PUBLIC, HERE, "signing")
    for ring in (Keyring(), Keyring([new_private_key()[0]])):
        assert f"sealed to key {PUBLIC.id}, which this relay does not hold" in refusal(sealed, ring)


def test_a_key_that_claims_the_id_of_another_does_not_open() -> None:
    """The id only says which key to try."""
    stranger = new_private_key()[1]
    forged = seal(CLEAR, stranger, HERE, "signing").replace(stranger.id, PUBLIC.id)
    assert "does not open" in refusal(forged, Keyring([PRIVATE]))


@given(st.data())
def test_one_changed_bit_anywhere_opens_nothing(data: st.DataObject) -> None:
    head, _, encoded = seal(CLEAR, PUBLIC, HERE, "signing").rpartition(":")
    raw = bytearray(b64decode(encoded))
    # The highest bit of an X25519 key is not part of it (RFC 7748 §5), yet HPKE derives from the bytes as they came.
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert "does not open" in refusal(f"{head}:{b64encode(raw).decode()}", Keyring([PRIVATE]))


@pytest.mark.parametrize("cut", [1, 16, 17, 32, 60])
def test_a_ciphertext_cut_short_opens_nothing(cut: int) -> None:
    head, _, encoded = seal(CLEAR, PUBLIC, HERE, "signing").rpartition(":")
    short = b64encode(b64decode(encoded)[:-cut]).decode()
    assert "does not open" in refusal(f"{head}:{short}", Keyring([PRIVATE]))


@pytest.mark.parametrize(
    "stored",
    ["", "1", "1:", "1:{id}", "1:{id}:", "2:{id}:QQ==", "1:{id}:!!", "1:{id}:QQ", "1:{id}:QQ==\n", "1:a{id}:QQ==",
     "1:{id}!:QQ==", "1:é:QQ==", "1:{id}:QQ==:QQ=="],
)  # fmt: skip
def test_text_of_no_such_form_is_damaged(stored: str) -> None:
    stored = "sealed:" + stored.replace("{id}", PUBLIC.id)
    assert SealedText.parse(stored) is None
    assert "is damaged" in refusal(stored, Keyring([PRIVATE]))


@given(st.text(max_size=60))
def test_no_text_after_the_prefix_does_anything_but_refuse(noise: str) -> None:
    with pytest.raises(KeyUnavailableError):
        Keyring([PRIVATE]).open(Secret(f"sealed:{noise}"), HERE, "signing")


def test_what_decrypts_to_no_text_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    from outbox.sealing import suite

    public = X25519PublicKey.from_public_bytes(PUBLIC.public)
    raw = suite().encrypt(b"\xff\xfe", public, info=info(HERE, "signing"))
    assert "does not open" in refusal(f"sealed:1:{PUBLIC.id}:{b64encode(raw).decode()}", Keyring([PRIVATE]))


def test_several_keys_are_held_newest_first() -> None:
    (new, newest), (old, older) = new_private_key(), new_private_key()
    ring = Keyring([new, old])
    assert (ring.newest, ring.ids) == (newest, [newest.id, older.id])
    for key in (newest, older):
        assert ring.open(Secret(seal(CLEAR, key, HERE, "tls")), HERE, "tls").reveal() == CLEAR
        assert key.id in ring
    assert Keyring().newest is None


def test_a_ring_shows_ids_only() -> None:
    assert repr(Keyring([PRIVATE])) == f"Keyring({PUBLIC.id})"


def test_a_key_is_read_back_as_it_was_made() -> None:
    (read,) = private_keys(PRIVATE.reveal())
    assert Keyring([read]).newest == PUBLIC
    assert private_keys("") == ()
    assert Keyring(private_keys(PRIVATE.reveal().rstrip("="))).newest == PUBLIC
    assert SealingKey.of(PUBLIC.text) == PUBLIC


@given(st.text())
def test_no_text_is_a_key_by_accident(noise: str) -> None:
    for text in (noise, f"rsk_{noise}", f"{PRIVATE.reveal()},{noise}x"):
        try:
            private_keys(text)
        except ValueError as refused:
            assert "rsk_ and the base64 of 32 bytes" in str(refused)


def test_half_a_surrogate_pair_is_refused_by_name() -> None:
    with pytest.raises(SubscriptionError, match=r"^headers: .*surrogate"):
        seal("a\ud800", PUBLIC, HERE, "headers")


def test_a_key_that_nothing_can_be_sealed_to_is_refused_by_name() -> None:
    with pytest.raises(SubscriptionError, match=rf"sealing key {SealingKey(bytes(32)).id} .* cannot be used"):
        seal(CLEAR, SealingKey(bytes(32)), HERE, "signing")


class TestAnotherImplementation:
    """The documented form, written and read by another implementation of RFC 9180."""

    SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.CHACHA20_POLY1305)
    BINDING = b"outbox-relay" + HERE + b"headers"

    def test_it_opens_what_we_seal(self) -> None:
        version, key_id, encoded = seal("Grüße", PUBLIC, HERE, "headers").removeprefix("sealed:").split(":")
        raw, private = b64decode(encoded, validate=True), b64decode(PRIVATE.reveal().removeprefix("rsk_"))
        context = self.SUITE.create_recipient_context(
            raw[:32], self.SUITE.kem.deserialize_private_key(private), info=self.BINDING
        )
        assert (version, key_id) == ("1", PUBLIC.id)
        assert context.open(raw[32:]).decode() == "Grüße"

    def test_we_open_what_it_seals(self) -> None:
        key = self.SUITE.kem.deserialize_public_key(PUBLIC.public)
        encapsulated, context = self.SUITE.create_sender_context(key, info=self.BINDING)
        raw = encapsulated + context.seal("Grüße".encode())
        stored = f"sealed:1:{PUBLIC.id}:{b64encode(raw).decode()}"
        assert Keyring([PRIVATE]).open(Secret(stored), HERE, "headers").reveal() == "Grüße"
