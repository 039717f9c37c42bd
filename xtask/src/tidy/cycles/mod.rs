//! Cycles of modules within a crate.
//!
//! The units are the top modules of a crate, each with all that is below it, and the crate's root
//! (`lib.rs` or `main.rs`) as far as items are defined there. Tests do not count. One unit depends
//! on another if
//!
//! - a path or a `use` names something in it: `crate::b::…`, `super::b::…`, in macro calls as well.
//!   A name that the root re-exports belongs to the unit that defines it, not to the root;
//! - it has an `impl` of a type that is defined there;
//! - it calls a method of a type whose `impl` stands there. The types of `self`, of parameters and
//!   of fields are known, those of local variables are not.
//!
//! The root depends on a unit whose items it uses. Declaring a module and re-exporting its items is
//! no dependency. Units that all reach each other are one fault.

mod edges;
mod graph;
mod tree;
mod types;

use std::collections::BTreeMap;

use anyhow::Result;

use self::{graph::Graph, tree::Tree, types::Types};
use super::{
    fault::{Fault, Rule},
    rust::RustFile,
};

/// All Rust files, by their path.
pub(crate) type RustFiles = BTreeMap<String, RustFile>;

/// Judges every crate among the files.
///
/// # Errors
/// If the file of a module is missing.
pub(crate) fn check(files: &RustFiles) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for root in files.keys() {
        let package = root.strip_suffix("/src/lib.rs").or_else(|| root.strip_suffix("/src/main.rs"));
        if let Some(package) = package {
            faults.extend(graph(root, files)?.cycles().iter().map(|cycle| fault(package, cycle)));
        }
    }
    Ok(faults)
}

fn graph(root: &str, files: &RustFiles) -> Result<Graph> {
    let tree = Tree::read(root, files)?;
    let types = Types::of(&tree);
    Ok(edges::of(&tree, &types))
}

