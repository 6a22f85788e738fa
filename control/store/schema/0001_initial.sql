-- Times are ms since 1970, UTC. Durations carry their unit in the name.

CREATE TABLE accounts (
    sid TEXT PRIMARY KEY,
    owner_account_sid TEXT NOT NULL,
    auth_token TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    status TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE incoming_phone_numbers (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    phone_number TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    voice_url TEXT,
    voice_method TEXT,
    voice_fallback_url TEXT,
    voice_fallback_method TEXT,
    voice_application_sid TEXT,
    voice_caller_id_lookup INTEGER NOT NULL,
    voice_receive_mode TEXT NOT NULL,
    status_callback TEXT,
    status_callback_method TEXT,
    sms_url TEXT,
    sms_method TEXT,
    sms_fallback_url TEXT,
    sms_fallback_method TEXT,
    sms_application_sid TEXT,
    trunk_sid TEXT,
    address_sid TEXT,
    bundle_sid TEXT,
    identity_sid TEXT,
    emergency_status TEXT,
    emergency_address_sid TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX incoming_phone_numbers_number ON incoming_phone_numbers (phone_number);
CREATE INDEX incoming_phone_numbers_account ON incoming_phone_numbers (account_sid, created_ms, sid);

CREATE TABLE applications (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    voice_url TEXT,
    voice_method TEXT,
    voice_fallback_url TEXT,
    voice_fallback_method TEXT,
    voice_caller_id_lookup INTEGER NOT NULL,
    status_callback TEXT,
    status_callback_method TEXT,
    sms_url TEXT,
    sms_method TEXT,
    sms_fallback_url TEXT,
    sms_fallback_method TEXT,
    sms_status_callback TEXT,
    message_status_callback TEXT,
    public_application_connect_enabled INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX applications_account ON applications (account_sid, created_ms, sid);

CREATE TABLE calls (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    parent_call_sid TEXT,
    session_sid TEXT NOT NULL,
    from_ TEXT NOT NULL,
    to_ TEXT NOT NULL,
    phone_number_sid TEXT,
    status TEXT NOT NULL,
    direction TEXT NOT NULL,
    start_ms INTEGER,
    answered_ms INTEGER,
    end_ms INTEGER,
    duration_s INTEGER,
    application_sid TEXT,
    node TEXT NOT NULL,
    region TEXT,
    sip_call_id TEXT,
    sip_status INTEGER,
    stats TEXT,
    answered_by TEXT,
    forwarded_from TEXT,
    caller_name TEXT,
    queue_time_ms INTEGER NOT NULL,
    end_reason TEXT,
    end_whose TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX calls_account ON calls (account_sid, created_ms, sid);
CREATE INDEX calls_parent ON calls (parent_call_sid);
CREATE INDEX calls_status ON calls (status);

CREATE TABLE sessions (
    sid TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    account_sid TEXT NOT NULL,
    call_sid TEXT NOT NULL,
    session_sid TEXT NOT NULL,
    event TEXT NOT NULL,
    sequence_number INTEGER NOT NULL,
    target TEXT NOT NULL,
    request TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_at_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    last_error TEXT,
    created_ms INTEGER NOT NULL
);
CREATE UNIQUE INDEX outbox_key ON outbox (key);
CREATE INDEX outbox_call ON outbox (call_sid);
CREATE INDEX outbox_state ON outbox (state, id);

CREATE TABLE alerts (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    call_sid TEXT,
    error_code INTEGER NOT NULL,
    log INTEGER NOT NULL,
    message_text TEXT NOT NULL,
    request_method TEXT,
    request_url TEXT,
    request_variables TEXT,
    response_status INTEGER,
    response_headers TEXT,
    response_body TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX alerts_account ON alerts (account_sid, created_ms, sid);
CREATE INDEX alerts_call ON alerts (call_sid);

CREATE TABLE recordings (
    sid TEXT PRIMARY KEY,
    account_sid TEXT NOT NULL,
    call_sid TEXT NOT NULL,
    conference_sid TEXT,
    status TEXT NOT NULL,
    channels INTEGER NOT NULL,
    source TEXT NOT NULL,
    track TEXT,
    duration_ms INTEGER,
    error_code INTEGER,
    path TEXT,
    size_bytes INTEGER,
    start_ms INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX recordings_account ON recordings (account_sid, created_ms, sid);
CREATE INDEX recordings_call ON recordings (call_sid);

CREATE TABLE timeline (
    session_sid TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    leg_sid TEXT,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (session_sid, sequence)
) WITHOUT ROWID;
