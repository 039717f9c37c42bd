//! Capacity of one PostgreSQL database, beside pgbench with equivalent updates of single rows. It
//! is measured with few and with many sessions, in turns on the same server. Also the size of
//! sessions on disk, and the session check beside the same gateway with SQLite.
//!
//! The server is started for this, durable, with default settings except 512 MB of shared buffers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use claviger_core::{AttemptId, Claim, Fingerprint, SealedPair, Session, Timestamp};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::{
    Applied, Store,
    archive::{Archive as _, Record},
};
use claviger_store_postgres::{Options as StoreOptions, PostgresStore};
use tokio::{process::Command, task::JoinSet};

use crate::{
    fill::{self, Filling, random},
    gateway::Gateway,
    load::{Load, Measured},
};

#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the server of the tests; a benchmark may panic as a test does"
)]
#[path = "../../crates/claviger-store-postgres/tests/common/server.rs"]
mod server;

use server::Server;

const SETTINGS: &str = "fsync = on\nfull_page_writes = on\nshared_buffers = 512MB";
const CONNECTIONS: usize = 16;
/// Number of sessions that a measurement uses, spread evenly over all.
const IN_USE: usize = 64_000;
/// Rows in one batch when a database is filled.
const BATCH: usize = 1_000;
/// Rows in one statement with batching, the most that the sweep writes for a slot at once.
const PROOFS: usize = 200;
/// Concurrent refreshes with batching.
const CROWD: usize = 256;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The gateway's binary, built for release
    #[arg(long)]
    gateway: PathBuf,
    /// Number of sessions in the larger database
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u32,
    /// Number of sessions in the smaller one
    #[arg(long, default_value_t = 10_000)]
    few: u32,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Rounds of measurements, in turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let server = Server::start(SETTINGS);
    checks(options, &server).await?;
    let few = Database::filled(&server, options.few).await?;
    let many = Database::filled(&server, options.sessions).await?;
    let mut runs: Vec<[Vec<f64>; 2]> = vec![Default::default(); Work::ALL.len()];
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        for (work, [of_few, of_many]) in Work::ALL.iter().zip(&mut runs) {
            of_few.push(few.measure(&server, *work, options.seconds).await?);
            of_many.push(many.measure(&server, *work, options.seconds).await?);
        }
    }
    print(options, &runs);
    many.print_sizes(&server).await
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// pgbench: two updates of a row by its key, each a commit. A refresh writes more.
    BareRefresh,
    /// pgbench: the same, with a large row in the second update, as for a new pair.
    BarePair,
    /// A session that is claimed and given a new pair, each written alone. Its row is in memory.
    Refresh,
    /// The same, written together with those of other sessions.
    Refreshes,
    /// pgbench: one row updated by its key.
    BareUpdate,
    /// A proof, written alone.
    Proof,
    /// pgbench: the same number of rows in one statement, at the same distance.
    BareUpdates,
    /// Many proofs in one statement.
    Proofs,
    /// pgbench: one row read by its key.
    BareRead,
    /// A session read.
    Read,
}

impl Work {
    const ALL: [Self; 10] = [
        Self::BareRefresh,
        Self::BarePair,
        Self::Refresh,
        Self::Refreshes,
        Self::BareUpdate,
        Self::Proof,
        Self::BareUpdates,
        Self::Proofs,
        Self::BareRead,
        Self::Read,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BareRefresh => "pgbench: two updates",
            Self::BarePair => "pgbench: the same, three rows",
            Self::Refresh => "refreshes, each written alone",
            Self::Refreshes => "refreshes, 256 at a time",
            Self::BareUpdate => "pgbench: an update",
            Self::BareUpdates => "pgbench: 200 updates at a time",
            Self::BareRead => "pgbench: a read",
            Self::Proof => "validations, one at a time",
            Self::Proofs => "validations, 200 at a time",
            Self::Read => "reads of a session",
        }
    }

    /// Its baseline, and the ratio to reach.
    const fn floor(self) -> Option<(Self, &'static str)> {
        match self {
            Self::BarePair => Some((Self::BareRefresh, "")),
            Self::Refresh => Some((Self::BarePair, "0.70")),
            Self::Proof => Some((Self::BareUpdate, "0.70")),
            Self::Refreshes => Some((Self::BarePair, "more")),
            Self::Proofs | Self::BareUpdates => Some((Self::BareUpdate, "more")),
            Self::Read => Some((Self::BareRead, "")),
            Self::BareRefresh | Self::BareUpdate | Self::BareRead => None,
        }
    }

    /// The script of pgbench.
    const fn script(self) -> Option<&'static str> {
        const UPDATE: &str =
            "UPDATE floor SET version = version + 1, proven_at = :at WHERE id = :id AND version > 0;\n";
        match self {
            Self::BareUpdate => Some(UPDATE),
            Self::BareRefresh => Some(
                "UPDATE floor SET version = version + 1, proven_at = :at WHERE id = :id AND version > 0;\n\
                 UPDATE floor SET version = version + 1, proven_at = :at WHERE id = :id AND version > 0;\n",
            ),
            Self::BarePair => Some(
                "UPDATE floor SET version = version + 1, proven_at = :at WHERE id = :id AND version > 0;\n\
                 WITH moved AS (UPDATE floor SET version = version + 1, proven_at = :at \
                     WHERE id = :id AND version > 0 RETURNING id) \
                 UPDATE floor_body SET body = lpad(:at::text, 350, 'x') WHERE id = :id AND EXISTS (SELECT FROM moved);\n",
            ),
            Self::BareUpdates => Some(
                "UPDATE floor SET version = version + 1, proven_at = :at FROM generate_series(0, 199) AS row \
                 WHERE id = 1 + (:client_id + :clients * (:first + row)) * :stride AND version > 0;\n",
            ),
            Self::BareRead => Some("SELECT * FROM floor WHERE id = :id;\n"),
            Self::Refresh | Self::Refreshes | Self::Proof | Self::Proofs | Self::Read => None,
        }
    }

    /// The number of operations in one transaction of pgbench.
    const fn rows(self) -> f64 {
        match self {
            Self::BareUpdates => 200.0,
            _ => 1.0,
        }
    }

    /// The number of concurrent workers.
    const fn callers(self) -> usize {
        match self {
            Self::Refreshes => CROWD,
            _ => CONNECTIONS,
        }
    }
}

