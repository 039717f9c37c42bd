//! The commands, run like a shell runs them.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const SECRET: &str = "canary-client-secret";

fn claviger(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.current_dir(directory).env_clear();
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn configured() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made =
        claviger(directory.path()).args(["keys", "generate", "--file", "claviger.keys"]).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let config = format!(
        "public_url = \"https://app.example\"\nkeyring_file = \"claviger.keys\"\n[provider]\nclient_id = \"abc\"\nclient_secret = \"{SECRET}\"\n"
    );
    std::fs::write(directory.path().join("claviger.toml"), config).unwrap();
    directory
}

/// A file that its readers could not read any more would be worse than no change.
#[cfg(unix)]
#[test]
fn a_command_that_cannot_keep_the_owner_changes_nothing() {
    use std::os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    };
    const OTHER: u32 = 65_534;
    let directory = tempfile::tempdir().unwrap();
    // Only root can run a command as somebody else.
    if directory.path().metadata().unwrap().uid() != 0 {
        return;
    }
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(directory.path(), 0o777);
    for (command, file) in [
        (&["credentials", "add", "worker", "--right", "check"][..], "claviger.credentials"),
        (&["keys", "generate"], "claviger.keys"),
    ] {
        let path = directory.path().join(file);
        let run = |command: &mut Command| command.args(["--file", file]).output().unwrap();
        assert!(run(claviger(directory.path()).args(command)).status.success());
        chown(&path, Some(0), Some(OTHER)).unwrap();
        mode(&path, 0o640);
        std::fs::remove_file(directory.path().join(format!("{file}.lock"))).unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        let refused = run(claviger(directory.path()).args(command).uid(OTHER).gid(OTHER));
        let told = text(&refused);
        assert!(!refused.status.success(), "{told}");
        assert!(told.contains("nothing was changed") && told.contains("cannot be kept"), "{told}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert!(!directory.path().join(format!("{file}.new")).exists());
        assert!(run(claviger(directory.path()).args(command)).status.success(), "root can go on");
        let after = path.metadata().unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode() & 0o777), (0, OTHER, 0o640));
    }
}

#[test]
fn check_config_explains_and_shows_no_secret() {
    let directory = configured();
    let mut check = claviger(directory.path());
    let checked = check
        .args(["check-config", "--config", "claviger.toml"])
        .env("CLAVIGER_SESSION__IDLE", "3d")
        .output()
        .unwrap();
    let told = text(&checked);
    assert!(checked.status.success(), "{told}");
    for words in [
        "environment variable CLAVIGER_SESSION__IDLE",
        "claviger.toml line 1",
        "default",
        "(secret)",
        "https://app.example/auth/callback",
        "upstream is not set",
        "does not trust the front proxy's word on the original method and address",
    ] {
        assert!(told.contains(words), "{words:?} is not told:\n{told}");
    }
    let key = std::fs::read_to_string(directory.path().join("claviger.keys")).unwrap();
    assert!(!told.contains(SECRET) && !told.contains(key.trim()), "{told}");
}

#[test]
fn check_config_fails_where_serve_would() {
    let directory = configured();
    for arguments in [["check-config", "--config", "claviger.toml"], ["serve", "--config", "claviger.toml"]] {
        let wrong =
            claviger(directory.path()).args(arguments).env("CLAVIGER_SESION__IDLE", "3d").output().unwrap();
        let told = text(&wrong);
        assert!(!wrong.status.success() && told.contains("did you mean session.idle"), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }
}

#[test]
fn every_missing_setting_is_named_at_once() {
    let directory = configured();
    for command in ["check-config", "serve"] {
        let told = text(&claviger(directory.path()).arg(command).output().unwrap());
        for words in ["public_url", "client_id", "client_secret_file", "keyring_file", "--config FILE"] {
            assert!(told.contains(words), "{words:?} is not told:\n{told}");
        }
    }
    std::fs::write(directory.path().join("empty.toml"), "").unwrap();
    let told = text(&claviger(directory.path()).args(["serve", "--config", "empty.toml"]).output().unwrap());
    assert!(told.contains("client_id") && !told.contains("--config FILE"), "{told}");
}

#[test]
fn check_config_shows_the_settings_despite_an_unknown_key() {
    let directory = configured();
    let mut check = claviger(directory.path());
    check.args(["check-config", "--config", "claviger.toml"]);
    let checked =
        check.env("CLAVIGER_SESION__IDLE", "3d").env("CLAVIGER_LISTEN", "nowhere").output().unwrap();
    let told = text(&checked);
    assert!(!checked.status.success());
    for words in [
        "session.idle ",
        "\"14d\"",
        "(secret)",
        "CLAVIGER_SESION__IDLE",
        "environment variable CLAVIGER_LISTEN",
    ] {
        assert!(told.contains(words), "{words:?} is not told:\n{told}");
    }
}

#[test]
fn a_taken_port_of_the_demo_names_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = claviger(Path::new(".")).args(["demo", "--port", &port]).output().unwrap();
    let told = text(&ended);
    assert!(!ended.status.success() && told.contains("is in use by another program"), "{told}");
    assert!(told.contains("--port") && !told.contains("listen"), "{told}");
}

