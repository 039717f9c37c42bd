//! An operator's file of keys, and a gateway's report on its keys.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use claviger_seal::{Keyring, RootKey};
use serde_json::Value;

use super::process::until;

/// A file of keys.
#[derive(Clone)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// Creates a file with a first key, which seals.
    pub fn generate(path: PathBuf) -> Self {
        let file = Self(path);
        file.change("generate");
        file
    }

    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes it with a command, such as `promote`.
    pub fn change(&self, command: &str) {
        let mut claviger = Command::new(env!("CARGO_BIN_EXE_claviger"));
        let done = claviger.arg("keys").args(command.split(' ')).arg("--file").arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Removes the key with this id.
    pub fn retire(&self, id: u32) {
        let text = std::fs::read_to_string(&self.0).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with(&format!("{id}:")));
        std::fs::write(&self.0, kept.flat_map(|line| [line, "\n"]).collect::<String>()).unwrap();
    }

    pub fn ring(&self) -> Keyring {
        let text = std::fs::read_to_string(&self.0).unwrap();
        Keyring::new(text.lines().map(|line| RootKey::parse(line).unwrap()).collect()).unwrap()
    }
}

/// Returns id, role and rows of each of a gateway's keys.
pub async fn listed(client: &reqwest::Client, metrics: SocketAddr) -> Vec<(u64, String, u64)> {
    let asked = client.get(format!("http://{metrics}/keys")).send().await.unwrap();
    let keys: Value = serde_json::from_str(&asked.text().await.unwrap()).unwrap();
    let row = |key: &Value| {
        let count = key["sessions"].as_u64().unwrap() + key["owed"].as_u64().unwrap();
        (key["id"].as_u64().unwrap(), key["role"].as_str().unwrap().to_owned(), count)
    };
    keys.as_array().unwrap().iter().map(row).collect()
}

/// Waits until a gateway has these keys in these roles.
pub async fn until_roles(
    client: &reqwest::Client,
    metrics: SocketAddr,
    expected: &[(u64, &str)],
    story: impl Fn() -> String,
) {
    let holds = || async {
        let listed = listed(client, metrics).await;
        listed.iter().map(|(id, role, _)| (*id, role.as_str())).eq(expected.iter().copied())
    };
    until(&format!("its keys are {expected:?}"), story, holds).await;
}