fn print(options: &Options, runs: &[[Vec<f64>; 2]]) {
    let median = |runs: &Vec<f64>| {
        let runs: Vec<_> =
            runs.iter().map(|run| Measured { per_second: *run, ..Measured::default() }).collect();
        Measured::median(&runs).per_second
    };
    let medians: Vec<_> = runs.iter().map(|[few, many]| [median(few), median(many)]).collect();
    let of = |work: Work| {
        let found = Work::ALL.iter().zip(&medians).find(|(one, _)| **one == work);
        found.map_or([1.0, 1.0], |(_, medians)| *medians)
    };
    println!(
        "\n{:<34}{:>12}{:>8}{:>12}{:>8}{:>10}{:>12}",
        "a second, sessions:", options.few, "ratio", options.sessions, "ratio", "to reach", "many/few"
    );
    for work in Work::ALL {
        let [few, many] = of(work);
        let (ratios, reach) = match work.floor() {
            Some((floor, reach)) => {
                let [few_floor, many_floor] = of(floor);
                ([format!("{:.2}", few / few_floor), format!("{:.2}", many / many_floor)], reach)
            }
            None => Default::default(),
        };
        let [of_few, of_many] = ratios;
        println!(
            "{:<34}{few:>12.0}{of_few:>8}{many:>12.0}{of_many:>8}{reach:>10}{:>12.2}",
            work.name(),
            many / few
        );
    }
}

/// The distance between two sessions in use.
fn stride(count: u32) -> usize {
    (count as usize / IN_USE).max(1)
}

/// A database with sessions, and tables of the same size for pgbench. Those are not vacuumed:
/// vacuum would slow pgbench down, and a few rows that always change do not need it.
struct Database {
    name: String,
    count: u32,
    /// Writes each change alone.
    store: Arc<PostgresStore>,
    /// Writes concurrent changes together.
    gathering: Arc<PostgresStore>,
    /// The sessions in use, as they are stored.
    in_use: tokio::sync::Mutex<Vec<Session>>,
}

impl Database {
    async fn filled(server: &Server, count: u32) -> Result<Self> {
        println!("filling a database with {count} sessions");
        let name = server.database().await;
        // A quarter of the connections is kept for reads, so the number of writers is that of
        // pgbench.
        let options = StoreOptions { connections: CONNECTIONS * 4 / 3, ..StoreOptions::default() };
        let alone = StoreOptions { writers: usize::MAX, ..options.clone() };
        let store = Arc::new(PostgresStore::open(&server.address(&name), &alone).await?);
        let gathering = Arc::new(PostgresStore::open(&server.address(&name), &options).await?);
        let ring = Keyring::new(vec![RootKey::new(KeyId(1), random()?)])?;
        let mut in_use = Vec::new();
        let stride = stride(count);
        let mut batch = Vec::with_capacity(BATCH);
        for number in 0..count {
            let (session, _) = fill::session(&ring, Filling::made_up(number)?)?;
            if (number as usize).is_multiple_of(stride) {
                in_use.push(session.clone());
            }
            batch.push(Record::Session(session));
            if batch.len() == BATCH || number + 1 == count {
                store.add(std::mem::take(&mut batch)).await?;
            }
        }
        store.prepare_to_serve().await?;
        let client = server.client(&name).await;
        let floor = format!(
            "CREATE TABLE floor (version bigint NOT NULL, proven_at bigint NOT NULL, id integer PRIMARY KEY, filler text NOT NULL)
                 WITH (fillfactor = 75, autovacuum_enabled = false);
             INSERT INTO floor SELECT 1, 0, id, repeat('x', 40) FROM generate_series(1, {count}) AS id;
             CREATE TABLE floor_body (id integer PRIMARY KEY, body text NOT NULL) WITH (fillfactor = 85, autovacuum_enabled = false);
             INSERT INTO floor_body SELECT id, repeat('x', 350) FROM generate_series(1, {count}) AS id"
        );
        for statement in [floor.as_str(), "VACUUM ANALYZE", "CHECKPOINT"] {
            client.batch_execute(statement).await?;
        }
        Ok(Self { name, count, store, gathering, in_use: tokio::sync::Mutex::new(in_use) })
    }

