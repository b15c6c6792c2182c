"""How the queue file came to be what it is. Only append: files in the field have run what stands here."""

from __future__ import annotations

QUEUE_FILE = 0x534D5155  # "SMQU", in the header of the file

QUEUE_MIGRATIONS = [
    (
        "queues",
        """
        CREATE TABLE items (
            idx INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            owner TEXT NOT NULL,
            priority INTEGER NOT NULL,
            request TEXT NOT NULL,
            tags TEXT NOT NULL,
            size INTEGER NOT NULL,
            put REAL NOT NULL,
            data BLOB NOT NULL  -- last, since what follows a long value is slow to reach
        );
        CREATE INDEX items_in_line ON items (kind, owner, priority DESC, idx, service);
        CREATE INDEX items_by_request ON items (kind, owner, request);
        CREATE INDEX items_by_size ON items (kind, owner, size);
        CREATE TABLE commits (
            idx INTEGER NOT NULL REFERENCES items (idx) ON DELETE CASCADE,
            consumer_group TEXT NOT NULL,
            PRIMARY KEY (idx, consumer_group)
        ) WITHOUT ROWID;
        CREATE TABLE groups (
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            owner TEXT NOT NULL,
            name TEXT NOT NULL,
            tags TEXT NOT NULL,
            start INTEGER NOT NULL,
            seen REAL NOT NULL,
            PRIMARY KEY (kind, owner, name, service)
        ) WITHOUT ROWID;
        CREATE TABLE requests (
            id TEXT PRIMARY KEY,
            idx INTEGER NOT NULL,
            service TEXT NOT NULL,
            owner TEXT NOT NULL,
            tags TEXT NOT NULL,
            priority INTEGER NOT NULL,
            is_running INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID;
        CREATE INDEX requests_by_index ON requests (idx);
        """,
    ),
]