#[test]
fn help_names_the_file_of_keys_as_the_readme_does() {
    for arguments in [&["--help"][..], &["keys", "generate", "--help"], &["config-reference"]] {
        let told = text(&claviger(Path::new(".")).args(arguments).output().unwrap());
        assert!(told.contains("claviger.keys") && !told.contains("/keyring"), "{told}");
    }
    let told = text(&claviger(Path::new(".")).args(["mock-twitch", "--help"]).output().unwrap());
    assert!(told.contains("--fault token:status=503:times=3"), "{told}");
}

#[test]
fn serve_explains_why_it_does_not_start() {
    let directory = configured();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let table: [(&[(&str, &str)], &str); 4] = [
        (&[("CLAVIGER_LISTEN", &address)], "is in use by another program"),
        (&[("CLAVIGER_STORE__PATH", "missing/claviger.db")], "missing"),
        (&[("CLAVIGER_KEYRING_FILE", "nowhere")], "nowhere cannot be read"),
        (&[("CLAVIGER_KEYRING", "1:tooshort")], "43 characters"),
    ];
    for (variables, expected) in table {
        let mut serve = claviger(directory.path());
        serve.args(["serve", "--config", "claviger.toml"]).envs(variables.iter().copied());
        let ended = serve.output().unwrap();
        let told = text(&ended);
        assert!(!ended.status.success() && told.contains(expected), "{variables:?}: {told}");
        assert!(!told.contains("panicked") && !told.contains("tooshort"), "{told}");
    }
}

#[test]
fn a_generated_key_works_in_a_keyring() {
    let directory = tempfile::tempdir().unwrap();
    let make = || claviger(directory.path()).args(["keys", "generate", "--id", "7"]).output().unwrap();
    let (one, two) = (text(&make()), text(&make()));
    assert_ne!(one, two);
    assert_eq!(one.lines().count(), 1);
    assert!(claviger_seal::RootKey::parse(&one).is_ok());
}

#[test]
fn an_old_name_of_a_setting_is_logged_once_at_start() {
    let directory = configured();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut serve = claviger(directory.path());
    serve.args(["serve", "--config", "claviger.toml"]);
    serve.env("CLAVIGER_LISTEN", taken.local_addr().unwrap().to_string());
    serve.env("CLAVIGER_SWEEP__PROBE_PERIOD", "2h");
    let shown = text(&serve.output().unwrap());
    let now = "is now called sweep.connection_check_period (CLAVIGER_SWEEP__CONNECTION_CHECK_PERIOD)";
    assert_eq!(shown.matches(now).count(), 1, "{shown}");
}

#[test]
fn the_reference_is_printed() {
    let printed = claviger(Path::new(".")).arg("config-reference").output().unwrap();
    assert!(text(&printed).contains("# Configuration"));
}

#[cfg(unix)]
#[test]
fn the_demo_prints_its_address_and_cleans_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = claviger(directory.path())
        .args(["demo", "--port", "0", "--json"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(ready["app"].as_str().unwrap().starts_with("http://localhost:"));
    assert!(ready["mock"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let told = Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(demo.wait().unwrap().success());
    assert!(lines.next().is_none(), "one line is all");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn plan_needs_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let planned =
        claviger(directory.path()).args(["plan", "--users", "100000", "--budget", "10"]).output().unwrap();
    let told = text(&planned);
    assert!(planned.status.success() && told.contains("does NOT suffice"), "{told}");
    let refused =
        claviger(directory.path()).args(["plan", "--users", "1", "--budget", "nan"]).output().unwrap();
    let told = text(&refused);
    assert!(!refused.status.success() && told.contains("claviger: --budget NaN is not a number"), "{told}");
}
