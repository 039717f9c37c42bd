//! The dependencies that the items of a crate show.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprMethodCall, ImplItemFn, Item, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, Member,
    Path, TraitItemFn, Visibility,
    visit::{self, Visit},
};

use super::{
    graph::Graph,
    tree::{Module, Tree, attributes, imports, is_re_export, is_test},
    types::{Types, parameters, type_name},
};

/// Reads all modules.
pub(super) fn of(tree: &Tree<'_>, types: &Types) -> Graph {
    let mut graph = Graph::default();
    for module in &tree.modules {
        let mut reader = Reader { tree, types, module, graph, itself: None, parameters: BTreeMap::new() };
        module.items.iter().for_each(|item| reader.visit_item(item));
        graph = reader.graph;
    }
    graph
}

struct Reader<'a> {
    tree: &'a Tree<'a>,
    types: &'a Types,
    module: &'a Module<'a>,
    graph: Graph,
    /// The type whose `impl` this is.
    itself: Option<String>,
    /// The types of the parameters of this function.
    parameters: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn depend(&mut self, unit: &str, at: Span) {
        let file = self.module.file;
        self.graph.add(self.module.unit(), unit, || format!("{file}:{}", at.start().line));
    }

    fn follow(&mut self, path: &[String], at: Span) {
        if let Some(unit) = self.tree.unit_of(self.module, path) {
            self.depend(&unit, at);
        }
    }

    /// Depends on the unit in which a method of a type stands, if that is known.
    fn call(&mut self, type_: Option<&str>, method: &str, at: Span) {
        let types = self.types;
        if let Some(unit) = type_.and_then(|type_| types.method(type_, method)) {
            self.depend(unit, at);
        }
    }

    fn type_of(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Path(path) if path.path.is_ident("self") => self.itself.clone(),
            Expr::Path(path) => self.parameters.get(&path.path.get_ident()?.to_string()).cloned(),
            Expr::Reference(reference) => self.type_of(&reference.expr),
            Expr::Paren(inner) => self.type_of(&inner.expr),
            Expr::MethodCall(call) if call.method == "clone" => self.type_of(&call.receiver),
            Expr::Field(field) => {
                let Member::Named(name) = &field.member else { return None };
                self.types.field(&self.type_of(&field.base)?, &name.to_string()).map(str::to_owned)
            }
            _ => None,
        }
    }

    /// Finds the paths in the words of a macro call.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut start = Span::call_site();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if path.is_empty() || colons != 2 {
                        self.follow(&std::mem::take(&mut path), start);
                        start = name.span();
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.follow(&std::mem::take(&mut path), start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.read_tokens(group.stream());
                    }
                }
            }
        }
        self.follow(&path, start);
    }

    /// Reads a function, in which its parameters are known.
    fn within(&mut self, parameters: BTreeMap<String, String>, read: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.parameters, parameters);
        read(self);
        self.parameters = before;
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    /// The items of modules within this one are read with their own module.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if self.module.is_root() && is_re_export(item) {
            return;
        }
        for import in imports(&item.tree) {
            self.follow(&import.path, item.use_token.span);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let (Some(first), None) = (path.segments.first(), &path.leading_colon) {
            self.follow(&names, first.ident.span());
            if let [type_, method] = names.as_slice() {
                let itself = self.itself.clone().filter(|_| type_ == "Self");
                self.call(Some(&itself.unwrap_or_else(|| type_.clone())), method, first.ident.span());
            }
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.read_tokens(call.tokens.clone());
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.itself = type_name(&item.self_ty);
        let types = self.types;
        if let Some(home) = self.itself.as_deref().and_then(|name| types.home(name)) {
            self.depend(home, item.impl_token.span);
        }
        visit::visit_item_impl(self, item);
        self.itself = None;
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.within(parameters(&function.sig), |reader| visit::visit_item_fn(reader, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            self.within(parameters(&function.sig), |reader| visit::visit_impl_item_fn(reader, function));
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        self.within(parameters(&function.sig), |reader| visit::visit_trait_item_fn(reader, function));
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let type_ = self.type_of(&call.receiver);
        self.call(type_.as_deref(), &call.method.to_string(), call.method.span());
        visit::visit_expr_method_call(self, call);
    }
}
