//! The schema and its migrations.
//!
//! Several instances may start at once while instances of the previous version still run. So each
//! step is an expansion or a contraction. Programs that do not know an expansion go on working
//! beside it. A contraction removes what only older programs use, and is released after the last
//! program that used it.

use std::time::Duration;

use claviger_store::StoreError;

use crate::{
    database::{Database, PooledConnection, bounds, gateways},
    error::{Fault, OpenError},
    values::Columns,
};

/// Advisory lock for changes of the schema. The number is "Clav" and a 1.
const LOCK: i64 = 0x436c_6176_0000_0001;

/// The oldest supported version of PostgreSQL.
const OLDEST: i32 = 13;

/// A step of the schema.
struct Migration {
    name: &'static str,
    kind: Kind,
    sql: &'static str,
}

/// What a step of the schema means to programs that do not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They go on working.
    Expand,
    /// Programs that know fewer steps than this number stop working.
    Contract {
        /// Number of steps that a program has to know.
        needs: i32,
    },
}

/// All steps of the schema, in order. A released step never changes. The schema's number is their
/// count.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "sessions", kind: Kind::Expand, sql: include_str!("../migrations/0001_sessions.sql") },
    Migration {
        name: "claims beside the proof",
        kind: Kind::Expand,
        sql: include_str!("../migrations/0002_claims_beside_the_proof.sql"),
    },
    Migration {
        name: "claims left their table",
        kind: Kind::Contract { needs: 2 },
        sql: include_str!("../migrations/0003_claims_left_their_table.sql"),
    },
    Migration {
        name: "an end is final",
        kind: Kind::Expand,
        sql: include_str!("../migrations/0004_an_end_is_final.sql"),
    },
];

/// A step that a database lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: i32,
    /// What it is about.
    pub name: &'static str,
    /// What it means to older programs.
    pub kind: Kind,
}

/// The steps that bring a database to the newest schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The database's schema; 0 if it has none.
    pub found: i32,
    /// The steps that are missing, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// If a release was skipped, the schema that a gateway has to know afterwards. A running
    /// gateway may know only an older one.
    pub fn leaves_out(&self) -> Option<i32> {
        let needs = self.steps.iter().filter_map(Step::needs).max();
        needs.filter(|needs| self.found > 0 && self.found < *needs)
    }
}

impl Step {
    /// The schema that a program has to know after this step, if it is a contraction.
    fn needs(&self) -> Option<i32> {
        match self.kind {
            Kind::Expand => None,
            Kind::Contract { needs } => Some(needs),
        }
    }
}

const SERVER: &str = "SELECT current_setting('server_version_num')::integer / 10000";
// Asks the catalogue first, since a query of a missing table is an error.
const PRESENT: &str = "SELECT to_regclass('claviger.schema_step') IS NOT NULL, count(*),
        coalesce(bool_and(pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE'))
            FILTER (WHERE relname IN ('schema_step', 'session', 'pulse', 'claim')), true)
    FROM pg_class WHERE relnamespace = to_regnamespace('claviger')";
const FOUND: &str = "SELECT coalesce(max(number), 0), coalesce(max(needs), 0) FROM claviger.schema_step";
// Creating a schema takes a right that our role may lack if an administrator created it already.
const CREATE_SCHEMA: &str = "
    DO $$ BEGIN IF to_regnamespace('claviger') IS NULL THEN CREATE SCHEMA claviger; END IF; END $$;
    CREATE TABLE IF NOT EXISTS claviger.schema_step (
        number      integer NOT NULL PRIMARY KEY,
        name        text NOT NULL,
        kind        text NOT NULL CHECK (kind IN ('expand', 'contract')),
        -- Number of steps that a program must know to work with the schema after this one.
        needs       integer NOT NULL,
        applied_at  timestamptz NOT NULL DEFAULT now()
    )";
/// A statement that waits for a whole table blocks all later ones. So a step waits only this long.
const WAIT_FOR_TABLES: &str = "SET LOCAL lock_timeout = '300ms'";
/// Now and then it waits longer, so the database cancels an automatic vacuum that is in the way.
const WAIT_FOR_VACUUM: &str = "SELECT set_config('lock_timeout', (setting::integer + 300)::text, true)
    FROM pg_settings WHERE name = 'deadlock_timeout'";
/// The first try and every fifth one after it wait longer.
const PATIENT_TRY: u32 = 5;
/// Pause between two tries, during which other statements proceed.
const LET_BY: Duration = Duration::from_secs(2);
/// Maximum number of tries: nine minutes in all, enough for a backup to finish.
const TRIES: u32 = 220;
const APPLIED: &str = "INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES ($1, $2, $3, $4)";

/// Plans the missing steps. Changes nothing.
pub(crate) async fn plan(database: &Database) -> Result<Plan, OpenError> {
    judge(database.read("read the schema", inspect).await?)
}

/// Why the schema changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A gateway starts, maybe beside others.
    Start,
    /// The operator ran the command.
    Command,
}

