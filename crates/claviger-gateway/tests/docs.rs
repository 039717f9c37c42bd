//! The documents are right: links lead somewhere, paths exist, and commands name tests that exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test may fail as a test does")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All pages: those at the root, and those below docs/.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![root().join("docs")];
    let mut pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|page| root().join(page))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The anchors that GitHub makes of a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The targets of all links in a page, but for those in code.
fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|part| part.split("](").skip(1).collect::<Vec<_>>());
    targets.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The pages that lead through the source.
fn guides() -> [(&'static str, String); 3] {
    ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|page| (page, std::fs::read_to_string(root().join(page)).unwrap()))
}

/// What stands in back quotes, but for blocks of code.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// Whether a quoted text is a path in the repository. Addresses begin with a slash.
fn is_path(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let endings = [".rs", ".mjs", ".md", ".html", ".sql"];
    let looks_like_one = text.contains('/') || endings.iter().any(|ending| text.ends_with(ending));
    looks_like_one && text.chars().all(is_name) && !text.starts_with('/') && !text.starts_with('.')
}

/// Links such as [`Refresher::send`](refresher/mod.rs): the name, and the source file.
fn named_sources(text: &str) -> Vec<(&str, &str)> {
    let links = text.split("[`").skip(1).filter_map(|link| link.split_once("`]("));
    let links = links.filter_map(|(name, rest)| Some((name, rest.split(')').next()?)));
    links.filter(|(name, file)| file.ends_with(".rs") && !name.ends_with(".rs")).collect()
}

/// Whether a source file declares the last part of a name.
fn declares(source: &str, name: &str) -> bool {
    let name = name.rsplit("::").next().unwrap_or(name);
    let kinds = ["fn", "struct", "enum", "trait", "const", "type", "mod"];
    let declared = kinds.map(|kind| format!("{kind} {name}"));
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    declared.iter().any(|declared| source.split(declared.as_str()).skip(1).any(ends))
}

/// The modules that the tables of crates and of the engine's parts name: the crate, and the module.
fn named_modules(text: &str) -> Vec<(&str, &str)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.filter_map(|row| <[&str; 3]>::try_from(row.split(" | ").collect::<Vec<_>>()).ok());
    let modules = rows.filter_map(|[first, second, third]| match first.split_once("](crates/") {
        Some((_, rest)) => Some((rest.strip_suffix(')')?, quoted(third))),
        None if first.starts_with('`') && second.starts_with('`') => {
            Some(("claviger-engine", quoted(second)))
        }
        None => None,
    });
    let each = modules.flat_map(|(crate_name, names)| names.into_iter().map(move |name| (crate_name, name)));
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    each.filter(|(_, name)| is_name(name)).collect()
}

/// Whether a crate has this module at its top, or this feature.
fn has_module(crate_name: &str, name: &str) -> bool {
    let folder = root().join("crates").join(crate_name);
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let is_feature = || manifest.lines().any(|line| line.starts_with(&format!("{name} = [")));
    let source = folder.join("src").join(name);
    source.with_extension("rs").exists() || source.join("mod.rs").exists() || is_feature()
}

/// All files below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                open.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files
}

/// The tests that a page says how to run.
fn test_commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    blocks.chain(quoted(text)).filter(|line| line.starts_with("cargo test ")).collect()
}

/// What is wrong with `cargo test -p PACKAGE (--lib | --test FILE) [FILTER]`, if anything is.
fn fault_of(command: &str) -> Option<String> {
    let mut words = command.split_whitespace().skip(2);
    let (mut folder, mut filter) = (PathBuf::new(), None);
    while let Some(word) = words.next() {
        match word {
            "-p" => folder = root().join("crates").join(words.next()?),
            "--lib" => folder.push("src"),
            "--test" => {
                let test = folder.join("tests").join(words.next()?);
                folder = if test.is_dir() { test } else { test.with_extension("rs") };
            }
            _ => filter = Some(word),
        }
    }
    if !folder.exists() {
        return Some(format!("{command}: there is no {}", folder.display()));
    }
    let files = if folder.is_dir() { files_below(&folder) } else { vec![String::new()] };
    let mut names = String::new();
    for file in files.iter().filter(|file| file.is_empty() || file.ends_with(".rs")) {
        let path = if file.is_empty() { folder.clone() } else { folder.join(file) };
        let source = std::fs::read_to_string(path).unwrap();
        let functions = source.lines().filter_map(|line| line.split("fn ").nth(1)?.split('(').next());
        names.extend(functions.flat_map(|name| [name, "\n"]));
        names.extend([file.as_str(), "\n"]);
    }
    let missing = filter?.split("::").find(|part| !names.contains(part))?;
    Some(format!("{command}: no test is named {missing}"))
}

