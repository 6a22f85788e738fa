//! The store through its public door, on real files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::mpsc::channel;

use control_store::{
    Account, Alert, AlertFilter, Call, CallFilter, Callback, CallbackState, Durability,
    IncomingPhoneNumber, Job, Kept, NumberFilter, Page, PageOf, Recording, RecordingFilter,
    RequestLogEntry, Session, Store, StoreConfig, StoreError, StoreOp, TimeRange, TimelineEntry,
};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::at(folder.path().join("control.db"))).unwrap();
    (folder, store)
}

fn call(number: i64) -> Call {
    Call {
        sid: format!("CA{number:032x}"),
        account_sid: "AC1".into(),
        session_sid: format!("CA{number:032x}"),
        from_: "+15550001".into(),
        to_: format!("+1555{:04}", number % 3),
        status: if number % 2 == 0 { "completed" } else { "busy" }.into(),
        direction: "inbound".into(),
        start_ms: Some(number * 1000),
        created_ms: number / 2,
        ..Call::default()
    }
}

fn prune(kept: Kept, before_ms: i64, rows_max: u32) -> StoreOp {
    StoreOp::Prune { kept, before_ms, rows_max }
}

fn callback(call: &str, sequence: i64) -> Callback {
    Callback {
        id: 0,
        key: format!("{call}-{sequence}"),
        account_sid: "AC1".into(),
        call_sid: call.into(),
        session_sid: call.into(),
        event: "ringing".into(),
        sequence_number: sequence,
        target: "http://127.0.0.1/cb#ct=5".into(),
        request: r#"{"body": "ä=1"}"#.into(),
        attempts: 0,
        next_at_ms: 0,
        state: CallbackState::Pending,
        last_error: None,
        created_ms: 5,
    }
}

fn put(store: &Store, ops: Vec<StoreOp>) {
    store.commit(Durability::Process, ops).unwrap();
}

#[test]
fn ops_05_what_was_committed_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let store = Store::open(&StoreConfig::at(&path)).unwrap();
    let session = Session { sid: "CA1".into(), epoch: 3, body: vec![0, 255, 7] };
    put(&store, vec![StoreOp::PutCall(call(1)), StoreOp::PutSession(session.clone())]);
    store.commit(Durability::Synced, vec![StoreOp::AddCallback(callback("CA1", 0))]).unwrap();
    // Neither closed nor checkpointed, as after kill -9.
    std::mem::forget(store);

    let store = Store::open(&StoreConfig::at(&path)).unwrap();
    assert_eq!(store.reader().call(&call(1).sid).unwrap(), Some(call(1)));
    assert_eq!(store.reader().sessions().unwrap(), [session]);
    let pending = store.reader().outbox_pending(0, 10).unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0], Callback { id: pending[0].id, ..callback("CA1", 0) });
}

#[test]
fn many_waiting_jobs_share_few_commits_and_finish_in_order() {
    let (_folder, store) = open();
    let (sender, receiver) = channel();
    // The first job holds the store thread until all others wait.
    let (go, gate) = channel::<()>();
    let (begun, started) = channel();
    let done = Box::new(move |_| {
        begun.send(()).unwrap();
        gate.recv().unwrap_or(());
    });
    store.submit(Job { ops: vec![], durability: Durability::Process, done }).unwrap();
    started.recv().unwrap();
    for number in 0..500 {
        let (sender, reader) = (sender.clone(), store.reader().clone());
        let done = Box::new(move |result| {
            // Committed before told.
            let seen = reader.call(&call(number).sid).unwrap().is_some();
            sender.send((number, result, seen)).unwrap();
        });
        let ops = vec![StoreOp::PutCall(call(number))];
        store.submit(Job { ops, durability: Durability::Process, done }).unwrap();
    }
    assert_eq!(store.stats().queue_jobs, 500);
    go.send(()).unwrap();
    let told: Vec<_> = receiver.iter().take(500).collect();
    assert!(told.iter().map(|(number, ..)| *number).eq(0..500));
    assert!(told.iter().all(|(_, result, seen)| *result == Ok(()) && *seen));
    assert_eq!(store.stats().commits, 2, "{:?}", store.stats());
}

