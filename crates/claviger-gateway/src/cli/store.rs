//! `claviger store`

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use claviger_store::archive::{self, Archive, CopyError, CopyOptions, Progress, Report, Side, Step, Told};
use claviger_store_postgres::{Address, Options, PostgresStore};
use claviger_store_sqlite::{OpenError, SqliteStore, back_up};

use super::{
    ConfigArgs,
    plan::{grouped, in_words},
    print,
};
use crate::{
    config::{Config, Problems, secrets},
    secret_file,
};

/// Commands for stores.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy one store into another: from SQLite to PostgreSQL, or in any other direction
    #[command(after_help = COPY_HELP)]
    Copy(CopyArgs),
    /// Back up the SQLite file of store.path while the gateway runs
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArgs),
}

const BACKUP_HELP: &str = "\
The backup holds the sessions as they were at one moment, and only its owner can read it. Keep the key file elsewhere: the
backup is of no use without it, and a thief needs both.

A restore brings back what was in force then. docs/operations.md says which sessions come back, and who signs in again.";

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

const COPY_HELP: &str = "\
A STORE is a SQLite file or the address of a PostgreSQL database, such as postgres://claviger@db.example/claviger. Put an
address with a password into a file, because every user of this computer can read a command line. The configuration says how
connections to a database are protected, and whether a pooler is in between (store.ca_file, store.transaction_pooler, …).

Before the copy:
  - Stop every instance of the gateway. Users stay signed in: sessions, tokens and requests in flight are copied as they are,
    and open with the same keys.
  - The source is only read, but first migrated to the newest schema.
  - The destination must be empty, or hold what an earlier run of this copy left.
  - Behind PgBouncer, connections of a stopped gateway may stay for a while; RECONNECT on its console ends them.

If the copy is interrupted, run the same command again: it continues where it stopped. Until it is done, no gateway of this
or a later release starts on the destination. Older gateways do not check, so start none there. At the end both stores are
compared, row by row and by checksum.

Exit codes:
  0  the two stores are equal
  1  not done yet: the message says why; fix that and run it again
  2  the command line is wrong
  3  the destination holds something else, and was not changed
  4  the two stores differ

Examples:
  claviger store copy --config claviger.toml                         from store.path to store.url_file, as configured
  claviger store copy --config claviger.toml --from claviger.db --to postgres://claviger@db.example/claviger
  claviger store copy --config claviger.toml --to back.db --from-url-file /etc/claviger/database-url";

#[derive(Debug, clap::Args)]
pub(super) struct CopyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The store to copy [default: the file of store.path]; needed with --to if the configuration
    /// names a database
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// A file that holds only the address of the database to copy
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    from_url_file: Option<PathBuf>,
    /// The store to copy into [default: the database of store.url or store.url_file]
    #[arg(long, value_name = "STORE")]
    to: Option<String>,
    /// A file that holds only the address of the database to copy into
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_url_file: Option<PathBuf>,
    /// Only compare the two stores; both must exist with the newest schema
    #[arg(long)]
    verify_only: bool,
    /// Skip rows of the source that cannot be read, and name each; without it the first one ends
    /// the copy
    #[arg(long)]
    skip_damaged: bool,
}

pub(super) async fn run(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Copy(args) => copy(args).await,
        StoreCommand::Backup(args) => backup(args).await,
    }
}

async fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let layers = args.config.layers()?;
    let config = args.config.config(&layers)?;
    if config.store.is_shared() {
        bail!("the sessions are in PostgreSQL; back the database up with its own tools, such as pg_dump");
    }
    let (from, to) = (config.store.path.clone(), args.to.clone());
    tokio::task::spawn_blocking(move || back_up(&from, &to)).await??;
    print(&format!("{} is backed up in {}\n", config.store.path.display(), args.to.display()))
}

async fn copy(args: CopyArgs) -> anyhow::Result<()> {
    let (from, to, options) = places(&args)?;
    if let (Place::File(from), Place::File(to)) = (&from, &to)
        && is_same(from, to)
    {
        bail!("{} is both the source and the destination", from.display());
    }
    let source = open(&from, Side::Source, &options, args.verify_only).await?;
    let destination = open(&to, Side::Destination, &options, args.verify_only).await?;
    let copy_options = CopyOptions { skip_damaged: args.skip_damaged };
    let mut reporter = Reporter::new();
    let mut tell = |event| reporter.report(event);
    let done = if args.verify_only {
        archive::verify(&*source, &*destination, copy_options, &mut tell).await
    } else {
        archive::copy(&*source, &*destination, copy_options, &mut tell).await
    };
    reporter.end_line();
    let report = done?;
    print(&summary(&report))?;
    if args.verify_only { Ok(()) } else { print(&next_steps(&report, &from, &to)) }
}

/// The exit code of an error that has one of its own.
pub(super) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    match error.downcast_ref()? {
        CopyError::Occupied(_) | CopyError::Finished(_) => Some(3),
        CopyError::Unequal { .. } | CopyError::Checksum(_) => Some(4),
        _ => None,
    }
}

/// The location of a store.
enum Place {
    File(PathBuf),
    Database(Box<Address>),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Database(address) => f.write_str(&address.place()),
        }
    }
}