#[test]
fn every_path_in_the_guides_exists() {
    let files = files_below(&root());
    let exists = |path: &str| {
        let path = path.trim_end_matches('/');
        let (end, folder) = (format!("/{path}"), format!("/{path}/"));
        root().join(path).exists() || files.iter().any(|file| file.ends_with(&end) || file.contains(&folder))
    };
    let guides = guides();
    let quoted =
        guides.iter().flat_map(|(page, text)| quoted(text).into_iter().map(move |path| (page, path)));
    let paths: Vec<_> = quoted.filter(|(_, text)| is_path(text)).collect();
    let missing: Vec<_> = paths.iter().filter(|(_, path)| !exists(path)).collect();
    assert!(missing.is_empty(), "these paths do not exist: {missing:?}");
    assert!(paths.len() > 40, "only {} paths were found", paths.len());
}

#[test]
fn every_name_in_the_guides_is_declared_in_its_file() {
    let mut missing = Vec::new();
    for (page, text) in guides() {
        for (name, file) in named_sources(&text) {
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            if !declares(&source, name) {
                missing.push(format!("{page}: {file} declares no {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(declares("pub(crate) async fn send(", "Refresher::send"));
    assert!(!declares("fn send_all(", "send"));
    assert_eq!(named_sources("[`A::b`](c.rs), [`c.rs`](c.rs), [`d`](d.md)"), [("A::b", "c.rs")]);
}

#[test]
fn every_module_in_the_tables_of_crates_and_parts_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let modules = named_modules(&text);
    let missing: Vec<_> = modules.iter().filter(|(crate_name, name)| !has_module(crate_name, name)).collect();
    assert!(missing.is_empty(), "these modules do not exist: {missing:?}");
    for known in [("claviger-store-postgres", "schema"), ("claviger", "mock"), ("claviger-engine", "rows")] {
        assert!(modules.contains(&known), "{known:?} is not in {modules:?}");
    }
    assert!(!has_module("claviger-store-postgres", "gather") && !has_module("no_such_crate", "rows"));
}

#[test]
fn every_test_command_in_the_guides_names_a_test() {
    let faults = |text: &str| test_commands(text).into_iter().filter_map(fault_of).collect::<Vec<_>>();
    for (page, text) in guides() {
        assert_eq!(faults(&text), [] as [String; 0], "{page}");
    }
    let good = "`cargo test -p claviger-gateway --test docs every_test_command`";
    assert!(faults(good).is_empty());
    let bad = ["--test docs no_such_test", "--test no_such_file", "--lib no_such_module"];
    for rest in bad {
        assert_eq!(faults(&format!("`cargo test -p claviger-gateway {rest}`")).len(), 1, "{rest}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let (mut broken, mut checked) = (Vec::new(), 0);
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.is_dir()
                || std::fs::read_to_string(&target)
                    .is_ok_and(|text| fragment.is_empty() || anchors(&text).contains(fragment))
                || (fragment.is_empty() && target.exists());
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let table = [
        ("States of a session", "states-of-a-session"),
        ("`refresh_spread`", "refresh_spread"),
        ("`[[routes]]`", "routes"),
        ("0006: A lost answer", "0006-a-lost-answer"),
    ];
    for (heading, expected) in table {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(links("a [b](c.md#d), ```[x](y)``` and [e](#f)"), ["c.md#d", "#f"]);
}