#[test]
fn a_job_that_breaks_a_rule_fails_alone_and_whole() {
    let (_folder, store) = open();
    let number = |sid: &str, phone_number: &str| {
        StoreOp::PutNumber(IncomingPhoneNumber {
            sid: sid.into(),
            account_sid: "AC1".into(),
            phone_number: phone_number.into(),
            ..Default::default()
        })
    };
    let (go, gate) = channel::<()>();
    let hold = Box::new(move |_| gate.recv().unwrap_or(()));
    store.submit(Job { ops: vec![], durability: Durability::Process, done: hold }).unwrap();
    let (sender, receiver) = channel();
    let submit = |ops| {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        store.submit(Job { ops, durability: Durability::Process, done }).unwrap();
    };
    submit(vec![number("PN1", "+1")]);
    submit(vec![StoreOp::PutCall(call(1)), number("PN2", "+1")]);
    submit(vec![number("PN3", "+3")]);
    go.send(()).unwrap();
    let results: Vec<_> = receiver.iter().take(3).collect();
    assert_eq!(results[0], Ok(()));
    assert!(matches!(results[1], Err(StoreError::Conflict(_))), "{:?}", results[1]);
    assert_eq!(results[2], Ok(()));
    assert_eq!(store.reader().call(&call(1).sid).unwrap(), None);
    assert_eq!(store.reader().numbers_all().unwrap().len(), 2);
    let list = |filter| store.reader().numbers("AC1", &filter, &Page::first(9)).unwrap().items;
    assert_eq!(
        list(NumberFilter { phone_number: Some("3".into()), ..Default::default() }).len(),
        1
    );
}

#[test]
fn an_old_epoch_is_refused() {
    let (_folder, store) = open();
    let write = |epoch, body: u8| {
        let session = Session { sid: "CA1".into(), epoch, body: vec![body] };
        store.commit(Durability::Process, vec![StoreOp::PutSession(session)])
    };
    assert_eq!(write(2, 1), Ok(()));
    assert_eq!(write(2, 2), Ok(()));
    let stale = StoreError::StaleEpoch { sid: "CA1".into(), stored: 2, given: 1 };
    assert_eq!(write(1, 3), Err(stale));
    assert_eq!(write(4, 4), Ok(()));
    assert_eq!(store.reader().sessions().unwrap()[0].body, [4]);
    put(&store, vec![StoreOp::DeleteSession { sid: "CA1".into() }]);
    assert_eq!(store.reader().sessions().unwrap(), []);
}

#[test]
fn a_full_disk_fails_the_writers_and_later_room_lets_them_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        size_bytes_max: Some(300 << 10),
        ..StoreConfig::at(folder.path().join("control.db"))
    };
    let store = Store::open(&config).unwrap();
    let entry = |number: i64| {
        StoreOp::AddTimeline(TimelineEntry {
            session_sid: "CA1".into(),
            sequence: number,
            leg_sid: None,
            at_ms: number,
            body: "x".repeat(3000),
        })
    };
    let failed = (0..1000)
        .find_map(|number| store.commit(Durability::Synced, vec![entry(number)]).err())
        .unwrap();
    assert_eq!(failed, StoreError::DiskFull);
    assert!(store.stats().jobs_failed >= 1);
    let before = store.reader().timeline("CA1").unwrap().len();
    assert!(before > 10);
    put(&store, vec![prune(Kept::Timeline, 1000, 1000)]);
    put(&store, vec![entry(2000)]);
    assert_eq!(store.reader().timeline("CA1").unwrap().len(), 1);
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        StoreConfig { queue_jobs_max: 1, ..StoreConfig::at(folder.path().join("control.db")) };
    let store = Store::open(&config).unwrap();
    let (go, gate) = channel::<()>();
    let (begun, started) = channel();
    let hold = Box::new(move |_| {
        begun.send(()).unwrap();
        gate.recv().unwrap_or(());
    });
    store.submit(Job { ops: vec![], durability: Durability::Process, done: hold }).unwrap();
    started.recv().unwrap();
    let (sender, receiver) = channel();
    let mut results = Vec::new();
    for _ in 0..2 {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        results.push(store.submit(Job { ops: vec![], durability: Durability::Process, done }));
    }
    assert_eq!(results, [Ok(()), Err(StoreError::QueueFull)]);
    assert_eq!(receiver.recv().unwrap(), Err(StoreError::QueueFull));
    go.send(()).unwrap();
    assert_eq!(receiver.recv().unwrap(), Ok(()));
    assert_eq!(store.stats().jobs_refused, 1);
}

