//! The steps of the README work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test may fail as a test does")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, routing::get};
use http::{HeaderMap, header};

/// A wait of this length is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn claviger(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.current_dir(directory).env_clear();
    command
}

/// The examples of this language in a text, without the indentation that they stand in.
fn examples(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(|block| block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")).collect()
}

#[test]
fn the_steps_of_the_readme_give_a_configuration_that_can_be_used() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let made =
        claviger(directory.path()).args(["keys", "generate", "--file", "claviger.keys"]).output().unwrap();
    assert!(made.status.success());
    fs::write(directory.path().join("twitch-secret"), "not-a-real-secret").unwrap();
    fs::write(directory.path().join("webhook-secret"), "0123456789abcdef").unwrap();
    let config = examples(&readme, "toml").join("\n").replace("YOUR.SITE", "app.example");
    assert!(config.contains("[provider]") && config.contains("[[routes]]"), "both examples were found");
    fs::write(directory.path().join("claviger.toml"), config).unwrap();
    let checked =
        claviger(directory.path()).args(["check-config", "--config", "claviger.toml"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("https://app.example/auth/callback"), "it says what to register: {said}");
    assert!(said.contains("https://app.example/auth/webhook"), "it says where notices arrive: {said}");
}

/// The commands of "On your own computer", as the README has them.
fn local_commands(readme: &str) -> String {
    let chapter = readme.split("## On your own computer").nth(1).unwrap();
    examples(chapter, "sh").swap_remove(0)
}

#[test]
fn mock_twitch_prints_the_configuration_of_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let commands = local_commands(&readme);
    let shown = commands.split("<<'END'\n").nth(1).unwrap().split("END").next().unwrap();
    let mut mock = claviger(&root())
        .args(["mock-twitch", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(mock.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut printed = lines.by_ref().skip_while(|line| !line.starts_with("public_url"));
    let printed: Vec<String> = printed.by_ref().take(shown.lines().count()).collect();
    mock.kill().unwrap();
    mock.wait().unwrap();
    let address = printed.last().unwrap().rsplit('"').nth(1).unwrap().to_owned();
    assert_eq!(printed.join("\n").replace(&address, "http://127.0.0.1:8410"), shown.trim_end());
}

/// What a shell started, all of which ends with this value.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // The group of the shell: the mock runs in its background.
        let _ended = Command::new("kill").args(["--", &format!("-{}", self.0.id())]).status();
        let _ended = self.0.wait();
    }
}

/// An app that says who the gateway says is calling, on a free port.
async fn app() -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hello = |headers: HeaderMap| async move {
        format!("hello {}", headers.get("x-auth-user").map_or("nobody", |user| user.to_str().unwrap()))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", get(hello))).await });
    port
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Runs the commands in a directory. `cargo` does nothing there, and `claviger` is the one of this
/// build. Only the ports are others, so that two runs do not meet.
fn run_locally(directory: &Path, commands: &str, [gateway, app, mock]: [u16; 3]) -> Shell {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    let claviger = env!("CARGO_BIN_EXE_claviger");
    let listen =
        format!("case $1 in mock-twitch) shift; set -- mock-twitch --listen 127.0.0.1:{mock} \"$@\";; esac");
    for (name, script) in [("cargo", "true"), ("claviger", &*format!("{listen}\nexec {claviger} \"$@\""))] {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let made = Command::new("chmod").arg("+x").arg(&path).status().unwrap();
        assert!(made.success());
    }
    let commands = commands
        .replace(":8080", &format!(":{gateway}"))
        .replace(":3000", &format!(":{app}"))
        .replace(":8410", &format!(":{mock}"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell.args(["-e", "-c", &commands]).current_dir(directory).env("PATH", path);
    shell.env("CLAVIGER_LISTEN", format!("127.0.0.1:{gateway}"));
    Shell(shell.spawn().unwrap())
}

#[cfg(unix)]
#[tokio::test]
async fn the_commands_for_ones_own_computer_lead_to_a_signed_in_user_of_ones_own_app() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let commands = local_commands(&readme);
    let directory = tempfile::tempdir().unwrap();
    let ports = [free_port(), app().await, free_port()];
    let of_a_person = commands.lines().filter(|line| line.starts_with("cargo ") || line.contains("claviger"));
    assert_eq!(of_a_person.filter(|line| !line.contains('=')).count(), 5, "{commands}");
    let _shell = run_locally(directory.path(), &commands, ports);

    let [gateway, _, mock] = ports.map(|port| format!("http://localhost:{port}"));
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let both_answer = async || loop {
        let (login, ready) =
            (browser.get(format!("{gateway}/auth/login")).send().await, browser.get(&mock).send().await);
        match (login, ready) {
            (Ok(begun), Ok(_)) => break begun,
            // Neither answers before it listens.
            _ => tokio::task::yield_now().await,
        }
    };
    let begun = tokio::time::timeout(PATIENCE, both_answer()).await.expect("both start");
    let cookie = |answer: &reqwest::Response| {
        let cookies = answer.headers().get_all(header::SET_COOKIE).iter();
        let cookies = cookies.map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned());
        cookies.collect::<Vec<_>>().join("; ")
    };
    let location =
        |answer: &reqwest::Response| answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let (asked, login) = (url::Url::parse(&location(&begun)).unwrap(), cookie(&begun));
    let mut form: Vec<(String, String)> = asked.query_pairs().into_owned().collect();
    form.extend(
        [("user", "100000001"), ("decision", "authorize")].map(|(a, b)| (a.to_owned(), b.to_owned())),
    );
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let kind = "application/x-www-form-urlencoded";
    let consent = browser.post(format!("{mock}/oauth2/authorize")).header(header::CONTENT_TYPE, kind);
    let agreed = consent.body(form).send().await.unwrap();
    let done = browser.get(location(&agreed)).header(header::COOKIE, login).send().await.unwrap();
    let hello = browser.get(&gateway).header(header::COOKIE, cookie(&done)).send().await.unwrap();
    assert_eq!(hello.text().await.unwrap(), "hello 100000001");
}
