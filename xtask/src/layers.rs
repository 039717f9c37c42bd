//! Which of our crates may depend on which.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::tools;

/// One line of the table of arrows: `from` may depend on `to` and on no other crate of ours.
struct Arrows {
    from: &'static str,
    to: &'static [&'static str],
    why: &'static str,
    /// Whether the tests of `from` may use any crate.
    tests_are_free: bool,
}

/// The crates that both the library and the gateway are put together from.
const INNER_CRATES: &[&str] = &[
    "claviger-axum",
    "claviger-core",
    "claviger-engine",
    "claviger-mock",
    "claviger-provider",
    "claviger-seal",
    "claviger-store",
    "claviger-store-postgres",
    "claviger-store-sqlite",
];

const ARROWS: &[Arrows] = &[
    Arrows {
        from: "claviger-core",
        to: &[],
        why: "the rules are values and functions that use nothing else",
        tests_are_free: false,
    },
    Arrows {
        from: "claviger-seal",
        to: &["claviger-core"],
        why: "sealing needs the values of the core, and nothing that stores or sends them",
        tests_are_free: false,
    },
    Arrows {
        from: "claviger-provider",
        to: &["claviger-core"],
        why: "the provider crate builds requests and parses answers; others send them",
        tests_are_free: false,
    },
    Arrows {
        from: "claviger-store",
        to: &["claviger-core"],
        why: "a store keeps the values of the core, sealed by others",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-store-sqlite",
        to: &["claviger-store", "claviger-core"],
        why: "a database needs the trait that it implements, and nothing that uses it",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-store-postgres",
        to: &["claviger-store", "claviger-core"],
        why: "a database needs the trait that it implements, and nothing that uses it",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-engine",
        to: &["claviger-core", "claviger-seal", "claviger-provider", "claviger-store"],
        why: "the engine works with any store and under any web framework",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-axum",
        to: &["claviger-engine", "claviger-core", "claviger-seal", "claviger-provider", "claviger-store"],
        why: "the library is part of other people's programs, which choose the store",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger",
        to: INNER_CRATES,
        why: "the library re-exports what an app needs, and nothing of the gateway",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-gateway",
        to: INNER_CRATES,
        why: "the gateway wires everything, but does not ship developer tooling",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-mock",
        to: &[],
        why: "a mock that shares code with what it tests shares its mistakes",
        tests_are_free: false,
    },
    Arrows {
        from: "claviger-sim",
        to: &[
            "claviger-core",
            "claviger-engine",
            "claviger-mock",
            "claviger-provider",
            "claviger-seal",
            "claviger-store",
        ],
        why: "the simulator runs the shipped engine and brings everything around it",
        tests_are_free: true,
    },
    Arrows {
        from: "claviger-bench",
        to: &[
            "claviger-core",
            "claviger-engine",
            "claviger-mock",
            "claviger-provider",
            "claviger-seal",
            "claviger-store",
            "claviger-store-postgres",
            "claviger-store-sqlite",
        ],
        why: "a benchmark runs the gateway as a program, or the engine and its stores as an app would",
        tests_are_free: true,
    },
    Arrows {
        from: "xtask",
        to: &[],
        why: "the tooling must build while everything else is broken",
        tests_are_free: true,
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// A dependency between two crates of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    kind: Kind,
}

/// Judges the dependencies between our crates.
///
/// # Errors
/// If there is a crate or a dependency that the table of arrows does not allow.
pub(crate) fn check() -> Result<()> {
    let metadata = ["metadata", "--format-version", "1", "--locked", "--no-deps"];
    let metadata: Value = serde_json::from_str(&tools::output(tools::cargo().args(metadata))?)?;
    let (crates, edges) = workspace(&metadata).context("cargo metadata has an unknown shape")?;
    let faults = faults(&crates, &edges);
    if faults.is_empty() {
        println!("layers: {} crates, {} dependencies between them, all allowed", crates.len(), edges.len());
        return Ok(());
    }
    bail!("{}\nThe arrows stand in xtask/src/layers.rs.", faults.join("\n"))
}

/// The names of our crates and the dependencies between them, from `cargo metadata --no-deps`.
fn workspace(metadata: &Value) -> Option<(Vec<String>, Vec<Edge>)> {
    let packages = metadata.get("packages")?.as_array()?;
    let name_of = |value: &Value| Some(value.get("name")?.as_str()?.to_owned());
    let crates = packages.iter().map(name_of).collect::<Option<Vec<_>>>()?;
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package.get("dependencies")?.as_array()? {
            let to = name_of(dependency)?;
            if !crates.contains(&to) {
                continue;
            }
            let kind = match dependency.get("kind")?.as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            };
            edges.push(Edge { from: name_of(package)?, to, kind });
        }
    }
    Some((crates, edges))
}

