//! The tables, and how a database comes to have them.
//!
//! Several instances may start at once, and instances of the previous version may still be running: so a step of the schema is
//! either an expansion, which programs that do not know it go on working beside, or a contraction, which takes away what only
//! older programs use. A contraction is released after the last program that used it.

use std::time::Duration;

use claviger_store::StoreError;

use crate::{
    database::{Database, Link, bounds, gateways},
    error::{Fault, OpenError},
    values::Columns,
};

/// Taken while the schema is changed. A number of our own: "Clav" and a 1.
const LOCK: i64 = 0x436c_6176_0000_0001;

/// The oldest PostgreSQL that is used.
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
    /// Those stop working that know fewer steps than this number.
    Contract {
        /// So many steps a program has to know.
        needs: i32,
    },
}

/// Each step of the schema once, in order; a step that was released never changes. The schema's number is their count.
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

/// A step of the schema that a database does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: i32,
    /// What it is about.
    pub name: &'static str,
    /// What it means to older programs.
    pub kind: Kind,
}

/// What has to be done so that a database has the newest schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The schema that it has; 0 is none.
    pub found: i32,
    /// The steps that are missing, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The number of the schema that a gateway has to know from then on, where a release was left out: one that is at the database
    /// now may know only an older one.
    pub fn leaves_out(&self) -> Option<i32> {
        let needs = self.steps.iter().filter_map(Step::needs).max();
        needs.filter(|needs| self.found > 0 && self.found < *needs)
    }
}

impl Step {
    /// The schema that a program has to know once this step is taken, where it takes something away.
    fn needs(&self) -> Option<i32> {
        match self.kind {
            Kind::Expand => None,
            Kind::Contract { needs } => Some(needs),
        }
    }
}

const SERVER: &str = "SELECT current_setting('server_version_num')::integer / 10000";
// The catalogue is asked first, since a question about a table that is not there is an error.
const PRESENT: &str = "SELECT to_regclass('claviger.schema_step') IS NOT NULL, count(*),
        coalesce(bool_and(pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE'))
            FILTER (WHERE relname IN ('schema_step', 'session', 'pulse', 'claim')), true)
    FROM pg_class WHERE relnamespace = to_regnamespace('claviger')";
const FOUND: &str = "SELECT coalesce(max(number), 0), coalesce(max(needs), 0) FROM claviger.schema_step";
// To make a schema takes a right that who runs the program may lack where an administrator made it already.
const BEGIN_ANEW: &str = "
    DO $$ BEGIN IF to_regnamespace('claviger') IS NULL THEN CREATE SCHEMA claviger; END IF; END $$;
    CREATE TABLE IF NOT EXISTS claviger.schema_step (
        number      integer NOT NULL PRIMARY KEY,
        name        text NOT NULL,
        kind        text NOT NULL CHECK (kind IN ('expand', 'contract')),
        -- A program has to know so many steps to work with the schema that this one leaves behind.
        needs       integer NOT NULL,
        applied_at  timestamptz NOT NULL DEFAULT now()
    )";
/// Everybody waits who comes after somebody that waits for a whole table. So a step waits this long only.
const WAIT_FOR_TABLES: &str = "SET LOCAL lock_timeout = '300ms'";
/// But now and then so long that the database stops an automatic vacuum that is in the way.
const WAIT_FOR_VACUUM: &str = "SELECT set_config('lock_timeout', (setting::integer + 300)::text, true)
    FROM pg_settings WHERE name = 'deadlock_timeout'";
/// At the first try, and at every so many-th after it.
const PATIENT_TRY: u32 = 5;
/// Then it lets the others by for so long, and is tried again,
const LET_BY: Duration = Duration::from_secs(2);
/// at most so often: for nine minutes, as a backup may take that somebody is at.
const TRIES: u32 = 220;
const APPLIED: &str = "INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES ($1, $2, $3, $4)";

/// What is missing. Changes nothing.
pub(crate) async fn plan(database: &Database) -> Result<Plan, OpenError> {
    judge(database.read("read the schema", inspect).await?)
}

/// What makes the schema change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A gateway starts, maybe beside others.
    Start,
    /// The operator says so.
    Command,
}

/// Brings the database to the newest schema, and says what was done.
pub(crate) async fn migrate(database: &Database, occasion: Occasion) -> Result<Plan, OpenError> {
    let planned = plan(database).await?;
    if planned.steps.is_empty() {
        return Ok(planned);
    }
    let own = database.clone();
    let task = tokio::spawn(async move { advance(&own, occasion).await });
    let cut_short = |_| StoreError::Unavailable("the change of the schema was cut short".to_owned());
    let done = task.await.map_err(cut_short)??;
    if !done.steps.is_empty() {
        tracing::info!(from = done.found, to = newest(), "the session store has a new schema");
    }
    Ok(done)
}

