"""What stored requests are compressed with: the same bytes for as long as anything may be stored."""

from __future__ import annotations

from hashlib import sha256
from importlib import resources

import pytest

from lowtide.codec import Codec
from lowtide.errors import LowtideError

NAME = "dictionary-3.bin"
DIGEST = "d7e1a939638145455cfc2c4e5e50c42b"
WRITTEN = "28b52ffd201b9d0000406d6573736167652e0200b58302a435b90201"


def test_the_dictionary_is_what_it_always_was():
    data = (resources.files("lowtide") / NAME).read_bytes()

    # Never to be mended here: stored requests are lost without it. A new one is another file.
    assert len(data) == 12_991
    assert (
        sha256(data).hexdigest()
        == "cfaeadcfee6613f4235957ce13a4864e5c9ef1d9a7ff21698c6dd8f6b4d2d1b1"
    )


def test_what_was_written_with_the_dictionary_is_read():
    codec = Codec(NAME, DIGEST)

    assert codec.decompress(bytes.fromhex(WRITTEN)) == b"Thank you for your message."


def test_it_needs_the_dictionary():
    packed = Codec(NAME, DIGEST).compress(b"Thank you for your message.")

    assert len(packed) < len(Codec().compress(b"Thank you for your message."))
    with pytest.raises(Exception, match="orrupt"):
        Codec().decompress(packed)


def test_a_dictionary_of_other_bytes_is_refused():
    with pytest.raises(LowtideError, match=r"dictionary-3\.bin .* damaged; install lowtide again"):
        Codec(NAME, "0" * 32).compress(b"")