/// One sentence for each crate and each edge that the table does not allow.
fn faults(crates: &[String], edges: &[Edge]) -> Vec<String> {
    let arrows_of = |name: &str| ARROWS.iter().find(|arrows| arrows.from == name);
    let unknown = crates.iter().filter(|name| arrows_of(name).is_none());
    let unknown =
        unknown.map(|name| format!("{name} has no line in the table of arrows: add one, with its reason"));
    let gone = ARROWS.iter().filter(|arrows| !crates.iter().any(|name| name == arrows.from));
    let gone =
        gone.map(|arrows| format!("{} is in the table of arrows but not in the workspace", arrows.from));
    let forbidden = edges.iter().filter_map(|edge| forbidden(edge, arrows_of(&edge.from)?));
    unknown.chain(gone).chain(forbidden).collect()
}

/// Why an edge is not allowed, if it is not.
fn forbidden(Edge { from, to, kind }: &Edge, arrows: &Arrows) -> Option<String> {
    if arrows.to.contains(&to.as_str()) || (*kind == Kind::Dev && arrows.tests_are_free) {
        return None;
    }
    let depends = match kind {
        Kind::Normal => "depends on",
        Kind::Build => "build-depends on",
        Kind::Dev => "dev-depends on",
    };
    let allowed = if arrows.to.is_empty() { "none of our crates".to_owned() } else { arrows.to.join(", ") };
    Some(format!("{from} {depends} {to}, but may depend on {allowed}: {}", arrows.why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(from: &str, to: &str, kind: Kind, expect: &[&str]) {
        let crates: Vec<_> = ARROWS.iter().map(|arrows| arrows.from.to_owned()).collect();
        let edge = Edge { from: from.to_owned(), to: to.to_owned(), kind };
        let found = faults(&crates, &[edge]);
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found}");
        }
    }

    #[test]
    fn edges_that_point_inward_are_allowed() {
        check("claviger-seal", "claviger-core", Kind::Normal, &[]);
        check("claviger-axum", "claviger-engine", Kind::Normal, &[]);
        check("claviger-gateway", "claviger-mock", Kind::Normal, &[]);
    }

    #[test]
    fn edges_that_point_outward_are_faults_with_their_reason() {
        check(
            "claviger-core",
            "claviger-store",
            Kind::Normal,
            &["claviger-core depends on claviger-store, but may depend on none of our crates: the rules are"],
        );
        check(
            "claviger-store-sqlite",
            "claviger-engine",
            Kind::Build,
            &[
                "claviger-store-sqlite build-depends on claviger-engine, but may depend on claviger-store, claviger-core:",
            ],
        );
        check("claviger-gateway", "xtask", Kind::Normal, &["claviger-gateway depends on xtask"]);
        check("xtask", "claviger-core", Kind::Normal, &["xtask depends on claviger-core"]);
    }

    #[test]
    fn tests_may_use_other_crates_but_not_in_the_pure_crates_and_the_mock() {
        check("claviger-engine", "claviger-mock", Kind::Dev, &[]);
        check("claviger-store", "claviger-store-sqlite", Kind::Dev, &[]);
        check("claviger-core", "claviger-seal", Kind::Dev, &["claviger-core dev-depends on claviger-seal"]);
        check("claviger-mock", "claviger-core", Kind::Dev, &["claviger-mock dev-depends on claviger-core"]);
    }

    #[test]
    fn a_crate_without_a_line_and_a_line_without_a_crate_are_faults() {
        let mut crates: Vec<_> = ARROWS.iter().skip(1).map(|arrows| arrows.from.to_owned()).collect();
        crates.push("claviger-new".to_owned());
        let found = faults(&crates, &[]);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("claviger-new has no line"), "{found:?}");
        assert!(found[1].starts_with("claviger-core is in the table of arrows but not"), "{found:?}");
    }

    #[test]
    fn no_crate_depends_on_itself_through_others() {
        for start in ARROWS {
            let mut reached: Vec<&str> = start.to.to_vec();
            let mut next = 0;
            while next < reached.len() {
                let arrows = ARROWS
                    .iter()
                    .find(|arrows| arrows.from == reached[next])
                    .expect("every arrow has an end");
                reached.extend(arrows.to.iter().filter(|to| !reached.contains(to)).collect::<Vec<_>>());
                next += 1;
            }
            assert!(!reached.contains(&start.from), "{} depends on itself", start.from);
        }
    }

    #[test]
    fn edges_are_read_from_the_metadata_and_other_peoples_crates_are_not() {
        let metadata = json!({ "packages": [
            { "name": "claviger-core", "dependencies": [{ "name": "url", "kind": null }] },
            { "name": "claviger-engine", "dependencies": [
                { "name": "claviger-core", "kind": null },
                { "name": "claviger-core", "kind": "dev" },
                { "name": "claviger-core", "kind": "build" },
            ] },
        ] });
        let (crates, edges) = workspace(&metadata).unwrap();
        assert_eq!(crates, ["claviger-core", "claviger-engine"]);
        let kinds: Vec<_> = edges.iter().map(|edge| edge.kind).collect();
        assert_eq!(kinds, [Kind::Normal, Kind::Dev, Kind::Build]);
        assert!(edges.iter().all(|edge| edge.from == "claviger-engine" && edge.to == "claviger-core"));
    }
}
