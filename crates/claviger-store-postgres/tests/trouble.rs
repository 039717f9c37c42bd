//! Lost connections, stopped servers and damaged rows: nothing is left half-done, and the store
//! recovers by itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use claviger_core::{
    AttemptId, Change, Claim, EndReason, Fingerprint, SealedBlob, SealedPair, Session, SessionId,
};
use claviger_store::{Applied, Placement, Queue, Selection, Store, StoreError, Subscriber as _};
use claviger_store_postgres::{Address, Options, PostgresStore, Way};
use common::{
    ROOMY,
    server::{Server, eventually, until_waiting},
    session, t,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

mod common;

const CUT_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

async fn open(server: &Server, database: &str) -> PostgresStore {
    PostgresStore::open(&server.address(database), &Options::default()).await.unwrap()
}

fn claim(attempt: u8) -> Claim {
    Claim {
        attempt: AttemptId([attempt; 16]),
        taken_at: t(1),
        lease_until: t(31),
        fingerprint: Fingerprint([attempt; 16]),
        replay: false,
        answer_lost: false,
    }
}

/// A change of the narrow row, or of both: a claim, or the pair that it was for.
fn changed(row: &Session, round: u8) -> Change {
    let held = row.active().and_then(|active| active.claim);
    let next = match held {
        None => row.clone().claim(claim(round)),
        Some(held) => {
            let pair = SealedPair { access: SealedBlob(vec![round; 300]), ..row.pair().unwrap().clone() };
            row.clone().rotate(held.attempt, None, t(i64::from(round)), |generation| SealedPair {
                generation,
                ..pair
            })
        }
    };
    next.unwrap()
}

/// The stored row, as soon as the database answers again.
async fn stored(store: &dyn Store, id: SessionId) -> Option<Session> {
    for _ in 0..1000 {
        if let Ok(row) = store.load(id).await {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it takes too long until the row can be read")
}

/// Changes one row repeatedly. Whatever the answer, the row is in the old or the new state.
async fn change_again_and_again(store: Arc<PostgresStore>, tag: u32, stop: Arc<AtomicBool>) -> (u32, u32) {
    let mut row = session(tag);
    let (mut done, mut unknown) = (0, 0);
    while !store.insert(row.clone(), ROOMY).await.is_ok_and(|ended| ended.is_empty()) {
        if let Some(stored) = stored(&*store, row.id).await {
            assert_eq!(stored, row, "a sign-in is there as a whole");
            break;
        }
    }
    let mut round = 0_u8;
    while !stop.load(Ordering::Relaxed) {
        round = round.wrapping_add(1);
        let next = changed(&row, round);
        match store.apply(&next).await {
            Ok(Applied::Done) => {
                done += 1;
                row = next.into_next();
            }
            Ok(Applied::Conflict(stored)) => panic!("MONO: nobody else writes {stored:?}"),
            Err(StoreError::Unavailable(_) | StoreError::Unreachable(_)) => {
                unknown += 1;
                let now = stored(&*store, row.id).await.unwrap();
                assert!(now == row || now == *next.next(), "neither before nor after: {now:?}");
                row = now;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    (done, unknown)
}

/// Signs in repeatedly, each time replacing the previous session. Counts the sessions that ended.
async fn sign_in_again_and_again(
    store: Arc<PostgresStore>,
    tag: u32,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU32>,
) {
    let mut before: Option<SessionId> = None;
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let row = session(tag + 100 * round);
        let placement = Placement { replaces: before, ..ROOMY };
        let answer = store.insert(row.clone(), placement).await;
        let is_there = stored(&*store, row.id).await.is_some();
        let other = match before {
            Some(id) => Some(stored(&*store, id).await.unwrap().ended()),
            None => None,
        };
        assert_eq!(
            other.unwrap_or(is_there),
            is_there,
            "a sign-in and the end of the one before come together"
        );
        match answer {
            Ok(_) => assert!(is_there, "what was confirmed is there"),
            Err(StoreError::Unavailable(_) | StoreError::Unreachable(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        if is_there {
            ended.fetch_add(u32::from(before.is_some()), Ordering::Relaxed);
            before = Some(row.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_lost_during_writes_leave_nothing_half_done() {
    let server = Server::start("");
    let database = server.database().await;
    let store = Arc::new(open(&server, &database).await);
    let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (mut changing, mut signing_in) = (JoinSet::new(), JoinSet::new());
    for tag in 0..8 {
        changing.spawn(change_again_and_again(Arc::clone(&store), tag, Arc::clone(&stop)));
        let (store, stop, ended) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&ended));
        signing_in.spawn(sign_in_again_and_again(store, 10 + tag, stop, ended));
    }
    let cutter = server.client(&database).await;
    // On a slow computer it takes more cuts until a sign-in comes through.
    for cut in 0..600 {
        if cut >= 60 && ended.load(Ordering::Relaxed) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        cutter.simple_query(CUT_ALL).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (mut done, mut unknown) = (0, 0);
    for (some, others) in changing.join_all().await {
        done += some;
        unknown += others;
    }
    assert!(done > 0 && unknown > 0, "{done} done, of {unknown} nobody knew");
    signing_in.join_all().await;
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended > 0);
    assert_eq!(
        store.backlog(Queue::Revocations).await.unwrap().count,
        u64::from(ended),
        "CASCADE: each end owes once"
    );
}

#[tokio::test]
async fn a_stopped_server_is_reported_and_used_again_after_its_restart() {
    let server = Server::start("");
    let database = server.database().await;
    let store = open(&server, &database).await;
    let row = session(1);
    store.insert(row.clone(), ROOMY).await.unwrap();
    for _ in 0..2 {
        server.crash();
        let error = store.load(row.id).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unreachable(_)), "{error:?}");
        let error = store.insert(session(2), ROOMY).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unreachable(_)), "{error:?}");
        server.resume();
        assert_eq!(store.load(row.id).await, Ok(Some(row.clone())), "at once");
        assert_eq!(store.check().await, Ok(()));
    }
    assert_eq!(store.load(session(2).id).await, Ok(None));
}

#[tokio::test]
async fn a_silent_database_is_waited_for_only_up_to_the_limit() {
    let server = Server::start("");
    let database = server.database().await;
    let options = Options { patience: Duration::from_millis(300), ..Options::default() };
    let store = PostgresStore::open(&server.address(&database), &options).await.unwrap();
    let row = session(1);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let holder = server.client(&database).await;
    holder.batch_execute("BEGIN; LOCK TABLE claviger.pulse").await.unwrap();
    for _ in 0..20 {
        let error = store.load(row.id).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    let error = store.insert(session(2), ROOMY).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.load(row.id).await, Ok(Some(row)));
    assert_eq!(store.load(session(2).id).await, Ok(None), "what was given up was undone");
}

#[tokio::test]
async fn a_dropped_call_leaves_no_open_transaction() {
    let server = Server::start("");
    let database = server.database().await;
    let options = Options { connections: 2, ..Options::default() };
    let store = PostgresStore::open(&server.address(&database), &options).await.unwrap();
    let mut micros = 0;
    for tag in 0..60 {
        micros += 50;
        let insert = store.insert(session(tag), ROOMY);
        let _cut_short = tokio::time::timeout(Duration::from_micros(micros), insert).await;
    }
    store.insert(session(99), ROOMY).await.unwrap();
    let client = server.client(&database).await;
    let open =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    eventually("no transaction is open", async || {
        (client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_fails_to_open_leaves_its_connection_clean() {
    let server = Server::start("");
    let database = server.database().await;
    let one = Options { connections: 1, ..Options::default() };
    let store = Arc::new(PostgresStore::open(&server.address(&database), &one).await.unwrap());
    let beside = Arc::new(open(&server, &database).await);
    let row = session(7);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let (client, watcher) = (server.client(&database).await, server.client(&database).await);
    // A sign-out everywhere holds the user's lock and waits for a row.
    client.batch_execute("BEGIN; SELECT FROM claviger.pulse FOR UPDATE").await.unwrap();
    let selection = Selection { subject: row.subject.clone(), except: None, created_before: t(1000) };
    let ending =
        tokio::spawn(async move { beside.end_sessions(&selection, EndReason::SignedOut, t(900)).await });
    until_waiting(&watcher, 1, "wait_event <> 'advisory'").await;
    let inserting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.insert(session(17), ROOMY).await })
    };
    until_waiting(&watcher, 1, "wait_event = 'advisory'").await;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'";
    watcher.batch_execute(cancel).await.unwrap();
    let told = inserting.await.unwrap();
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    assert_eq!(store.check().await, Ok(()));
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ending.await.unwrap().unwrap().len(), 1);
    assert_eq!(store.insert(session(17), ROOMY).await, Ok(vec![]));
}

/// A server that cannot write its log stops with the code of a full disk. Whether the log holds the
/// change is unknown.
#[tokio::test]
async fn a_server_that_stops_midway_leaves_an_unknown_outcome_for_every_code() {
    let server = Server::start("");
    let database = server.database().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let text = format!("postgres://claviger@127.0.0.1:{}/{database}", listener.local_addr().unwrap().port());
    let port = server.port;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(stop_at_the_first_update(near, port));
        }
    });
    let address = Address::parse(&text, &Way::InsecurePlaintext).unwrap();
    let store = PostgresStore::open(&address, &Options::default()).await.unwrap();
    let told = store.check().await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
}

/// Relays both directions, but replaces the answer to an update by that of a stopping server.
async fn stop_at_the_first_update(near: TcpStream, port: u16) {
    let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let ((mut asks, mut hears), (mut answers, mut is_asked)) = (near.into_split(), far.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut asks, &mut is_asked).await });
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = answers.read(&mut buffer).await {
        let said = &buffer[..count];
        if said.windows(8).any(|words| words == b"UPDATE 1") {
            let fields = b"SPANIC\0VPANIC\0C53100\0Mno space left on device\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            hears.write_all(&[&b"E"[..], &length, fields].concat()).await.unwrap();
            return;
        }
        hears.write_all(said).await.unwrap();
    }
}

#[tokio::test]
async fn a_read_only_or_damaged_database_differs_from_a_passing_failure() {
    let server = Server::start("");
    let database = server.database().await;
    let store = open(&server, &database).await;
    let client = server.client(&database).await;
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    client.batch_execute(&read_only).await.unwrap();
    client.simple_query(CUT_ALL).await.unwrap();
    let error = eventually("the connections are new", async || match store.check().await {
        Err(StoreError::Unavailable(_) | StoreError::Unreachable(_)) | Ok(()) => None,
        Err(error) => Some(error),
    })
    .await;
    assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
    client
        .batch_execute("SET default_transaction_read_only = off; DROP TABLE claviger.beacon")
        .await
        .unwrap();
    client
        .batch_execute(&format!("ALTER DATABASE {database} RESET default_transaction_read_only"))
        .await
        .unwrap();
    client.simple_query(CUT_ALL).await.unwrap();
    let error = eventually("the connections are new", async || match store.check().await {
        Err(StoreError::Unavailable(_) | StoreError::Unreachable(_) | StoreError::ReadOnly(_)) | Ok(()) => {
            None
        }
        Err(error) => Some(error),
    })
    .await;
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[tokio::test]
async fn a_damaged_row_is_reported_with_its_id_and_column() {
    let server = Server::start("");
    let database = server.database().await;
    let store = open(&server, &database).await;
    let client = server.client(&database).await;
    let checks = "DO $$ DECLARE c record; BEGIN
        FOR c IN SELECT conrelid::regclass AS tab, conname FROM pg_constraint
            WHERE contype = 'c' AND connamespace = 'claviger'::regnamespace
        LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.tab, c.conname); END LOOP; END $$;
        ALTER TABLE claviger.session DISABLE TRIGGER session_keep_end";
    client.batch_execute(checks).await.unwrap();
    let damages = [
        ("session SET custody = 'nobody'", "custody"),
        ("session SET secret_hash = '\\x00'", "secret_hash"),
        ("session SET access = NULL", "generation"),
        ("session SET expiry = 'soon'", "expiry"),
        ("session SET display_name = 'a\\b'", "display_name"),
        ("session SET end_reason = 'boredom', ended_at = 1", "end_reason"),
        ("pulse SET proven_at = NULL", "proven_at"),
        ("pulse SET state = 7", "state"),
        ("pulse SET version = -1", "version"),
    ];
    for ((damage, column), tag) in damages.iter().zip(1..) {
        let row = session(tag);
        store.insert(row.clone(), ROOMY).await.unwrap();
        let sql = format!("UPDATE claviger.{damage} WHERE id = '{}'", row.id);
        assert_eq!(client.execute(&sql, &[]).await.unwrap(), 1, "{sql}");
        let told = StoreError::Corrupt(format!("column {column} of session {}", row.id));
        assert_eq!(store.load(row.id).await, Err(told));
    }
    store.insert(session(99), ROOMY).await.unwrap();
    assert!(store.load(session(99).id).await.unwrap().is_some(), "other rows are as good as before");
}

#[tokio::test]
async fn a_proof_and_a_use_touch_no_index() {
    let server = Server::start("");
    let database = server.database().await;
    let store = open(&server, &database).await;
    let mut rows: Vec<Session> = (0..1024).map(session).collect();
    for row in &rows {
        store.insert(row.clone(), ROOMY).await.unwrap();
    }
    for round in 1..=3 {
        // As in a visit to a slot, whose rows lie on all pages.
        for visit in 0..32 {
            let visited: Vec<_> = rows.iter_mut().skip(visit).step_by(32).collect();
            let prove = |row: &&mut Session| {
                let generation = row.pair().unwrap().generation;
                Session::clone(row).prove(generation, t(5000 + round)).unwrap()
            };
            let proofs: Vec<_> = visited.iter().map(prove).collect();
            assert!(store.apply_all(&proofs).await.unwrap().into_iter().all(|written| written));
            for (row, proof) in visited.into_iter().zip(&proofs) {
                *row = proof.next().clone();
            }
            let seen: Vec<_> = proofs.iter().map(|proof| (proof.next().id, t(1100 + round))).collect();
            store.record_last_seen(&seen).await.unwrap();
        }
    }
    // A connection reports its updates when it ends.
    drop(store);
    let client = server.client(&database).await;
    let updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
        WHERE schemaname = 'claviger' AND relname = 'pulse'";
    let hot = eventually("the updates are counted", async || {
        let row = client.query_one(updates, &[]).await.unwrap();
        let (all, hot): (i64, i64) = (row.get(0), row.get(1));
        (all == 6 * 1024).then_some(hot)
    })
    .await;
    assert!(hot * 100 > 6 * 1024 * 98, "{hot} of {} updates stayed on their page", 6 * 1024);
}

const CERTIFICATES: &str = "
    curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    openssl req -x509 $curve -keyout ca.key -out ca.pem -subj /CN=authority -days 2
    openssl req $curve -keyout server.key -out server.csr -subj /CN=server
    echo 'subjectAltName=IP:127.0.0.1' >names
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names
    chmod 644 ca.pem; chmod 711 .";

/// Makes the server offer TLS from now on, and returns the settings that trust it.
async fn offer_tls(server: &Server, client: &tokio_postgres::Client) -> Way {
    server.run(&format!("({CERTIFICATES}) >openssl.log 2>&1"));
    for setting in ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"] {
        let setting = setting.replace("'server", &format!("'{}/server", server.directory().display()));
        client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    Way::Tls { authorities: Some(server.directory().join("ca.pem")) }
}

#[tokio::test]
async fn a_network_connection_is_encrypted_to_the_right_server_or_refused() {
    let server = Server::start("");
    let database = server.database().await;
    let remote = format!("postgres://claviger@127.0.0.1:{}/{database}", server.port);
    let try_by = async |way: &Way| {
        let address = Address::parse(&remote, way).unwrap();
        PostgresStore::open(&address, &Options::default()).await.map_err(|error| error.to_string())
    };
    let any = Way::Tls { authorities: None };
    let told = try_by(&any).await.unwrap_err();
    assert!(told.contains("TLS"), "a server without TLS: {told}");
    try_by(&Way::InsecurePlaintext).await.unwrap();

    let client = server.client(&database).await;
    let ours = offer_tls(&server, &client).await;
    let store = eventually("the server has TLS", async || try_by(&ours).await.ok()).await;
    store.insert(session(1), ROOMY).await.unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE ssl AND datname = current_database() AND backend_type = 'client backend'";
    assert!(client.query_one(encrypted, &[]).await.unwrap().get::<_, i64>(0) > 0);
    assert_eq!(store.changes().unwrap().next().await, claviger_store::FeedEvent::Resync);
    let told = try_by(&any).await.unwrap_err();
    assert!(told.contains("TLS"), "an authority that nobody believes: {told}");
}

#[tokio::test]
async fn a_password_is_proven_without_being_sent_and_a_wrong_one_is_reported() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let role = "SET password_encryption = 'scram-sha-256'; CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'canary-right'";
    client.batch_execute(role).await.unwrap();
    let rule = "echo 'host all locked 127.0.0.1/32 scram-sha-256' | cat - data/pg_hba.conf >hba && cat hba >data/pg_hba.conf";
    server.run(rule);
    let encrypted = offer_tls(&server, &client).await;
    for way in [encrypted, Way::InsecurePlaintext] {
        let open = async |password: &str| {
            let text = format!("postgres://locked:{password}@127.0.0.1:{}/{database}", server.port);
            let address = Address::parse(&text, &way).unwrap();
            PostgresStore::open(&address, &Options::default()).await.map_err(|error| error.to_string())
        };
        let refused = |told: String| told.contains("refuses the user or the password").then_some(told);
        let told = eventually("a wrong password is refused", async || {
            open("canary-wrong").await.err().and_then(refused)
        })
        .await;
        assert!(!told.contains("canary"), "SECRET: {told}");
        open("canary-right").await.unwrap().check().await.unwrap();
    }
}