#[test]
fn pages_hold_while_rows_arrive() {
    let (_folder, store) = open();
    put(&store, (0..25).map(|number| StoreOp::PutCall(call(number))).collect());
    let list = |page: &Page| store.reader().calls("AC1", &CallFilter::default(), page).unwrap();
    let sids = |page: &PageOf<Call>| page.items.iter().map(|c| c.sid.clone()).collect::<Vec<_>>();
    let expected: Vec<_> = (0..25).rev().map(|number| call(number).sid).collect();

    let first = list(&Page::first(10));
    assert_eq!(sids(&first), expected[..10]);
    assert_eq!(first.previous, None);
    put(&store, vec![StoreOp::PutCall(call(99))]);
    let second = list(&Page { size: 10, number: 1, token: first.next });
    assert_eq!(sids(&second), expected[10..20]);
    let third = list(&Page { size: 10, number: 2, token: second.next.clone() });
    assert_eq!(sids(&third), expected[20..]);
    assert_eq!(third.next, None);
    let back = list(&Page { size: 10, number: 1, token: third.previous });
    assert_eq!(sids(&back), expected[10..20]);
    assert_eq!(back.next, second.next);
    let by_number = list(&Page { size: 10, number: 1, token: None });
    assert_eq!(sids(&by_number), expected[9..19]);
    let none = store.reader().calls("AC2", &CallFilter::default(), &Page::first(10)).unwrap();
    assert_eq!(none, PageOf { items: vec![], next: None, previous: None });
}

#[test]
fn filters_select() {
    let (_folder, store) = open();
    put(&store, (0..30).map(|number| StoreOp::PutCall(call(number))).collect());
    let cases: [(CallFilter, usize); 5] = [
        (CallFilter { status: Some("busy".into()), ..Default::default() }, 15),
        (CallFilter { to: Some("+15550001".into()), ..Default::default() }, 10),
        (CallFilter { from: Some("nobody".into()), ..Default::default() }, 0),
        (
            CallFilter {
                start: TimeRange { from_ms: Some(5000), to_ms: Some(9000) },
                ..Default::default()
            },
            5,
        ),
        (CallFilter { end: TimeRange { from_ms: Some(0), to_ms: None }, ..Default::default() }, 0),
    ];
    for (filter, count) in cases {
        let found = store.reader().calls("AC1", &filter, &Page::first(100)).unwrap();
        assert_eq!(found.items.len(), count, "{filter:?}");
    }
    // Not even hostile text gets out of its place.
    let filter = CallFilter { to: Some("' OR 1=1 --".into()), ..Default::default() };
    let found = store.reader().calls("AC1", &filter, &Page::first(100)).unwrap();
    assert_eq!(found.items.len(), 0);
}

#[test]
fn fbk_04_the_outbox_keeps_one_row_per_key_until_delivered_or_dead() {
    let (_folder, store) = open();
    let rows = [callback("CA1", 0), callback("CA1", 1), callback("CA2", 0), callback("CA1", 1)];
    put(&store, rows.map(StoreOp::AddCallback).into());
    let pending = store.reader().outbox_pending(0, 10).unwrap();
    assert_eq!(pending.len(), 3);
    let ids: Vec<_> = pending.iter().map(|row| row.id).collect();
    assert!(ids.is_sorted());
    let error = "HTTP 503".to_owned();
    put(
        &store,
        vec![
            StoreOp::CallbackDelivered { id: ids[0], attempts: 1 },
            StoreOp::RetryCallback { id: ids[1], attempts: 1, next_at_ms: 700, error },
            StoreOp::CallbackDead { id: ids[2], attempts: 9, error: "gone".into() },
        ],
    );
    let pending = store.reader().outbox_pending(0, 10).unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].attempts, pending[0].next_at_ms), (1, 700));
    assert_eq!(store.reader().outbox_pending(ids[1], 10).unwrap(), []);
    assert_eq!(store.reader().outbox_pending_count().unwrap(), 1);
    put(&store, vec![prune(Kept::Callbacks, 100, 10)]);
    assert_eq!(store.reader().outbox_of("CA1").unwrap().len(), 1);
    assert_eq!(store.reader().outbox_of("CA2").unwrap().len(), 0);
}

