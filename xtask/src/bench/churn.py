"""Records the churn of a database, page by page.

Writes each 4 KiB block that a transaction changed to the output, in the order of transactions:
offset (8 bytes, little-endian), then the block. The first pages are written by the load.
"""
import os
import random
import sqlite3
import sys

BLOCK = 4096


def blocks(path):
    with open(path, "rb") as file:
        content = file.read()
    return [content[at:at + BLOCK] for at in range(0, len(content), BLOCK)]


def words(rng, count):
    names = ("order", "customer", "invoice", "paid", "open", "shipped", "Berlin", "Hamburg", "EUR")
    return " ".join(rng.choice(names) + str(rng.randrange(1000)) for _ in range(count))


def main(path, out, transactions):
    rng = random.Random(7)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA page_size={BLOCK}")
    database.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, stand INTEGER, text TEXT)")
    database.execute("CREATE INDEX by_stand ON ledger (stand)")
    database.execute("BEGIN")
    for row in range(40_000):
        values = (row, rng.randrange(10**9), words(rng, 8))
        database.execute("INSERT INTO ledger VALUES (?, ?, ?)", values)
    database.execute("COMMIT")
    before = []
    with open(out, "wb") as record:
        for step in range(transactions + 1):
            now = blocks(path)
            for number, block in enumerate(now):
                if number >= len(before) or before[number] != block:
                    record.write((number * BLOCK).to_bytes(8, "little") + block)
            before = now
            database.execute("BEGIN")
            for _ in range(10):
                values = (rng.randrange(10**9), rng.randrange(40_000) // (1 + step % 7))
                database.execute("UPDATE ledger SET stand = ? WHERE id = ?", values)
            values = (rng.randrange(10**9), words(rng, 8))
            database.execute("INSERT INTO ledger (stand, text) VALUES (?, ?)", values)
            database.execute("COMMIT")
    database.close()
    os.remove(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
