"""A body's chunks: taken out however they come in, and refused where they are not what they say."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from promptlord.errors import Broken
from promptlord.groq.response import LINE_MAX, Chunks


def taken(chunks: Chunks, *pieces: bytes) -> list[bytes]:
    return [chunks.take(piece) for piece in pieces]


@given(
    some.lists(some.binary(min_size=1, max_size=40), max_size=6),
    some.sampled_from([b"\r\n", b"X: y\r\nZ: \r\n\r\n"]),
    some.sampled_from([b"", b" ;a=b", b";a"]),
    some.binary(max_size=5),
    some.lists(some.integers(0, 300)),
)
def test_a_body_is_taken_out_of_its_chunks_however_they_are_cut(
    bodies: list[bytes], trailer: bytes, extension: bytes, behind: bytes, cuts: list[int]
) -> None:
    sizes = [b"%x" % len(body) if number % 2 else b"%X" % len(body) for number, body in enumerate(bodies)]
    whole = b"".join(b"%b%b\r\n%b\r\n" % parts for parts in zip(sizes, [extension] * len(sizes), bodies, strict=True))
    whole += b"0\r\n" + trailer + behind
    places = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    chunks = Chunks()

    out = taken(chunks, *(whole[start:end] for start, end in pairwise(places)))

    assert b"".join(out) == b"".join(bodies)
    assert chunks.ended
    assert chunks.rest == behind


def test_what_is_there_of_a_chunk_is_not_waited_with() -> None:
    chunks = Chunks()

    assert taken(chunks, b"5\r\nab", b"cd", b"e\r", b"\n3\r", b"\nfgh\r\n2\r\nij") == [
        b"ab",
        b"cd",
        b"e",
        b"",
        b"fghij",
    ]
    assert not chunks.ended


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"xyz\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1 1\r\na\r\n",
        b"1" * 16 + b"\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"2\r\nab3\r\ncde\r\n",
        b"1\na\n0\n\n" + b" " * LINE_MAX,
        b"1;" + b"x" * LINE_MAX,
        b"0\r\nX: " + b"x" * LINE_MAX,
    ],
)
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(Broken):
        Chunks().take(data)


def test_a_chunk_may_be_larger_than_a_line() -> None:
    body = bytes(3 * LINE_MAX)

    assert b"".join(taken(Chunks(), b"%x\r\n" % len(body), body[:LINE_MAX], body[LINE_MAX:] + b"\r\n0\r\n\r\n")) == body