#[test]
fn every_kind_of_row_round_trips() {
    let (_folder, store) = open();
    let account =
        Account { sid: "AC1".into(), owner_account_sid: "AC1".into(), ..Default::default() };
    let recording = Recording {
        sid: "RE1".into(),
        account_sid: "AC1".into(),
        call_sid: "CA1".into(),
        duration_ms: Some(1234),
        ..Default::default()
    };
    let alert = Alert {
        sid: "NO1".into(),
        account_sid: "AC1".into(),
        call_sid: Some("CA1".into()),
        error_code: 11200,
        ..Default::default()
    };
    let log = RequestLogEntry {
        id: 0,
        key: "CA1/1".into(),
        account_sid: "AC1".into(),
        call_sid: "CA1".into(),
        at_ms: 1,
        request: "{}".into(),
        response: "{}".into(),
    };
    put(
        &store,
        vec![
            StoreOp::PutAccount(account.clone()),
            StoreOp::PutRecording(recording.clone()),
            StoreOp::PutAlert(alert.clone()),
            StoreOp::AddRequestLog(log.clone()),
            StoreOp::AddRequestLog(log),
            StoreOp::PutFact { name: "n".into(), value: "1".into() },
            StoreOp::PutFact { name: "n".into(), value: "2".into() },
        ],
    );
    let reader = store.reader();
    let page = Page::first(5);
    assert_eq!(reader.account("AC1").unwrap(), Some(account.clone()));
    assert_eq!(reader.accounts_of("AC1", None, None, &page).unwrap().items, [account]);
    let filter = RecordingFilter { call_sid: Some("CA1".into()), ..Default::default() };
    assert_eq!(reader.recordings("AC1", &filter, &page).unwrap().items, [recording]);
    let filter = AlertFilter { log: Some(0), ..Default::default() };
    assert_eq!(reader.alerts("AC1", &filter, &page).unwrap().items, [alert]);
    assert_eq!(reader.request_log("CA1", 5, 0).unwrap().len(), 1);
    assert_eq!(reader.request_log("CA1", 5, 1).unwrap().len(), 0);
    assert_eq!(reader.fact("n").unwrap().as_deref(), Some("2"));
    let late = StoreOp::CompleteRecording {
        sid: "RE1".into(),
        duration_ms: 2_000,
        channels: 2,
        path: "RE1.wav".into(),
        size_bytes: Some(64_044),
        at_ms: 9,
    };
    put(&store, vec![late]);
    let completed = reader.recording("RE1").unwrap().unwrap();
    assert_eq!((completed.status.as_str(), completed.channels), ("completed", 2));
    assert_eq!((completed.path.as_deref(), completed.duration_ms), (Some("RE1.wav"), Some(2_000)));
    put(&store, vec![StoreOp::DeleteRecording { sid: "RE1".into() }]);
    assert_eq!(reader.recording("RE1").unwrap(), None);
}

#[test]
fn an_upsert_keeps_the_date_of_creation() {
    let (_folder, store) = open();
    put(&store, vec![StoreOp::PutCall(call(8))]);
    let changed = Call { status: "failed".into(), created_ms: 77, updated_ms: 99, ..call(8) };
    put(&store, vec![StoreOp::PutCall(changed)]);
    let found = store.reader().call(&call(8).sid).unwrap().unwrap();
    assert_eq!((found.created_ms, found.updated_ms), (4, 99));
    assert_eq!(found.status, "failed");
    assert_eq!(store.reader().calls_unfinished().unwrap(), []);
}

