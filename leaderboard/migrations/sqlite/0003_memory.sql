-- What worked before, on which kind of data. Not an index over journals: `rebuild` leaves it alone.
CREATE TABLE experiences (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    task       TEXT NOT NULL,
    experience TEXT NOT NULL,
    noted_at   TEXT NOT NULL
);

CREATE INDEX experiences_by_kind ON experiences (kind, task, id);