/// Brings the database to the newest schema, and returns the steps taken.
pub(crate) async fn migrate(database: &Database, occasion: Occasion) -> Result<Plan, OpenError> {
    let planned = plan(database).await?;
    if planned.steps.is_empty() {
        return Ok(planned);
    }
    let own = database.clone();
    let task = tokio::spawn(async move { advance(&own, occasion).await });
    let cut_short = |_| StoreError::Unavailable("the schema migration was interrupted".to_owned());
    let done = task.await.map_err(cut_short)??;
    if !done.steps.is_empty() {
        tracing::info!(from = done.found, to = newest(), "the session store has a new schema");
    }
    Ok(done)
}

/// Takes each step in a transaction of its own, so no step holds a table while the next one waits
/// for another.
async fn advance(database: &Database, occasion: Occasion) -> Result<Plan, OpenError> {
    let opening = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCK})");
    let mut done: Option<Plan> = None;
    loop {
        let work = |connection| inspect_and_advance(connection, occasion);
        let taken = database.transact("migrate", &opening, work).await??;
        let is_last = taken.steps.is_empty();
        let plan = done.get_or_insert(Plan { found: taken.found, steps: Vec::new() });
        plan.steps.extend(taken.steps);
        if is_last {
            return Ok(plan.clone());
        }
    }
}

/// Plans again, since another instance may have been first, and takes the next step. All steps run
/// in one transaction only on an empty database or when a release was skipped. Then a crash leaves
/// neither a half-made schema nor one that hides the skipped release.
async fn inspect_and_advance(
    connection: PooledConnection,
    occasion: Occasion,
) -> Result<Result<Plan, OpenError>, Fault> {
    let found = inspect(connection.clone()).await?;
    let is_owner = found.is_owner;
    let mut plan = match judge(found) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if plan.steps.is_empty() {
        return Ok(Ok(plan));
    }
    if !is_owner {
        return Ok(Err(OpenError::NotOwner));
    }
    let left_out = plan.leaves_out();
    if let Some(refusal) = refused(&connection, plan.found, occasion, left_out).await? {
        return Ok(Err(refusal));
    }
    if plan.found > 0 && left_out.is_none() {
        plan.steps.truncate(1);
    }
    connection.run(CREATE_SCHEMA).await?;
    take(&connection, &plan).await?;
    // A gateway may have connected while the steps waited.
    if let Some(refusal) = refused(&connection, plan.found, occasion, left_out).await? {
        connection.run("ROLLBACK TO SAVEPOINT steps").await?;
        return Ok(Err(refusal));
    }
    for step in &plan.steps {
        note(&connection, step).await?;
    }
    Ok(Ok(plan))
}

/// Refuses steps that would break gateways more than one release old.
async fn refused(
    connection: &PooledConnection,
    found: i32,
    occasion: Occasion,
    left_out: Option<i32>,
) -> Result<Option<OpenError>, Fault> {
    let Some(needs) = left_out else { return Ok(None) };
    if occasion == Occasion::Start {
        return Ok(Some(OpenError::LeavesOut { found, needs }));
    }
    let connected = gateways(connection).await?;
    Ok((connected > 0).then_some(OpenError::GatewaysConnected { found, needs, connected }))
}

/// What the database holds.
struct Found {
    server: i32,
    /// Whether our schema holds objects that are not ours.
    foreign: bool,
    /// Whether our role may change the existing tables.
    is_owner: bool,
    number: i32,
    needs: i32,
}