fn places(args: &CopyArgs) -> anyhow::Result<(Place, Place, Options)> {
    let layers = args.config.layers()?;
    let config = args.config.config(&layers)?;
    let from = match place(&config, "from", args.from.as_deref(), args.from_url_file.as_deref())? {
        Some(from) => from,
        None if names_database(&config) && (args.to.is_some() || args.to_url_file.is_some()) => bail!(
            "name the store to copy with --from or --from-url-file: the configuration names a database, so the file of \
             store.path may be an old one whose tokens are spent"
        ),
        None => Place::File(config.store.path.clone()),
    };
    let to = match place(&config, "to", args.to.as_deref(), args.to_url_file.as_deref())? {
        Some(to) => to,
        None => match secrets::database(&config, &layers).map_err(|problem| Problems(vec![problem]))? {
            Some(database) => Place::Database(Box::new(database.address)),
            None => bail!("name the destination with --to or --to-url-file, or set store.url_file"),
        },
    };
    let options = Options { transaction_pooler: config.store.transaction_pooler, ..Options::default() };
    Ok((from, to, options))
}

fn names_database(config: &Config) -> bool {
    config.store.url.is_some() || config.store.url_file.is_some()
}

/// The store that an option names, if the option is given.
fn place(
    config: &Config,
    option: &str,
    store: Option<&str>,
    url_file: Option<&Path>,
) -> anyhow::Result<Option<Place>> {
    let parse = |text: &str| Address::parse(text, &secrets::way(&config.store));
    if let Some(path) = url_file {
        let text = secret_file::read(path).map_err(anyhow::Error::msg)?;
        let address = parse(&text).with_context(|| format!("--{option}-url-file"))?;
        return Ok(Some(Place::Database(Box::new(address))));
    }
    let Some(store) = store else { return Ok(None) };
    if !is_address(store) {
        return Ok(Some(Place::File(store.into())));
    }
    let address = parse(&with_usual_scheme(store)).with_context(|| format!("--{option}"))?;
    if address.has_password() {
        bail!(
            "the address of --{option} holds a password, and every user of this computer can read a command line: put the \
             address into a file and name it with --{option}-url-file. If the password is real, change it"
        );
    }
    Ok(Some(Place::Database(Box::new(address))))
}

/// The keys of an address in the form `key=value` (PostgreSQL's documentation, section 34.1.2).
const KEYS: [&str; 7] = ["host", "hostaddr", "user", "password", "dbname", "port", "service"];
/// The schemes of addresses that lack the slashes, or belong to other programs.
const SCHEMES: [&str; 4] = ["postgres", "postgresql", "pgsql", "jdbc"];

/// Whether this may be the address of a database. It may then hold a password, so it never becomes
/// the name of a file and is never shown, even if it is not a valid address.
fn is_address(store: &str) -> bool {
    let is_one_of = |names: &[&str], word: &str| names.iter().any(|name| word.eq_ignore_ascii_case(name));
    let begins_as_one = store.split_once(':').is_some_and(|(scheme, _)| is_one_of(&SCHEMES, scheme.trim()));
    let mut before_equals = store.match_indices('=').filter_map(|(at, _)| store.get(..at));
    let has_key = before_equals.any(|before| {
        let word = before.trim_end().rsplit(|letter: char| !letter.is_ascii_alphanumeric()).next();
        word.is_some_and(|word| is_one_of(&KEYS, word))
    });
    store.contains("://") || begins_as_one || has_key
}

/// An address with its scheme in lower case. Schemes ignore case (RFC 3986, section 3.1), but the
/// parser does not.
fn with_usual_scheme(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            format!("{}://{rest}", scheme.to_ascii_lowercase())
        }
        _ => address.to_owned(),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// What identifies a file under all of its names.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = path.metadata().ok()?;
    Some((file.dev(), file.ino()))
}

