"""Texts that are nearly the same, by MinHash: one permutation, 64 bins of character shingles (Li, Owen and Zhang, "One
Permutation Hashing", NIPS 2012), and bands of equal bins for candidates (Broder, 1997; Leskovec et al., chapter 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHINGLE_BYTES = 5
BINS = 64
BANDS = 16  # of 4 bins each: a pair of Jaccard similarity 0.8 shares one with a probability above 0.999
SIMILAR = 0.8
MAX_BYTES = 2_000  # of each text: what two longer texts share shows in their beginnings
MAX_TEXTS = 50_000
_TEXTS_AT_ONCE = 2_000
_EMPTY = np.uint64(2**64 - 1)
_POWERS = np.array([0x9E3779B97F4A7C15 ** (n + 1) % 2**64 | 1 for n in range(SHINGLE_BYTES)], dtype=np.uint64)


def near_duplicates(texts: Sequence[str]) -> int:
    """How many of these different texts are at least 0.8 similar (Jaccard, of their shingles) to an earlier one."""
    if len(texts) < 2:
        return 0
    parts = [_signatures(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE)]
    signatures = np.concatenate(parts)
    similar = np.zeros(len(texts), dtype=bool)
    width = BINS // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * width))).ravel()
        order = np.argsort(keys, kind="stable")
        # Each text is held against the first of its bucket: linear, however large a bucket is.
        new = np.concatenate(([True], keys[order][1:] != keys[order][:-1]))
        first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        pairs = ~new & ~(part[order] == _EMPTY).all(axis=1) & ~similar[order]
        ours, theirs = order[pairs], first[pairs]
        for start in range(0, len(ours), _TEXTS_AT_ONCE):
            at = slice(start, start + _TEXTS_AT_ONCE)
            a, b = signatures[ours[at]], signatures[theirs[at]]
            either = (a != _EMPTY) | (b != _EMPTY)
            close = ((a == b) & either).sum(axis=1) >= SIMILAR * either.sum(axis=1)
            similar[ours[at][close]] = True
    return int(similar.sum())


def _signatures(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """(N, 64): the least hash of a text's shingles in each bin."""
    encoded = [text.encode()[:MAX_BYTES] for text in texts]
    content = np.frombuffer(b"".join(encoded) + bytes(SHINGLE_BYTES), dtype=np.uint8).astype(np.uint64)
    lengths = np.array([len(text) for text in encoded])
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    counts = np.maximum(lengths - SHINGLE_BYTES + 1, 1)  # a shorter text is one shingle, with what follows it
    rows = np.repeat(np.arange(len(texts)), counts)
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[rows]
    hashes = np.zeros(len(rows), dtype=np.uint64)
    for offset in range(SHINGLE_BYTES):
        hashes += content[positions + offset] * _POWERS[offset]
    # splitmix64's finaliser (Steele et al., 2014), so that every bit of a shingle decides about bin and rank.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    signatures = np.full(len(texts) * BINS, _EMPTY, dtype=np.uint64)
    np.minimum.at(signatures, rows * BINS + (hashes >> np.uint64(58)).astype(np.int64), hashes)
    return signatures.reshape(-1, BINS)