fn fault(package: &str, cycle: &graph::Cycle) -> Fault {
    let steps: Vec<_> = cycle.steps.iter().map(|step| format!("{} ({})", step.from, step.place)).collect();
    let first = cycle.steps.first().map_or("", |step| &step.from);
    let units = cycle.units.join(", ");
    Fault {
        rule: Rule::ModuleCycles,
        at: package.to_owned(),
        line: None,
        message: format!(
            "{} modules depend on each other: {units}. The shortest cycle: {} -> {first}. Let one take what it \
             needs as an argument, or move what both need into a third",
            cycle.units.len(),
            steps.join(" -> "),
        ),
        what: units,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a crate of these files.
    fn cycles(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(name, text): &(&str, &str)| (format!("a/src/{name}"), RustFile::parse(text).unwrap());
        let files = files.iter().map(file).collect();
        check(&files).unwrap().into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn modules_that_use_each_other_are_a_cycle() {
        let root = "mod b;\nmod c;";
        let uses = |path: &str| format!("use {path};");
        let pairs = [
            (uses("crate::c::C"), uses("crate::b::B")),
            (uses("super::c::C"), uses("crate::{b::{self, B}}")),
            ("fn f() { crate::c::g() }".to_owned(), "fn g() { if true { super::b::f() } }".to_owned()),
            ("fn f() { call!(crate::c::g()) }".to_owned(), "type T = crate::b::B;".to_owned()),
        ];
        for (b, c) in &pairs {
            assert_eq!(cycles(&[("lib.rs", root), ("b.rs", b), ("c.rs", c)]), ["b, c"], "{b} {c}");
            assert!(cycles(&[("lib.rs", root), ("b.rs", b), ("c.rs", "")]).is_empty());
        }
    }

    #[test]
    fn a_longer_cycle_is_found_and_told_with_its_places() {
        let file = |text: &str| RustFile::parse(text).unwrap();
        let files = [
            ("a/src/main.rs", "mod b; mod c; mod d; fn main() { b::run() }"),
            ("a/src/b.rs", "use crate::c::C;"),
            ("a/src/c.rs", "\nuse crate::d::D;"),
            ("a/src/d/mod.rs", "mod e;"),
            ("a/src/d/e.rs", "use super::super::b;"),
        ];
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect();
        let message = check(&files).unwrap().remove(0).message;
        let cycle = "b (a/src/b.rs:1) -> c (a/src/c.rs:2) -> d (a/src/d/e.rs:1) -> b.";
        assert!(message.contains(cycle), "{message}");
    }

    #[test]
    fn tests_do_not_count() {
        let c = "#[cfg(test)] mod tests { use crate::b::B; }\n#[cfg(test)] use crate::b::B;\n\
                 impl C { #[cfg(test)] fn new() { crate::b::f() } }";
        assert!(cycles(&[("lib.rs", "mod b; mod c;"), ("b.rs", "use crate::c::C;"), ("c.rs", c)]).is_empty());
    }

    #[test]
    fn what_the_root_re_exports_belongs_to_the_module_that_defines_it() {
        let root = "mod b; mod c; pub use b::B; pub use c::*; pub use other::O;";
        let b = "pub struct B; use crate::{O, C};";
        assert_eq!(
            cycles(&[("lib.rs", root), ("b.rs", b), ("c.rs", "pub struct C; use crate::B;")]),
            ["b, c"]
        );
        assert!(cycles(&[("lib.rs", root), ("b.rs", b), ("c.rs", "pub struct C; use crate::O;")]).is_empty());
    }

    #[test]
    fn a_visibility_in_a_macro_call_names_nothing() {
        let b = "part! { pub(crate) struct B { c: u8 } }";
        assert!(cycles(&[("lib.rs", "mod b; use b::B; fn f(_: B) {}"), ("b.rs", b)]).is_empty());
    }

    #[test]
    fn the_root_takes_part_with_what_it_defines_and_uses() {
        let b = "use crate::Root; pub(crate) struct B;";
        let declares = "pub mod b; pub use b::B; pub struct Root;";
        assert!(cycles(&[("lib.rs", declares), ("b.rs", b)]).is_empty());
        let uses =
            ["use b::B; pub struct Root(B);", "pub use b::B; pub struct Root(B);", "pub struct Root(b::B);"];
        for root in uses {
            let root = format!("pub mod b; {root}");
            assert_eq!(cycles(&[("lib.rs", &root), ("b.rs", b)]), ["b, crate root"], "{root}");
        }
    }

    #[test]
    fn an_impl_that_is_spread_over_modules_counts_with_its_calls() {
        let root = "mod e; mod b; mod c; mod d;";
        let e = "pub struct E; pub struct Holder { e: std::sync::Arc<E> }";
        let b = "use crate::e::E; impl E { pub fn b(&self) { self.c() } }";
        let c =
            |body: &str| format!("use crate::e::{{E, Holder}}; impl E {{ pub fn c(&self) {{ {body} }} }}");
        let check =
            |c: &str| cycles(&[("lib.rs", root), ("e.rs", e), ("b.rs", b), ("c.rs", c), ("d.rs", "")]);
        assert_eq!(check(&c("self.b()")), ["b, c"]);
        assert_eq!(check(&c("Self::b(self)")), ["b, c"]);
        assert!(check(&c("other.b()")).is_empty());
        let parameter = format!("{} fn f(e: &mut E) {{ e.b() }}", c(""));
        assert_eq!(check(&parameter), ["b, c"]);
        let field = format!("{} fn f(holder: Holder) {{ holder.e.b() }}", c(""));
        assert_eq!(check(&field), ["b, c"]);
        let back = "use crate::e::E; impl E { fn b(&self) {} }";
        let home = "pub struct E; impl E { fn f(&self) { self.b() } }";
        assert_eq!(
            cycles(&[("lib.rs", root), ("e.rs", home), ("b.rs", back), ("c.rs", ""), ("d.rs", "")]),
            ["b, e"]
        );
    }
}