/// What identifies a file under all of its symbolic links. Hard links are unknown on this system.
#[cfg(not(unix))]
fn identity(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

async fn open(
    place: &Place,
    side: Side,
    options: &Options,
    verify_only: bool,
) -> anyhow::Result<Box<dyn Archive>> {
    let opened: anyhow::Result<Box<dyn Archive>> = match place {
        Place::File(path) => {
            open_file(path.clone(), side, verify_only).await.map(|store| Box::new(store) as _)
        }
        Place::Database(address) => {
            let opened = match verify_only {
                true => PostgresStore::open_to_compare(address, options).await,
                false => PostgresStore::open_archive(address, options).await,
            };
            opened.map(|store| Box::new(store) as _).map_err(anyhow::Error::new)
        }
    };
    opened.with_context(|| format!("the {side} cannot be opened"))
}

async fn open_file(path: PathBuf, side: Side, verify_only: bool) -> anyhow::Result<SqliteStore> {
    let opened = tokio::task::spawn_blocking(move || match verify_only {
        true => SqliteStore::open_to_compare(&path),
        false => SqliteStore::open_archive(&path, side),
    });
    opened.await?.map_err(|error| match error {
        OpenError::InUse { .. } => anyhow::Error::new(error).context("stop the gateway first"),
        error => error.into(),
    })
}

/// Reports progress: one changing line on a terminal, and otherwise a line every few seconds.
struct Reporter {
    terminal: bool,
    every: Duration,
    /// The current step and table, when they began, and the number of rows done at that time.
    begun: Option<(Step, archive::Table, Instant, u64)>,
    last: Instant,
    line_is_open: bool,
}

impl Reporter {
    fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let every = Duration::from_millis(if terminal { 200 } else { 5000 });
        Self { terminal, every, begun: None, last: now(), line_is_open: false }
    }

    fn report(&mut self, event: Told) {
        match event {
            Told::Progress(progress) => self.progress(progress),
            Told::LeftBehind { key, what } => {
                self.end_line();
                say(&format!("skipped: {key} cannot be read ({what})\n"));
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        let now = now();
        let Progress { step, table, done, .. } = progress;
        let (begun, before) = match self.begun {
            Some((of, at, begun, before)) if (of, at) == (step, table) => (begun, before),
            _ => {
                self.begun = Some((step, table, now, done));
                (now, done)
            }
        };
        if now.duration_since(self.last) < self.every {
            return;
        }
        self.last = now;
        let text = line(progress, done.saturating_sub(before), now.duration_since(begun));
        if self.terminal {
            // Returns to the beginning of the line, and clears the rest of the old text.
            say(&format!("\r{text}\x1b[K"));
            self.line_is_open = true;
        } else {
            say(&format!("{text}\n"));
        }
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.line_is_open) {
            say("\n");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real time, for a rate shown to people")]
fn now() -> Instant {
    Instant::now()
}

fn say(text: &str) {
    // There is nowhere to report a failure of this write.
    let _written = io::stderr().lock().write_all(text.as_bytes());
}

/// A line of progress, with the rate of the rows done in this time.
fn line(progress: Progress, rows: u64, took: Duration) -> String {
    let Progress { step, table, done, of } = progress;
    let doing = match step {
        Step::Check => "comparing existing rows: ",
        Step::Copy => "copying ",
        Step::Verify => "verifying ",
    };
    let mut text = format!("{doing}{}: {} of {} rows", table.name(), grouped(done), grouped(of.max(done)));
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let rate = rows.saturating_mul(1000).checked_div(millis).unwrap_or_default();
    if let Some(left) = of.saturating_sub(done).checked_div(rate) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {} a second, {} left", grouped(rate), in_words(Duration::from_secs(left)));
    }
    text
}

/// The rows and checksums of both stores.
fn summary(report: &Report) -> String {
    let mut text = String::new();
    for sum in &report.sums {
        let rows = grouped(sum.rows);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<19} {rows:>11} rows, SHA-256 {}", sum.table.name(), sum.digest);
    }
    let left_behind: u64 = report.sums.iter().map(|sum| sum.left_behind).sum();
    let but = match left_behind {
        0 => String::new(),
        rows => format!(", except for {} rows that cannot be read and were skipped", grouped(rows)),
    };
    let _ = writeln!(text, "The two stores are equal{but}.");
    text
}

fn next_steps(report: &Report, from: &Place, to: &Place) -> String {
    let begun = if report.was_done { "The copy was already finished.\n" } else { "" };
    let set = match to {
        Place::File(path) => {
            format!("store.path = {:?}, and neither store.url nor store.url_file", path.display().to_string())
        }
        Place::Database(_) => "store.url_file, or store.url, to its address".to_owned(),
    };
    format!(
        "{begun}\nNext: make every gateway use {to}: set {set}. Then start them with the same keys.\n\
         Once a gateway has served from there, start none on {from} any more: it does not know which refresh tokens were \
         spent since. To go back, copy back. Keep {from} until you are sure, then delete it, because it holds sealed \
         tokens.\n"
    )
}

#[cfg(test)]
mod tests {
    use claviger_store::archive::Table;

    use super::*;

    #[test]
    fn a_line_shows_rows_rate_and_remaining_time() {
        let progress = |done| Progress { step: Step::Copy, table: Table::Sessions, done, of: 1_000_000 };
        assert_eq!(
            line(progress(400_000), 100_000, Duration::from_secs(10)),
            "copying sessions: 400,000 of 1,000,000 rows, 10,000 a second, 1m left"
        );
        assert_eq!(
            line(progress(1000), 0, Duration::ZERO),
            "copying sessions: 1,000 of 1,000,000 rows",
            "no rate is known at first"
        );
    }

    #[test]
    fn an_address_is_distinguished_from_a_file() {
        for address in [
            "postgres://db.example",
            "postgresql://db",
            "Postgres://db",
            "pgsql:db",
            "mysql://db",
            "host=/run/postgresql user=claviger",
            "hostaddr=10.0.0.1 user=ada",
            "PASSWORD = canary",
            "service=sessions",
        ] {
            assert!(is_address(address), "{address}");
        }
        for file in [
            "claviger.db",
            "/var/lib/claviger/claviger.db",
            "postgres.db",
            "./postgres:",
            "a=b.db",
            "user.db",
        ] {
            assert!(!is_address(file), "{file}");
        }
    }
}
