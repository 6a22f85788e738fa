-- Credentials beside an account's token. The secret is kept as a digest.
CREATE TABLE api_keys (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX api_keys_account ON api_keys (account_sid, created_ms, sid);

-- What is old is found without looking at what is not. Rows come in order of time, so these grow at
-- one end only.
CREATE INDEX calls_created ON calls (created_ms);
CREATE INDEX alerts_created ON alerts (created_ms);
CREATE INDEX recordings_created ON recordings (created_ms);
CREATE INDEX timeline_at ON timeline (at_ms);
CREATE INDEX outbox_done ON outbox (created_ms) WHERE state <> 'pending';