async fn inspect(connection: PooledConnection) -> Result<Found, Fault> {
    let server = Columns::of(&connection.query_one(SERVER, &bounds![]).await?, "the server").take()?;
    let present = connection.query_one(PRESENT, &bounds![]).await?;
    let mut columns = Columns::of(&present, "the schema");
    let (ours, things): (bool, i64) = (columns.take()?, columns.take()?);
    let is_owner = columns.take()?;
    if !ours {
        return Ok(Found { server, foreign: things > 0, is_owner, number: 0, needs: 0 });
    }
    let found = connection.query_one(FOUND, &bounds![]).await?;
    let mut columns = Columns::of(&found, "the schema");
    Ok(Found { server, foreign: false, is_owner, number: columns.take()?, needs: columns.take()? })
}

fn judge(found: Found) -> Result<Plan, OpenError> {
    let known = newest();
    if found.server < OLDEST {
        return Err(OpenError::OldPostgres { found: found.server });
    }
    if found.foreign {
        return Err(OpenError::Foreign);
    }
    if found.needs > known {
        return Err(OpenError::Newer { found: found.number, needs: found.needs, known });
    }
    let steps = missing(found.number);
    let steps = steps.map(|(number, step)| Step { number, name: step.name, kind: step.kind });
    Ok(Plan { found: found.number, steps: steps.collect() })
}

/// The steps that a database of this schema lacks, with their numbers.
fn missing(found: i32) -> impl Iterator<Item = (i32, &'static Migration)> {
    (1..).zip(MIGRATIONS).filter(move |(number, _)| *number > found)
}

/// Takes all steps of the plan as soon as the tables that they need are free.
async fn take(connection: &PooledConnection, plan: &Plan) -> Result<(), Fault> {
    connection.run("SAVEPOINT steps").await?;
    let mut tries = 1;
    loop {
        connection.run(if tries % PATIENT_TRY == 1 { WAIT_FOR_VACUUM } else { WAIT_FOR_TABLES }).await?;
        match run(connection, plan).await {
            Err(fault) if fault.is_kept_waiting() && tries < TRIES => {}
            done => return done,
        }
        connection.run("ROLLBACK TO SAVEPOINT steps").await?;
        let steps = plan.steps.len();
        tracing::info!(from = plan.found, steps, tries, "a schema migration waits for a locked table");
        tokio::time::sleep(LET_BY).await;
        tries += 1;
    }
}

async fn run(connection: &PooledConnection, plan: &Plan) -> Result<(), Fault> {
    for (_, migration) in missing(plan.found).take(plan.steps.len()) {
        connection.run(migration.sql).await?;
    }
    Ok(())
}

/// Records that a step was taken.
async fn note(connection: &PooledConnection, step: &Step) -> Result<(), Fault> {
    let (kind, needs) = step.needs().map_or(("expand", 0), |needs| ("contract", needs));
    connection
        .execute(APPLIED, &bounds![INT4: step.number, TEXT: step.name, TEXT: kind, INT4: needs])
        .await?;
    Ok(())
}

fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: Found) -> Result<usize, String> {
        judge(found).map(|plan| plan.steps.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_schema_is_judged_by_what_it_needs() {
        let known = newest();
        let usual = Found { server: 15, foreign: false, is_owner: true, number: 0, needs: 0 };
        assert_eq!(told(Found { ..usual }), Ok(MIGRATIONS.len()));
        assert_eq!(told(Found { number: known, ..usual }), Ok(0));
        assert_eq!(told(Found { number: known + 3, needs: known, ..usual }), Ok(0), "expanded since");
        let refused = told(Found { number: known + 3, needs: known + 1, ..usual }).unwrap_err();
        assert!(refused.contains("use the newer version"), "{refused}");
        assert!(told(Found { server: 12, ..usual }).unwrap_err().contains("at least 13"));
        assert!(told(Found { foreign: true, ..usual }).unwrap_err().contains("nothing was changed"));
    }

    #[test]
    fn a_contraction_needs_no_program_that_does_not_exist_yet() {
        for (number, migration) in (1..).zip(MIGRATIONS) {
            if let Kind::Contract { needs } = migration.kind {
                assert!(needs < number, "{}: the release before has to go on working", migration.name);
            }
        }
    }
}
