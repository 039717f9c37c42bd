//! Functions of at most 70 lines, files of at most 600.

use syn::{
    Block, ImplItemFn, ItemFn, TraitItemFn,
    visit::{self, Visit},
};

use super::fault::{Fault, Rule};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;

/// Judges the length of one file.
pub(crate) fn check_file(at: &str, text: &str) -> Option<Fault> {
    let lines = text.lines().count();
    (lines > FILE_LINES).then(|| Fault {
        rule: Rule::FileLines,
        at: at.to_owned(),
        line: None,
        what: at.to_owned(),
        message: format!("{lines} lines: split this file by subject, at most {FILE_LINES} lines each"),
    })
}

/// Judges the functions of one file, those of tests as well. The lines are those from the brace
/// that opens the body to the one that closes it.
pub(crate) fn check_functions(at: &str, syntax: &syn::File) -> Vec<Fault> {
    let mut functions = Functions { at, faults: Vec::new() };
    functions.visit_file(syntax);
    functions.faults
}

struct Functions<'a> {
    at: &'a str,
    faults: Vec<Fault>,
}

impl Functions<'_> {
    fn judge(&mut self, name: &syn::Ident, body: &Block) {
        let braces = &body.brace_token.span;
        let lines = braces.close().end().line - braces.open().start().line + 1;
        if lines > FUNCTION_LINES {
            self.faults.push(Fault {
                rule: Rule::FunctionLines,
                at: self.at.to_owned(),
                line: Some(name.span().start().line),
                what: name.to_string(),
                message: format!("{name} has {lines} lines: split it, at most {FUNCTION_LINES} lines each"),
            });
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.judge(&function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.judge(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(body) = &function.default {
            self.judge(&function.sig.ident, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(head: &str, lines: usize) -> String {
        format!("{head} {{\n{}}}\n", "work();\n".repeat(lines - 2))
    }

    fn names(source: &str) -> Vec<(String, Option<usize>)> {
        let faults = check_functions("a.rs", &syn::parse_file(source).unwrap());
        faults.into_iter().map(|fault| (fault.what, fault.line)).collect()
    }

    #[test]
    fn a_body_of_70_lines_passes_and_one_of_71_does_not() {
        assert_eq!(names(&long("fn fits()", 70)), []);
        assert_eq!(names(&long("/// Doc.\nfn long()", 71)), [("long".to_owned(), Some(2))]);
    }

    #[test]
    fn methods_and_functions_within_functions_are_judged() {
        let (method, default) = (long("fn method()", 71), long("fn default()", 71));
        let found = names(&format!("impl A {{\n{method}}}\ntrait B {{\n{default}}}"));
        assert_eq!(found.len(), 2, "{found:?}");
        let found = names(&format!("fn outer() {{\n{}}}", long("fn inner()", 71)));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_file_of_600_lines_passes_and_one_of_601_does_not() {
        assert_eq!(check_file("a.md", &"line\n".repeat(600)), None);
        assert!(check_file("a.md", &"line\n".repeat(601)).is_some());
    }
}
