//! Builds executables of the workspace.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tools::{self, output};

/// Builds an executable with these further options of `cargo build`, and returns its path.
///
/// # Errors
/// If it does not build.
pub(crate) fn executable(name: &str, options: &[&str]) -> Result<PathBuf> {
    let build = ["build", "--bin", name, "--locked", "--message-format", "json-render-diagnostics"];
    let messages = output(tools::cargo().args(build).args(options))?;
    in_messages(&messages, name).with_context(|| format!("cargo built no executable named {name}"))
}

/// The path of the executable in the messages of `cargo build`.
fn in_messages(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(name))
        .find_map(|message| Some(message.get("executable")?.as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_the_messages_of_cargo() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"build-script-build"},"executable":"/target/build-script"}
            {"reason":"compiler-artifact","target":{"name":"claviger"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"claviger"},"executable":"/target/debug/claviger"}
            {"reason":"build-finished","success":true}
        "#;
        assert_eq!(in_messages(messages, "claviger"), Some(PathBuf::from("/target/debug/claviger")));
        assert_eq!(in_messages("", "claviger"), None);
    }
}
