//! The rules of style that a tool can check: `cargo xtask tidy`.
//!
//! | rule | what it asks for |
//! |---|---|
//! | `function-lines` | functions of at most 70 lines, those of tests as well |
//! | `file-lines` | `.rs`, `.mjs` and `.md` files of at most 600 lines |
//! | `columns` | comments and Markdown prose within 100 columns |
//! | `phrases` | none of the phrases in `xtask/tidy/phrases.toml` |
//! | `module-cycles` | no modules of a crate that depend on each other in a cycle |
//! | `commit-subjects` | `area: imperative summary` in at most 72 characters |
//! | `exceptions` | exceptions in `xtask/tidy/exceptions.toml` that something needs |
//!
//! Generated files are left out: their generators are read instead.

mod columns;
mod commits;
mod cycles;
mod exceptions;
mod fault;
mod lengths;
mod markdown;
mod phrases;
mod prose;
mod rust;
mod wrap;

use std::{
    collections::BTreeMap,
    fs,
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};

use self::{
    exceptions::Exceptions,
    fault::{Fault, Rule},
    phrases::Phrases,
    prose::Prose,
    rust::RustFile,
};
use crate::tools;

/// Files that a tool writes, and data that quotes what the rules look for.
const LEFT_OUT: &[&str] =
    &["docs/configuration.md", "docs/diagrams.md", "docs/metrics.md", exceptions::FILE, phrases::FILE];

/// The texts of files, by their path.
type Files = BTreeMap<String, String>;

/// What to print.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The number of faults by crate and rule, in place of the faults.
    pub(crate) count: bool,
    /// The beginnings of paths to which the output is limited; none for everything.
    pub(crate) paths: Vec<String>,
}

/// Judges the work tree, and the commits on this branch.
///
/// # Errors
/// If there is a fault, or something cannot be read.
pub(crate) fn run(options: &Options) -> Result<()> {
    let exceptions = Exceptions::parse(&read(exceptions::FILE)?)?;
    let phrases = Phrases::parse(&read(phrases::FILE)?)?;
    let files = files()?;
    let mut faults = judge(&files, &phrases)?;
    faults.extend(commits::check()?);
    let mut faults = exceptions.apply(faults);
    faults.retain(|fault| is_asked_for(&fault.at, &options.paths));
    faults.sort_by(|a, b| (&a.at, a.line, a.rule).cmp(&(&b.at, b.line, b.rule)));
    if faults.is_empty() {
        println!("tidy: {} files, no fault", files.len());
        return Ok(());
    }
    if options.count {
        print!("{}", table(&faults));
    } else {
        faults.iter().for_each(|fault| println!("{fault}"));
    }
    bail!("{} faults; what may stay as it is goes into {}, with its reason", faults.len(), exceptions::FILE)
}

/// Wraps the comments and the prose of the files below these paths.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn wrap(paths: &[String]) -> Result<()> {
    let files = files()?;
    for (name, text) in files.iter().filter(|(name, _)| is_asked_for(name, paths)) {
        let prose = match kind(name) {
            Some(Kind::Rust) => {
                RustFile::parse(text).with_context(|| format!("{name} cannot be parsed"))?.prose
            }
            Some(Kind::Markdown) => prose::of_markdown(text),
            Some(Kind::Script) => prose::of_lines(text, Some("//")),
            _ => continue,
        };
        let wrapped = wrap::wrap(text, &prose);
        if wrapped != *text {
            fs::write(tools::root().join(name), wrapped).with_context(|| name.clone())?;
            println!("tidy: wrapped {name}");
        }
    }
    Ok(())
}

/// The files that are judged.
fn files() -> Result<Files> {
    let mut files = Files::new();
    for name in tools::work_tree()?.into_iter().filter(|name| is_read(name)) {
        // A file that git knows but that is deleted has no text.
        if let Ok(text) = read(&name) {
            files.insert(name, text);
        }
    }
    Ok(files)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(tools::root().join(name)).with_context(|| name.to_owned())
}

fn is_read(name: &str) -> bool {
    !LEFT_OUT.contains(&name) && kind(name).is_some()
}

/// How a file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    Markdown,
    Script,
    /// Only its phrases are judged.
    Other,
}

fn kind(name: &str) -> Option<Kind> {
    match name.rsplit_once('.')?.1 {
        "rs" => Some(Kind::Rust),
        "md" => Some(Kind::Markdown),
        "mjs" => Some(Kind::Script),
        "html" | "js" | "sql" | "toml" => Some(Kind::Other),
        _ => None,
    }
}