/// Takes one step after the other, each in a transaction of its own: so none keeps a table from others while the next one waits for
/// another.
async fn advance(database: &Database, occasion: Occasion) -> Result<Plan, OpenError> {
    let opening = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCK})");
    let mut done: Option<Plan> = None;
    loop {
        let work = |link| inspect_and_advance(link, occasion);
        let taken = database.transact("migrate", &opening, work).await??;
        let is_last = taken.steps.is_empty();
        let plan = done.get_or_insert(Plan { found: taken.found, steps: Vec::new() });
        plan.steps.extend(taken.steps);
        if is_last {
            return Ok(plan.clone());
        }
    }
}

/// Looks again, since another instance may have been first, and takes the next step. Several at once only where there is nobody to wait
/// for a table: an empty database, which is not to be found half made, and one where a release is left out, which is not to be
/// found where nothing tells of that any more.
async fn inspect_and_advance(link: Link, occasion: Occasion) -> Result<Result<Plan, OpenError>, Fault> {
    let found = inspect(link.clone()).await?;
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
    if let Some(refusal) = refused(&link, plan.found, occasion, left_out).await? {
        return Ok(Err(refusal));
    }
    if plan.found > 0 && left_out.is_none() {
        plan.steps.truncate(1);
    }
    link.run(BEGIN_ANEW).await?;
    take(&link, &plan).await?;
    // Somebody may have come while the steps waited.
    if let Some(refusal) = refused(&link, plan.found, occasion, left_out).await? {
        link.run("ROLLBACK TO SAVEPOINT steps").await?;
        return Ok(Err(refusal));
    }
    for step in &plan.steps {
        note(&link, step).await?;
    }
    Ok(Ok(plan))
}

/// Why steps are not taken that gateways of a release before the last cannot work with.
async fn refused(
    link: &Link,
    found: i32,
    occasion: Occasion,
    left_out: Option<i32>,
) -> Result<Option<OpenError>, Fault> {
    let Some(needs) = left_out else { return Ok(None) };
    if occasion == Occasion::Start {
        return Ok(Some(OpenError::LeavesOut { found, needs }));
    }
    let connected = gateways(link).await?;
    Ok((connected > 0).then_some(OpenError::GatewaysConnected { found, needs, connected }))
}

/// What is there.
struct Found {
    server: i32,
    /// Things in our schema that are none of ours.
    foreign: bool,
    /// Whether we may change the tables that are there.
    is_owner: bool,
    number: i32,
    needs: i32,
}

async fn inspect(link: Link) -> Result<Found, Fault> {
    let server = Columns::of(&link.query_one(SERVER, &bounds![]).await?, "the server").take()?;
    let present = link.query_one(PRESENT, &bounds![]).await?;
    let mut columns = Columns::of(&present, "the schema");
    let (ours, things): (bool, i64) = (columns.take()?, columns.take()?);
    let is_owner = columns.take()?;
    if !ours {
        return Ok(Found { server, foreign: things > 0, is_owner, number: 0, needs: 0 });
    }
    let found = link.query_one(FOUND, &bounds![]).await?;
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

/// The steps that a database of this schema does not have yet, with their numbers.
fn missing(found: i32) -> impl Iterator<Item = (i32, &'static Migration)> {
    (1..).zip(MIGRATIONS).filter(move |(number, _)| *number > found)
}

/// Takes all steps of the plan as soon as nobody holds a table that they need.
async fn take(link: &Link, plan: &Plan) -> Result<(), Fault> {
    link.run("SAVEPOINT steps").await?;
    let mut tries = 1;
    loop {
        link.run(if tries % PATIENT_TRY == 1 { WAIT_FOR_VACUUM } else { WAIT_FOR_TABLES }).await?;
        match run(link, plan).await {
            Err(fault) if fault.is_kept_waiting() && tries < TRIES => {}
            done => return done,
        }
        link.run("ROLLBACK TO SAVEPOINT steps").await?;
        let steps = plan.steps.len();
        tracing::info!(
            from = plan.found,
            steps,
            tries,
            "a change of the schema waits: somebody holds a table"
        );
        tokio::time::sleep(LET_BY).await;
        tries += 1;
    }
}

async fn run(link: &Link, plan: &Plan) -> Result<(), Fault> {
    for (_, migration) in missing(plan.found).take(plan.steps.len()) {
        link.run(migration.sql).await?;
    }
    Ok(())
}

/// Writes down that a step was taken.
async fn note(link: &Link, step: &Step) -> Result<(), Fault> {
    let (kind, needs) = step.needs().map_or(("expand", 0), |needs| ("contract", needs));
    link.execute(APPLIED, &bounds![INT4: step.number, TEXT: step.name, TEXT: kind, INT4: needs]).await?;
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
