-- Numbers that an account may show to called parties because it can take calls there.
CREATE TABLE outgoing_caller_ids (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    phone_number TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX outgoing_caller_ids_account ON outgoing_caller_ids (account_sid, created_ms, sid);