/// Each failure to open names host, port, database and user, and one thing to do.
#[tokio::test]
async fn what_keeps_a_store_from_opening_says_where_and_what_to_do() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute("CREATE ROLE guest LOGIN; CREATE SCHEMA claviger").await.unwrap();
    let of_network = |text: String, way: &Way| Address::parse(&text, way).unwrap();
    let (socket, port, plain) = (server.text(&database), server.port, Way::InsecurePlaintext);
    let tcp =
        |port: u16| format!("host=127.0.0.1 port={port} user=claviger password=canary dbname={database}");
    let local = |text: String| of_network(text, &Way::Tls { authorities: None });
    let table = [
        (local(socket.replace(&database, "nowhere")), "there is no such database", "database nowhere"),
        (local(socket.replace("user=claviger", "user=nobody")), "refuses the user", "user nobody"),
        (local(socket.replace("user=claviger", "user=guest")), "the role lacks a right", "user guest"),
        (of_network(tcp(1), &plain), "is the database running", "127.0.0.1:1"),
        (local(tcp(port)), "turn TLS on", "127.0.0.1"),
    ];
    for (address, what, place) in table {
        let Err(error) = PostgresStore::open(&address, &Options::default()).await else {
            panic!("{what}: it opened")
        };
        let told = error.to_string();
        assert!(told.contains(what) && told.contains(place), "{what}: {told}");
        assert!(!told.contains("canary"), "SECRET: {told}");
    }
}