    async fn measure(&self, server: &Server, work: Work, seconds: u32) -> Result<f64> {
        match work.script() {
            Some(script) => Ok(work.rows() * self.pgbench(server, script, seconds).await?),
            None => self.store_works(work, seconds).await,
        }
    }

    async fn pgbench(&self, server: &Server, script: &str, seconds: u32) -> Result<f64> {
        let file = tempfile::NamedTempFile::new()?;
        let stride = stride(self.count);
        // Each client has its own rows among those in use. A batch may begin up to this far from
        // the first.
        let last = (self.count as usize / stride / CONNECTIONS).saturating_sub(PROOFS + 1);
        let draws = format!(
            "\\set id random(1, {})\n\\set at random(1, 1000000000)\n\\set first random(0, {last})\n\
             \\set clients {CONNECTIONS}\n\\set stride {stride}\n",
            self.count
        );
        std::fs::write(file.path(), draws + script)?;
        // Debian has it on the PATH, or beside the server's other programs.
        let beside_the_server = server::binaries().join("pgbench");
        let program = if beside_the_server.is_file() { beside_the_server } else { "pgbench".into() };
        let output = Command::new(program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--username=claviger"])
            .arg(format!("--client={CONNECTIONS}"))
            .arg(format!("--time={seconds}"))
            .arg(format!("--host={}", server.directory().display()))
            .arg(format!("--port={}", server.port))
            .arg("--file")
            .arg(file.path())
            .arg(&self.name)
            .output()
            .await
            .context("pgbench comes with PostgreSQL")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
        let line =
            text.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench printed no tps")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark looks at real time")]
    async fn store_works(&self, work: Work, seconds: u32) -> Result<f64> {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut in_use = self.in_use.lock().await;
        let mut hands = vec![Vec::new(); work.callers()];
        for (place, session) in in_use.drain(..).enumerate() {
            let hand = place % hands.len();
            if let Some(hand) = hands.get_mut(hand) {
                hand.push(session);
            }
        }
        let store = if work == Work::Refreshes { &self.gathering } else { &self.store };
        let mut tasks = JoinSet::new();
        let begun = std::time::Instant::now();
        for hand in hands {
            let (store, done, stop) = (Arc::clone(store), Arc::clone(&done), Arc::clone(&stop));
            tasks.spawn(async move { go_through(hand, work, &store, &done, &stop).await });
        }
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        stop.store(true, Ordering::Relaxed);
        let (count, took) = (done.load(Ordering::Relaxed), begun.elapsed());
        while let Some(hand) = tasks.join_next().await {
            in_use.extend(hand??);
        }
        // In the order of creation, so that the same measurement precedes each.
        in_use.sort_unstable_by_key(|session| session.id);
        Ok(count as f64 / took.as_secs_f64())
    }

    async fn print_sizes(&self, server: &Server) -> Result<()> {
        let sizes = "SELECT relname::text, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
            WHERE relnamespace = 'claviger'::regnamespace AND relkind = 'r' ORDER BY pg_total_relation_size(oid) DESC LIMIT 3";
        let per_million = |bytes: i64| bytes as f64 / f64::from(self.count);
        println!("\n{:<34}{:>12}{:>12}", "MB for a million sessions", "rows", "indexes");
        let mut all = 0.0;
        for row in server.client(&self.name).await.query(sizes, &[]).await? {
            let (table, rows, indexes) =
                (row.get::<_, String>(0), per_million(row.get(1)), per_million(row.get(2)));
            println!("{table:<34}{rows:>12.0}{indexes:>12.0}");
            all += rows + indexes;
        }
        println!("{:<34}{all:>12.0}", "together");
        Ok(())
    }
}