/// Judges each package in a thread of its own.
fn judge(files: &Files, phrases: &Phrases) -> Result<Vec<Fault>> {
    let mut packages: BTreeMap<&str, Files> = BTreeMap::new();
    for (name, text) in files {
        packages.entry(fault::area(name)).or_default().insert(name.clone(), text.clone());
    }
    thread::scope(|scope| {
        let judge = |files| scope.spawn(move || judge_package(files, phrases));
        let threads: Vec<_> = packages.values().map(judge).collect();
        let join = |thread: ScopedJoinHandle<'_, Result<Vec<Fault>>>| {
            thread.join().map_err(|_| anyhow!("a thread of tidy panicked"))?
        };
        let faults = threads.into_iter().map(join).collect::<Result<Vec<_>>>()?;
        Ok(faults.concat())
    })
}

fn judge_package(files: &Files, phrases: &Phrases) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut rust_files = BTreeMap::new();
    for (name, text) in files {
        let kind = kind(name).unwrap_or(Kind::Other);
        if kind != Kind::Other {
            faults.extend(lengths::check_file(name, text));
        }
        let mut judge = |prose: &[Prose]| {
            faults.extend(columns::check(name, prose));
            faults.extend(phrases.check(name, prose));
        };
        match kind {
            Kind::Rust => {
                let file = RustFile::parse(text).with_context(|| format!("{name} cannot be parsed"))?;
                judge(&file.prose);
                faults.extend(lengths::check_functions(name, &file.syntax));
                rust_files.insert(name.clone(), file);
            }
            Kind::Markdown => judge(&prose::of_markdown(text)),
            Kind::Script => judge(&prose::of_lines(text, Some("//"))),
            Kind::Other => judge(&prose::of_lines(text, None)),
        }
    }
    faults.extend(cycles::check(&rust_files)?);
    Ok(faults)
}

fn is_asked_for(at: &str, paths: &[String]) -> bool {
    paths.is_empty() || paths.iter().any(|path| at.starts_with(path.trim_end_matches('/')))
}

/// The number of faults, a line for each area and a column for each rule.
fn table(faults: &[Fault]) -> String {
    let mut counts: BTreeMap<&str, BTreeMap<Rule, usize>> = BTreeMap::new();
    for fault in faults {
        for area in [fault.area(), "~ all"] {
            *counts.entry(area).or_default().entry(fault.rule).or_default() += 1;
        }
    }
    let width = counts.keys().map(|area| area.len()).max().unwrap_or(0);
    let line = |first: &str, cells: Vec<String>| format!("{first:width$}  {}\n", cells.join("  "));
    let mut table = line("", Rule::ALL.map(|rule| rule.name().to_owned()).to_vec());
    for (area, counts) in counts {
        let cell = |rule: Rule| format!("{:>1$}", counts.get(&rule).unwrap_or(&0), rule.name().len());
        table += &line(area.trim_start_matches("~ "), Rule::ALL.map(cell).to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, text: &str) -> Vec<Rule> {
        let phrases = Phrases::parse("[[phrase]]\nwords = \"forty winks\"\ninstead = \"a nap\"").unwrap();
        let files = Files::from([(name.to_owned(), text.to_owned())]);
        judge(&files, &phrases).unwrap().into_iter().map(|fault| fault.rule).collect()
    }

    #[test]
    fn files_are_judged_by_their_kind() {
        let wide = "word ".repeat(30);
        assert_eq!(rules("a.md", &wide), [Rule::Columns]);
        assert_eq!(rules("a.rs", &format!("// {wide}")), [Rule::Columns]);
        assert_eq!(rules("a.mjs", &format!("// {wide}")), [Rule::Columns]);
        assert_eq!(rules("a.toml", &format!("# {wide}")), []);
        for name in ["a.md", "a.html", "a.toml", "a.sql", "a.mjs"] {
            assert_eq!(rules(name, "# forty winks"), [Rule::Phrases], "{name}");
        }
        let phrase = ["// forty winks", "const A: &str = \"forty winks\";", "fn forty_winks() {}"];
        for text in phrase {
            assert_eq!(rules("a.rs", text), [Rule::Phrases], "{text}");
        }
        assert_eq!(rules("a.md", &"line\n".repeat(601)), [Rule::FileLines]);
    }

    #[test]
    fn generated_files_and_the_data_of_the_rules_are_left_out() {
        assert!(!is_read("docs/metrics.md") && !is_read(phrases::FILE) && !is_read("a.png"));
        assert!(is_read("docs/operations.md"));
    }

    #[test]
    fn the_table_counts_by_area_and_rule() {
        let fault = |rule, at: &str| Fault {
            rule,
            at: at.to_owned(),
            line: None,
            what: String::new(),
            message: String::new(),
        };
        let faults = [fault(Rule::Columns, "crates/a/b.rs"), fault(Rule::Columns, "README.md")];
        let table = table(&faults);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["a", "0", "0", "1", "0", "0", "0", "0"]);
        assert_eq!(lines[3], ["all", "0", "0", "2", "0", "0", "0", "0"]);
    }
}