#[test]
fn what_is_old_goes_in_batches_and_what_is_at_work_stays() {
    let (_folder, store) = open();
    let mut ops: Vec<StoreOp> = (0..10)
        .map(|number| {
            let end_ms = Some(number * 10);
            StoreOp::PutCall(Call { created_ms: number, end_ms, ..call(number) })
        })
        .collect();
    // Old, but going on; old, and of a session that goes on; old and lost.
    ops.push(StoreOp::PutCall(Call { status: "ringing".into(), created_ms: 0, ..call(20) }));
    ops.push(StoreOp::PutSession(Session { sid: call(20).sid, epoch: 1, body: vec![] }));
    let of_session = Call { session_sid: call(20).sid, end_ms: Some(1), ..call(21) };
    ops.push(StoreOp::PutCall(of_session));
    let lost = Call { answered_ms: Some(1_000), created_ms: 0, ..call(22) };
    ops.push(StoreOp::PutCall(Call { status: "in-progress".into(), ..lost }));
    ops.push(StoreOp::PutCall(Call { status: "queued".into(), ..call(23) }));
    put(&store, ops);
    let left = || {
        let page = Page::first(100);
        let calls = store.reader().calls("AC1", &CallFilter::default(), &page).unwrap();
        let mut sids: Vec<String> = calls.items.into_iter().map(|call| call.sid).collect();
        sids.sort();
        sids
    };
    let sids = |numbers: &[i64]| numbers.iter().map(|n| call(*n).sid).collect::<Vec<_>>();

    put(&store, vec![prune(Kept::Calls, 50, 3)]);
    assert_eq!(left(), sids(&[3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23]));
    assert!(store.reader().has_older(Kept::Calls, 50).unwrap());
    put(&store, vec![prune(Kept::Calls, 50, 3)]);
    assert_eq!(left(), sids(&[5, 6, 7, 8, 9, 20, 21, 22, 23]));
    assert!(!store.reader().has_older(Kept::Calls, 50).unwrap());

    assert_eq!(store.reader().calls_lost().unwrap(), sids(&[22, 23]));
    for number in [22, 23, 5] {
        put(&store, vec![StoreOp::EndLostCall { sid: call(number).sid, at_ms: 3_500 }]);
    }
    let ended = |number: i64| {
        let call = store.reader().call(&call(number).sid).unwrap().unwrap();
        (call.status, call.end_ms, call.duration_s)
    };
    assert_eq!(ended(22), ("completed".into(), Some(3_500), Some(3)));
    assert_eq!(ended(23), ("failed".into(), Some(3_500), Some(0)));
    assert_eq!(ended(5).1, Some(50), "it has an end");
    assert_eq!(store.reader().calls_lost().unwrap(), Vec::<String>::new());

    let old = |number: i64, status: &str| {
        StoreOp::PutRecording(Recording {
            sid: format!("RE{number}"),
            account_sid: "AC1".into(),
            call_sid: "CA1".into(),
            status: status.into(),
            created_ms: number,
            ..Recording::default()
        })
    };
    put(&store, vec![old(1, "completed"), old(2, "paused"), old(3, "absent"), old(9, "completed")]);
    let found = store.reader().recordings_before(9, 10).unwrap();
    let found: Vec<&str> = found.iter().map(|row| row.sid.as_str()).collect();
    assert_eq!(found, ["RE1", "RE3"]);
}

#[test]
fn every_kind_that_is_kept_can_be_pruned() {
    let (_folder, store) = open();
    put(
        &store,
        vec![
            StoreOp::PutCall(Call { end_ms: Some(5), created_ms: 5, ..call(1) }),
            StoreOp::PutAlert(Alert { sid: "NO1".into(), created_ms: 5, ..Alert::default() }),
            StoreOp::AddCallback(Callback {
                state: CallbackState::Dead,
                created_ms: 5,
                ..callback("CA1", 0)
            }),
            StoreOp::AddRequestLog(RequestLogEntry {
                id: 0,
                key: "k".into(),
                account_sid: "AC1".into(),
                call_sid: "CA1".into(),
                at_ms: 5,
                request: String::new(),
                response: String::new(),
            }),
            StoreOp::AddTimeline(TimelineEntry {
                session_sid: "CA1".into(),
                sequence: 0,
                leg_sid: None,
                at_ms: 5,
                body: String::new(),
            }),
        ],
    );
    for kept in Kept::ALL {
        assert!(!store.reader().has_older(kept, 5).unwrap(), "{kept:?}");
        assert!(store.reader().has_older(kept, 6).unwrap(), "{kept:?}");
        put(&store, vec![prune(kept, 5, 10)]);
        assert!(store.reader().has_older(kept, 6).unwrap(), "{kept:?}");
        put(&store, vec![prune(kept, 6, 10)]);
        assert!(!store.reader().has_older(kept, 6).unwrap(), "{kept:?}");
    }
}