/// Works on sessions in turn until stopped, and returns them as they are stored then.
async fn go_through(
    mut hand: Vec<Session>,
    work: Work,
    store: &PostgresStore,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Result<Vec<Session>> {
    let at_once = if work == Work::Proofs { PROOFS } else { 1 };
    let mut from = 0;
    while !stop.load(Ordering::Relaxed) {
        if from + at_once > hand.len() {
            ensure!(from > 0, "too few sessions for {work:?}");
            from = 0;
        }
        let rows = hand.get_mut(from..from + at_once).unwrap_or_default();
        work_on(rows, work, store).await?;
        from += at_once;
        done.fetch_add(rows_of(at_once)?, Ordering::Relaxed);
    }
    Ok(hand)
}

fn rows_of(count: usize) -> Result<u64> {
    Ok(u64::try_from(count)?)
}

async fn work_on(rows: &mut [Session], work: Work, store: &PostgresStore) -> Result<()> {
    let now = fill::now()?;
    match work {
        Work::Proof | Work::Proofs => {
            let mut proofs = Vec::with_capacity(rows.len());
            for row in rows.iter() {
                let generation = row.generation().context("a session has a pair")?;
                proofs.push(row.clone().prove(generation, now)?);
            }
            ensure!(store.apply_all(&proofs).await?.into_iter().all(|written| written), "a row moved on");
            for (row, proof) in rows.iter_mut().zip(proofs) {
                *row = proof.into_next();
            }
        }
        Work::Refresh | Work::Refreshes => {
            for row in rows {
                *row = refresh(row, now, store).await?;
            }
        }
        Work::Read => {
            for row in rows {
                store.load(row.id).await?.context("a row is missing")?;
            }
        }
        Work::BareRefresh | Work::BarePair | Work::BareUpdate | Work::BareUpdates | Work::BareRead => {
            bail!("pgbench does that")
        }
    }
    Ok(())
}

async fn refresh(row: &Session, now: Timestamp, store: &PostgresStore) -> Result<Session> {
    let attempt = AttemptId(random()?);
    let claim = Claim {
        attempt,
        taken_at: now,
        lease_until: now.after(Duration::from_secs(30)),
        fingerprint: Fingerprint(random()?),
        replay: false,
        answer_lost: false,
    };
    let claim = row.clone().claim(claim)?;
    ensure!(store.apply(&claim).await? == Applied::Done, "a row moved on");
    let claimed = claim.into_next();
    let sent = claimed.generation();
    let pair = claimed.pair().context("a session has a pair")?.clone();
    let rotated = claimed.rotate(attempt, sent, now, |generation| SealedPair { generation, ..pair })?;
    ensure!(store.apply(&rotated).await? == Applied::Done, "a row moved on");
    Ok(rotated.into_next())
}

/// The session check with a warm cache, on both stores in turns.
async fn checks(options: &Options, server: &Server) -> Result<()> {
    println!("filling two gateways with {} sessions", options.few);
    let sqlite = Gateway::start(&options.gateway, options.few).await?;
    let name = server.database().await;
    let store = PostgresStore::open(&server.address(&name), &StoreOptions::default()).await?;
    let setting = format!("url = \"{}\"", server.text(&name));
    let directory = tempfile::TempDir::new()?;
    let postgres =
        Gateway::with_store(&options.gateway, options.few, directory, Arc::new(store), &setting, None)
            .await?;
    let mut runs = [const { Vec::new() }; 2];
    let warm = |gateway: &Gateway| Load::new(gateway.cookies().get(..1_000).unwrap_or(gateway.cookies()), 2);
    let loads = [warm(&sqlite)?, warm(&postgres)?];
    for round in 1..=options.rounds * 2 {
        println!("session checks: round {round} of {}", options.rounds * 2);
        for ((gateway, load), runs) in [&sqlite, &postgres].into_iter().zip(&loads).zip(&mut runs) {
            runs.push(gateway.measure(load, "session").await?);
        }
    }
    let [on_sqlite, on_postgres] = &runs;
    let ratios: Vec<_> = on_postgres.iter().zip(on_sqlite).map(|(run, beside)| run.beside(beside)).collect();
    println!(
        "\n{:<34}{:>12}{:>8}{:>10}{:>10}",
        "session checks, warm cache", "a second", "ratio", "to reach", "p99 ms"
    );
    let (sqlite, postgres) = (Measured::median(on_sqlite), Measured::median(on_postgres));
    println!("{:<34}{:>12.0}{:>8.2}{:>10}{:>10.2}", "SQLite", sqlite.per_second, 1.0, "", sqlite.p99_millis);
    let ratio = Measured::median(&ratios).per_second;
    println!(
        "{:<34}{:>12.0}{ratio:>8.2}{:>10}{:>10.2}\n",
        "PostgreSQL", postgres.per_second, "0.90", postgres.p99_millis
    );
    Ok(())
}
