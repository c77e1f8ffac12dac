"""What a full store says: the largest holders first, in what way each keeps how much, and the largest values."""

from __future__ import annotations

from rlray.core.local.complaint import complaint, kept

MB = 1_000_000


def test_holders_are_summed_over_owners_and_sorted() -> None:
    reports = {
        1: kept(
            [
                (30 * MB, "put at a.py:1", [(1, "arrays"), (3, "references")]),
                (20 * MB, "put at a.py:2", [(3, "references")]),
                (1 * MB, "", [(1, "calls")]),
            ],
            (1, 5 * MB),
            "",
        ),
        2: kept([(40 * MB, "make", [(3, "references")]), (2 * MB, "", [(2, "disk")])], (2, 0), "the disk is full"),
    }
    text = complaint(10 * MB, 98 * MB, 100 * MB, reports, "process {}".format)
    assert text == (
        "no room for 10.0 MB in the object store: 98.0 MB of 100.0 MB are taken and cannot go to disk. "
        "Largest holders: process 3: 90.0 MB behind references that it holds; process 1: 30.0 MB in arrays that it has "
        "read, 1.0 MB in arguments of its calls under way, 5.0 MB in arrays of empty(); "
        "process 2: 2.0 MB that the disk does not take. "
        "Largest values: 40.0 MB made by make (kept by process 3); 30.0 MB put at a.py:1 (kept by process 1, "
        "process 3); 20.0 MB put at a.py:2 (kept by process 3). The disk is full. "
        "Drop references and arrays that are no longer needed (a small view keeps a whole array: copy it), or give "
        "init(object_store_memory=...) more bytes"
    )


def test_many_holders_are_cut_short() -> None:
    reports = {n: kept([(n * MB, "", [(n, "arrays")])], (n, 0), "") for n in range(1, 9)}
    text = complaint(10 * MB, 36 * MB, 36 * MB, reports, str)
    assert "Largest holders: 8: 8.0 MB in arrays that it has read; 7: 7.0 MB" in text
    assert "4: 4.0 MB in arrays that it has read; 3 others with less. " in text
    assert text.count("kept by") == 3


def test_nobody_is_known_yet() -> None:
    assert "Values are being written there at this moment. Drop" in complaint(MB, MB, MB, {}, str)
