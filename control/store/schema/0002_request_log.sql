-- Every request to a customer's web server and its answer: what `Calls/{Sid}/Events` shows.
CREATE TABLE request_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    account_sid TEXT NOT NULL,
    call_sid TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    request TEXT NOT NULL,
    response TEXT NOT NULL
);
CREATE UNIQUE INDEX request_log_key ON request_log (key);
CREATE INDEX request_log_call ON request_log (call_sid, id);

-- Small facts about the whole store, for example the version of the pushed tables.
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
