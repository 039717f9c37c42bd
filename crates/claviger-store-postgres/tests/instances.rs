//! Several instances on one database.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::{collections::BTreeSet, sync::Arc};

use claviger_core::{AttemptId, Cause, EndReason, SessionId, Suspicion, Timestamp};
use claviger_store::{Item, ItemId, LeaseTerms, Leftover, Queue, Store, SuspicionKey, SweepKind};
use claviger_store_postgres::{Kind, OpenError, Options, PostgresStore};
use common::{ROOMY, server::Server, session, t};
use tokio::task::JoinSet;

mod common;

const INSTANCES: usize = 8;

/// Number of steps of the schema.
async fn steps(server: &Server) -> usize {
    let address = server.address(&server.database().await);
    PostgresStore::plan(&address, &Options::default()).await.unwrap().steps.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_instances_start_at_once_on_an_empty_database() {
    let server = Arc::new(Server::start(""));
    let steps = steps(&server).await;
    for _ in 0..3 {
        let address = server.address(&server.database().await);
        let mut starting = JoinSet::new();
        for _ in 0..INSTANCES {
            let address = address.clone();
            starting.spawn(async move {
                let options = Options { connections: 2, ..Options::default() };
                let applied = PostgresStore::migrate(&address, &options).await.unwrap().steps.len();
                (applied, PostgresStore::open(&address, &options).await.unwrap())
            });
        }
        let started = starting.join_all().await;
        let applied: usize = started.iter().map(|(applied, _)| applied).sum();
        assert_eq!(applied, steps, "each step was taken by one of them");
        for (_, store) in &started {
            assert_eq!(store.check().await, Ok(()));
        }
    }
}

const QUEUES: [Queue; 3] = [Queue::Slots(SweepKind::Validation), Queue::Revocations, Queue::Suspicions];

#[tokio::test]
async fn a_plan_lists_the_steps_and_changes_nothing() {
    let server = Server::start("");
    let database = server.database().await;
    let (address, options) = (server.address(&database), Options::default());
    let client = server.client(&database).await;
    let things = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('claviger')";
    let steps = steps(&server).await;
    for _ in 0..2 {
        let plan = PostgresStore::plan(&address, &options).await.unwrap();
        assert_eq!((plan.found, plan.steps.len(), plan.steps[0].kind), (0, steps, Kind::Expand));
        assert_eq!(client.query_one(things, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
    let done = PostgresStore::migrate(&address, &options).await.unwrap();
    assert_eq!(done, PostgresStore::plan(&server.address(&server.database().await), &options).await.unwrap());
    let plan = PostgresStore::plan(&address, &options).await.unwrap();
    assert_eq!((plan.found, plan.steps.len()), (i32::try_from(steps).unwrap(), 0));
}

#[tokio::test]
async fn a_newer_schema_is_used_if_it_allows_this_program() {
    let server = Server::start("");
    let database = server.database().await;
    let (address, options) = (server.address(&database), Options::default());
    PostgresStore::migrate(&address, &options).await.unwrap();
    let client = server.client(&database).await;
    let step = |number, kind, needs| {
        format!(
            "INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES ({number}, 'later', '{kind}', {needs})"
        )
    };
    let known = i32::try_from(steps(&server).await).unwrap();
    client.batch_execute(&step(known + 1, "expand", 0)).await.unwrap();
    client.batch_execute(&step(known + 2, "contract", known)).await.unwrap();
    let store = PostgresStore::open(&address, &options).await.unwrap();
    store.insert(session(1), ROOMY).await.unwrap();
    client.batch_execute(&step(known + 3, "contract", known + 1)).await.unwrap();
    let refused = PostgresStore::open(&address, &options).await;
    let Err(OpenError::Newer { found, needs, known: told }) = refused else { panic!("{refused:?}") };
    assert_eq!((found, needs, told), (known + 3, known + 1, known));
}

#[tokio::test]
async fn a_foreign_schema_is_left_alone() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute("CREATE SCHEMA claviger; CREATE TABLE claviger.recipe (name text)").await.unwrap();
    let refused = PostgresStore::open(&server.address(&database), &Options::default()).await;
    assert!(matches!(refused, Err(OpenError::Foreign)), "{refused:?}");
    client.batch_execute("DROP TABLE claviger.recipe").await.unwrap();
    PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_role_without_ownership_runs_on_an_existing_schema() {
    let server = Server::start("");
    let database = server.database().await;
    let options = Options::default();
    PostgresStore::migrate(&server.address(&database), &options).await.unwrap();
    let client = server.client(&database).await;
    let grants = "CREATE ROLE worker LOGIN; GRANT USAGE ON SCHEMA claviger TO worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA claviger TO worker";
    client.batch_execute(grants).await.unwrap();
    let text = server.text(&database).replace("user=claviger", "user=worker");
    let way = claviger_store_postgres::Way::Tls { authorities: None };
    let address = claviger_store_postgres::Address::parse(&text, &way).unwrap();
    let store = PostgresStore::open(&address, &options).await.unwrap();
    assert_eq!(store.check().await, Ok(()));
    let row = session(1);
    store.insert(row.clone(), ROOMY).await.unwrap();
    store.apply(&row.end(EndReason::SignedOut, t(9)).unwrap()).await.unwrap();
    assert_eq!(store.purge(Leftover::Tombstones, t(9000), 10).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_share_the_work_without_overlap() {
    let server = Server::start("");
    let address = server.address(&server.database().await);
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(Arc::new(PostgresStore::open(&address, &Options::default()).await.unwrap()));
    }
    let store = &instances[0];
    for tag in 0..200_u16 {
        // A slot of its own: the upper ten of the last 32 bits.
        let [a, b] = (tag << 6).to_be_bytes();
        let id = SessionId::new(t(i64::from(tag)), [1, 0, 0, 0, 0, 0, a, b, 0, 0]);
        let row = claviger_core::session::Session { id, ..session(u32::from(tag)) };
        let end = row.clone().end(EndReason::SignedOut, t(0)).unwrap();
        store.insert(row.clone(), ROOMY).await.unwrap();
        store.enqueue(&Item::Revocation(end.revocation().unwrap().clone())).await.unwrap();
        let suspicion = Suspicion { subject: row.subject, at: t(0), cause: Cause::ConnectionCheck };
        let mut key = [0; 32];
        key[..2].copy_from_slice(&tag.to_be_bytes());
        let key = SuspicionKey(key);
        store.enqueue(&Item::Suspicion { key, suspicion, noted_at: t(0) }).await.unwrap();
    }
    let mut working = JoinSet::new();
    for (which, store) in (0..).zip(&instances) {
        let (store, holder) = (Arc::clone(store), AttemptId([which; 16]));
        working.spawn(async move {
            let terms = LeaseTerms { holder, now: t(1), until: t(61), latest_due: t(1_000_000) };
            let mut taken = QUEUES.map(|_| Vec::new());
            for _ in 0..40 {
                for (queue, taken) in QUEUES.into_iter().zip(&mut taken) {
                    let leases = store.take(queue, terms, 3).await.unwrap();
                    taken.extend(leases.into_iter().map(|lease| lease.id));
                }
            }
            taken
        });
    }
    let all = working.join_all().await;
    for (index, queue) in QUEUES.into_iter().enumerate() {
        let taken: Vec<_> = all.iter().flat_map(|taken| &taken[index]).collect();
        let distinct: BTreeSet<_> = taken.iter().collect();
        assert_eq!((taken.len(), distinct.len()), (200, 200), "{queue:?}");
    }
    let shares: Vec<_> = all.iter().map(|taken| taken[0].len()).collect();
    assert!(shares.iter().all(|share| *share > 0), "all of them work: {shares:?}");
}

#[tokio::test]
async fn instances_agree_on_the_time_with_the_database() {
    let server = Server::start("");
    let database = server.database().await;
    let address = server.address(&database);
    let options = Options::default();
    let open = || PostgresStore::open(&address, &options);
    let (one, other) = (open().await.unwrap().clock(), open().await.unwrap().clock());
    let client = server.client(&database).await;
    let before = one.now();
    let asked = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let told = Timestamp::from_millis(client.query_one(asked, &[]).await.unwrap().get(0));
    let after = other.now();
    let slack = std::time::Duration::from_millis(250);
    assert!(before.before(slack) <= told && told <= after.after(slack), "{before:?} {told:?} {after:?}");
}

#[tokio::test]
async fn a_damaged_item_is_leased_and_delays_no_other() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let suspicion = Suspicion { subject: session(1).subject, at: t(0), cause: Cause::WebhookEvent };
    for tag in [1, 2] {
        let key = SuspicionKey([tag; 32]);
        let item = Item::Suspicion { key, suspicion: suspicion.clone(), noted_at: t(i64::from(tag)) };
        assert!(store.enqueue(&item).await.unwrap());
    }
    let damage = "UPDATE claviger.suspicion SET cause = 'nonsense' WHERE noted_at = $1";
    assert_eq!(client.execute(damage, &[&t(1).as_millis()]).await.unwrap(), 1);
    let take = async |now| {
        let terms = LeaseTerms {
            holder: AttemptId([1; 16]),
            now: t(now),
            until: t(now + 60),
            latest_due: t(1_000_000),
        };
        let taken = store.take(Queue::Suspicions, terms, 1).await.unwrap();
        taken.into_iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(take(10).await, [], "the damaged one is taken, and not returned");
    assert_eq!(take(11).await, [ItemId::Suspicion(SuspicionKey([2; 32]))]);
    assert_eq!(take(12).await, [], "both are leased");
}

/// The query plan depends on table statistics. The result must not.
#[tokio::test]
async fn the_limit_of_forgetting_holds_with_table_statistics() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let suspicion = Suspicion { subject: session(1).subject, at: t(0), cause: Cause::WebhookEvent };
    for tag in 0..6 {
        assert!(store.spend_login([tag; 32], t(0)).await.unwrap());
        let key = SuspicionKey([tag; 32]);
        let item = Item::Suspicion { key, suspicion: suspicion.clone(), noted_at: t(0) };
        assert!(store.enqueue(&item).await.unwrap());
        let terms =
            LeaseTerms { holder: AttemptId([1; 16]), now: t(1), until: t(2), latest_due: t(1_000_000) };
        for lease in store.take(Queue::Suspicions, terms, 1).await.unwrap() {
            assert!(lease.acknowledge(&store).await.unwrap());
        }
        if tag == 0 {
            client.batch_execute("ANALYZE claviger.spent_login, claviger.suspicion").await.unwrap();
        }
    }
    for _ in 0..3 {
        assert_eq!(store.purge(Leftover::SpentLogins, t(9), 1).await, Ok(1));
        assert_eq!(store.purge(Leftover::ClosedSuspicions, t(9), 1).await, Ok(1));
    }
    assert_eq!(store.purge(Leftover::SpentLogins, t(9), 100).await, Ok(3));
    assert_eq!(store.purge(Leftover::ClosedSuspicions, t(9), 100).await, Ok(3));
}
