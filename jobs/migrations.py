"""The tables, as the list of changes that made them. Append only: a change that was released is never edited.

Each is applied in one transaction together with its record in the table `migrations`.
"""

from __future__ import annotations

APPLICATION_ID = 0x53744D6F  # "StMo", in the header of the file

MIGRATIONS = [
    (
        "0001 jobs",
        """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            number NUMERIC NOT NULL,
            status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
            owner TEXT NOT NULL,
            title TEXT NOT NULL,
            tags TEXT NOT NULL,
            workflow TEXT NOT NULL,
            extra TEXT NOT NULL,
            targets TEXT,
            work TEXT NOT NULL,
            batch TEXT,
            words TEXT NOT NULL,
            created REAL NOT NULL,
            queued REAL NOT NULL,
            started REAL,
            ended REAL,
            queued_seconds REAL NOT NULL DEFAULT 0,
            run_seconds REAL NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            worker TEXT,
            turn INTEGER,
            is_cancel_requested INTEGER NOT NULL DEFAULT 0,
            outputs TEXT NOT NULL DEFAULT '{}',
            warnings TEXT NOT NULL DEFAULT '[]',
            stage_seconds TEXT NOT NULL DEFAULT '{}',
            cached TEXT NOT NULL DEFAULT '[]',
            is_whole INTEGER NOT NULL DEFAULT 1,
            peak_bytes INTEGER NOT NULL DEFAULT 0,
            device TEXT NOT NULL DEFAULT '',
            error TEXT,
            log TEXT NOT NULL DEFAULT '',
            is_favourite INTEGER NOT NULL DEFAULT 0,
            deleted_at REAL
        );
        CREATE INDEX jobs_waiting ON jobs (owner, number, seq) WHERE status = 'queued';
        CREATE INDEX jobs_running ON jobs (seq) WHERE status = 'running';
        CREATE INDEX jobs_by_status ON jobs (status, deleted_at, owner);
        CREATE INDEX jobs_by_owner_turn ON jobs (owner, turn);
        CREATE INDEX jobs_by_turn ON jobs (turn);
        CREATE INDEX jobs_by_work ON jobs (work, seq) WHERE status = 'succeeded';
        CREATE TABLE files (
            job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            node_id TEXT NOT NULL,
            kind TEXT NOT NULL,
            filename TEXT NOT NULL,
            subfolder TEXT NOT NULL,
            type TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            PRIMARY KEY (job, position)
        ) WITHOUT ROWID;
        CREATE INDEX files_by_name ON files (filename, subfolder, type);
        CREATE TABLE publications (
            job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            node_id TEXT NOT NULL,
            key TEXT NOT NULL,
            position INTEGER NOT NULL,
            part TEXT NOT NULL,
            target TEXT NOT NULL,
            is_published INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (job, node_id, key, position)
        );
        CREATE TABLE usage (
            owner TEXT NOT NULL,
            day TEXT NOT NULL,
            seconds REAL NOT NULL,
            runs INTEGER NOT NULL,
            PRIMARY KEY (owner, day)
        ) WITHOUT ROWID;
        CREATE TABLE switches (name TEXT PRIMARY KEY) WITHOUT ROWID;
        """,
    ),
    (
        "0002 what a node has written, once all its files are out",
        """
        ALTER TABLE publications ADD COLUMN file TEXT NOT NULL DEFAULT '';
        CREATE TABLE written (
            job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            node_id TEXT NOT NULL,
            key TEXT NOT NULL,
            ui TEXT NOT NULL,
            PRIMARY KEY (job, node_id, key)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "0003 webhooks: whom to tell that a job has ended; the row comes with the ending, both or neither",
        """
        CREATE TABLE webhooks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            status TEXT NOT NULL,
            url TEXT NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            due REAL,
            delivered REAL,
            problem TEXT NOT NULL DEFAULT ''
        );
        CREATE INDEX webhooks_due ON webhooks (due) WHERE due IS NOT NULL;
        CREATE INDEX webhooks_by_job ON webhooks (job);
        CREATE TRIGGER webhook_due AFTER UPDATE OF status ON jobs
        WHEN NEW.status IN ('succeeded', 'failed', 'canceled') AND OLD.status <> NEW.status
            AND CASE WHEN json_valid(NEW.extra) THEN json_type(NEW.extra, '$.webhook') = 'text' END
        BEGIN
            INSERT INTO webhooks (job, status, url, due) VALUES (NEW.seq, NEW.status, json_extract(NEW.extra, '$.webhook'), NEW.ended);
        END;
        """,
    ),
    (
        "0004 a library of thousands: one owner's jobs, and favourites, the newest first",
        """
        CREATE INDEX jobs_of_owner ON jobs (owner, seq) WHERE deleted_at IS NULL;
        CREATE INDEX jobs_favourite ON jobs (seq) WHERE is_favourite;
        """,
    ),
    (
        "0005 batches: how many jobs of each are in which status",
        """
        CREATE INDEX jobs_of_batch ON jobs (owner, batch, status) WHERE batch IS NOT NULL AND deleted_at IS NULL;
        """,
    ),
    (
        "0006 a hundred thousand jobs: words are found without the rows, and one owner's jobs are counted alone",
        """
        DROP INDEX jobs_of_owner;
        CREATE INDEX jobs_words_of_owner ON jobs (owner, seq, words) WHERE deleted_at IS NULL;
        CREATE INDEX jobs_status_of_owner ON jobs (owner, status) WHERE deleted_at IS NULL;
        """,
    ),
]
