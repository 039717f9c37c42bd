//! The README and the guides say what is so: their steps work, and their links lead somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

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

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    let mut links = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(document.parent().unwrap().join(path).exists(), "{}: {link}", document.display());
                links += 1;
            }
        }
    }
    assert!(links > 20, "the documents were read");
}
