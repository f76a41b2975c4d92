from __future__ import annotations

from marketplace.store import files
from marketplace.store.tables import FileLineRow, FileRow


def file_row(file_id="file-a", **changes):
    values = {"file_id": file_id, "key": "0xk", "purpose": "batch", "filename": "a", "size_bytes": 3}
    return FileRow(**(values | {"created_at_ms": 1, "expires_at_ms": 1 << 50} | changes))


def test_lines_come_back_in_order_a_few_at_a_time(store):
    bodies = [(number, b"%d\n" % number) for number in range(1, 421)]
    with store.transaction() as tx:
        files.add(tx, file_row(), reversed(bodies))
        files.add(tx, file_row("file-b"), [(1, b"other")])
    found, after = [], 0
    with store.reading() as tx:
        while part := files.lines(tx, "file-a", after):
            assert len(part) <= 200
            found, after = found + part, part[-1][0]
        assert files.line(tx, "file-a", 7) == b"7\n"
        assert files.line(tx, "file-a", 421) is None
    assert found == bodies


def test_large_lines_come_as_many_as_fit_and_one_that_fits_nowhere_alone(store):
    with store.transaction() as tx:
        files.add_lines(tx, "file-a", [(number, b"x" * size) for number, size in enumerate((4, 6, 99, 1), 1)])
        found = [[number for number, _ in files.lines(tx, "file-a", after, 10)] for after in range(5)]
    assert found == [[1, 2], [2], [3], [4], []]


def test_size_is_that_of_the_lines_in_bytes(store):
    with store.transaction() as tx:
        files.add_lines(tx, "file-a", [(1, "é\n".encode()), (2, b"\xff\x00")])
        assert (files.size_bytes(tx, "file-a"), files.size_bytes(tx, "file-b")) == (5, 0)


def test_file_is_found_by_its_own_key_only(store):
    with store.transaction() as tx:
        files.add(tx, file_row())
        assert files.find(tx, "file-a", "0xk") is not None
        assert files.find(tx, "file-a", "0xother") is None
        assert files.find(tx, "file-b", "0xk") is None


def test_kept_bytes_are_those_of_all_files_of_a_key(store):
    with store.transaction() as tx:
        assert files.kept_bytes(tx, "0xk") == 0
        for name, size in (("file-a", 3), ("file-b", 1 << 40)):
            files.add(tx, file_row(name, size_bytes=size))
        files.add(tx, file_row("file-c", key="0xother"))
        assert files.kept_bytes(tx, "0xk") == 3 + (1 << 40)


def test_removed_file_leaves_no_line_and_may_be_removed_again(store):
    with store.transaction() as tx:
        files.add(tx, file_row(), [(1, b"a")])
        for _ in range(2):
            files.remove(tx, "file-a")
        assert (tx.get(FileRow, "file-a"), tx.get(FileLineRow, ("file-a", 1))) == (None, None)


def test_pages_hold_every_file_once_whatever_the_order(store):
    names = [f"file-{letter}" for letter in "abcd"]
    with store.transaction() as tx:
        for number, name in enumerate(names):
            files.add(tx, file_row(name, created_at_ms=number // 2))
        for oldest_first in (False, True):
            found, after = [], None
            while rows := files.of_key(tx, "0xk", 1, after, oldest_first=oldest_first):
                after = rows[0].file_id
                found.append(after)
            assert found == (names if oldest_first else ["file-c", "file-d", "file-a", "file-b"])
        assert files.of_key(tx, "0xk", 9, purpose="other") == []
