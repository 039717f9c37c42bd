//! PostgreSQL servers for tests. Each lives in a temporary directory and is reachable only from
//! this computer.
//!
//! A shell controls each server and waits for the end of its input. The input ends when the test's
//! process ends in any way, so no server outlives its test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use claviger_store_postgres::{Address, Way};

/// Name of a standby at its primary.
const STANDBY: &str = "standby";

/// A running server.
pub struct Server {
    directory: PathBuf,
    pub port: u16,
    control: Mutex<ServerControl>,
    databases: AtomicU32,
}

/// A shell that runs one line after the other, and cleans up after the last.
struct ServerControl {
    shell: Child,
    lines: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Creates and starts a server. `settings` are lines for its postgresql.conf.
    pub fn start(settings: &str) -> Self {
        let initdb = format!(
            "{}/initdb --no-sync --auth=trust --username=claviger --encoding=UTF8 --locale=C data",
            binaries().display()
        );
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nfsync = off\nfull_page_writes = off\nshared_buffers = 64MB\n\
             max_connections = 200\nlog_min_messages = fatal\n{settings}"
        );
        Self::made_by(&initdb, &settings)
    }

    /// Creates and starts a server that follows another one.
    pub fn standby_of(primary: &Self) -> Self {
        let backup = format!(
            "{}/pg_basebackup --no-sync --checkpoint=fast --write-recovery-conf -D data \
             -d 'host={} port={} user=claviger application_name={STANDBY}'",
            binaries().display(),
            primary.directory.display(),
            primary.port
        );
        Self::made_by(&backup, "")
    }

    /// Starts a server whose files this command makes.
    fn made_by(command: &str, settings: &str) -> Self {
        let mut control = ServerControl::start();
        let directory = PathBuf::from(control.ask("mktemp -d /tmp/claviger-postgres-XXXXXX"));
        let port = free_port();
        let directory_name = directory.display();
        let conf = format!("port = {port}\nunix_socket_directories = '{directory_name}'\n{settings}");
        let made = control.ask(&format!(
            "cd {directory_name} && {command} >made.log 2>&1 && cat >>data/postgresql.conf <<'END'\n{conf}\nEND\n\
             [ -f data/PG_VERSION ] && echo made || echo $(cat made.log)"
        ));
        assert_eq!(made, "made");
        let binaries = binaries();
        let binaries = binaries.display();
        control.tell(&format!(
            "up() {{ {binaries}/pg_ctl -D data -l server.log -w -t 60 start >pg_ctl.log 2>&1 && echo up || echo $(cat pg_ctl.log); }}\n\
             down() {{ {binaries}/pg_ctl -D data -w -m \"$1\" stop >pg_ctl.log 2>&1; echo down; }}\n\
             promote() {{ {binaries}/pg_ctl -D data -w promote >pg_ctl.log 2>&1 && echo promoted; }}\n{KILL}"
        ));
        let server = Self { directory, port, control: Mutex::new(control), databases: AtomicU32::new(0) };
        server.resume();
        server
    }

    /// Makes commits wait until the standby has them.
    pub async fn require_standby(&self) {
        let client = self.client("postgres").await;
        let name = format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'");
        client.batch_execute(&name).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually("the standby is synchronous", async || {
            let standby = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (client.query_one(standby, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        assert_eq!(self.control.lock().unwrap().ask("promote"), "promoted");
    }

    /// Stops the server as a crash does.
    pub fn crash(&self) {
        assert_eq!(self.control.lock().unwrap().ask("down immediate"), "down");
    }

    /// Kills the server and all its processes as `kill -9` does.
    pub fn kill(&self) {
        assert_eq!(self.control.lock().unwrap().ask("slay"), "slain");
    }

    /// Starts the server again.
    pub fn resume(&self) {
        assert_eq!(self.control.lock().unwrap().ask("up"), "up");
    }

    /// A directory that the server may read.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a command in the server's directory, as its user.
    pub fn run(&self, lines: &str) {
        self.control.lock().unwrap().ask(&format!("{lines}\necho ran"));
    }

    /// Creates an empty database and returns its name.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let client = self.client("postgres").await;
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy"))
            .await
            .unwrap();
        name
    }

    /// Its address through the socket in the file system.
    pub fn text(&self, database: &str) -> String {
        format!("host={} port={} user=claviger dbname={database}", self.directory.display(), self.port)
    }

    pub fn address(&self, database: &str) -> Address {
        Address::parse(&self.text(database), &Way::Tls { authorities: None }).unwrap()
    }

    /// A connection besides the store's.
    pub async fn client(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(&self.text(database), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut control = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(control.lines.take());
        let _gone = control.shell.wait();
    }
}

impl ServerControl {
    fn start() -> Self {
        let is_root = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let mut shell = match is_root {
            // PostgreSQL refuses to run as root.
            Ok(true) => {
                let mut runuser = Command::new("runuser");
                runuser.args(["-u", "postgres", "--", "sh"]);
                runuser
            }
            _ => Command::new("sh"),
        };
        // Its own process group, so that a Ctrl-C at the test does not end the shell before the
        // server.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        let mut shell = shell
            .args(["-c", CONTROL_SCRIPT])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell as the user postgres");
        let lines = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        Self { shell, lines, answers }
    }

    fn tell(&mut self, lines: &str) {
        let input = self.lines.as_mut().unwrap();
        // The output of each command ends with a marker line.
        input.write_all(format!("{lines}\n%end\n").as_bytes()).unwrap();
        input.flush().unwrap();
    }

    fn ask(&mut self, lines: &str) -> String {
        self.tell(lines);
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

/// Stops the first process before looking for its children, so that it starts no new ones. All must
/// be gone before a restart. Processes that nobody has reaped yet count as gone. Removes the files
/// that name the server's process, or the server would take its own dead process for a running one.
const KILL: &str = r#"
slay() {
    first=$(head -n 1 data/postmaster.pid)
    kill -STOP "$first"
    all="$first $(ps -A -o pid= -o ppid= | awk -v first="$first" '$2 == first { print $1 }')"
    kill -9 $all
    while ps -o stat= -p "$(echo $all | tr ' ' ',')" | grep -q '^[^Z]'; do sleep 0.02; done
    rm -f data/postmaster.pid .s.PGSQL.*.lock
    echo slain
}
"#;

const CONTROL_SCRIPT: &str = r#"
piece=
while IFS= read -r line; do
    if [ "$line" = "%end" ]; then eval "$piece" </dev/null; piece=; else piece="$piece$line
"; fi
done
case "$PWD" in /tmp/claviger-postgres-*)
    if [ -f bouncer.pid ]; then kill "$(cat bouncer.pid)"; fi
    down immediate >/dev/null 2>&1
    cd / && rm -rf "$OLDPWD"
esac
"#;

/// The newest of Debian's installations, or the programs on the PATH.
pub fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Some directories hold links to a few of the programs only.
    let has_all = |directory: &Path| {
        ["initdb", "pg_ctl", "pg_basebackup"].iter().all(|program| directory.join(program).is_file())
    };
    let on_path = std::env::split_paths(&path).find(|directory| has_all(directory));
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort_by_key(|bin| {
        bin.parent().and_then(|version| version.file_name()?.to_str()?.parse::<u32>().ok())
    });
    let found = on_path.or_else(|| debian.into_iter().rev().find(|bin| has_all(bin)));
    found.expect(
        "these tests need PostgreSQL's programs. Install them (on Debian: apt-get install postgresql), or put the \
         directory with initdb on the PATH",
    )
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until at least `count` statements that meet the condition wait for a lock in the client's
/// database.
pub async fn until_waiting(client: &tokio_postgres::Client, count: i64, condition: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database() AND {condition}"
    );
    eventually("statements wait", async || {
        let found: i64 = client.query_one(&waiting, &[]).await.unwrap().get(0);
        (found >= count).then_some(())
    })
    .await;
}

/// Polls for something that takes a while. Time is real here, since PostgreSQL's is.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it takes too long until {what}")
}
