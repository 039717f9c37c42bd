//! Where types, and the methods of their own, are defined.

use std::collections::BTreeMap;

use syn::{Field, FnArg, GenericArgument, ImplItem, Item, Pat, PathArguments, Signature, Type};

use super::tree::{Module, Tree, attributes, is_test};

/// Types that lead to the one within them.
const POINTERS: &[&str] = &["Arc", "Rc", "Box"];

/// The types of a crate by their name. A name that two types have is left out.
#[derive(Default)]
pub(super) struct Types {
    /// The units in which types are defined, with the number of definitions.
    homes: BTreeMap<String, (String, usize)>,
    /// The units in which methods stand.
    methods: BTreeMap<(String, String), String>,
    /// The types of fields.
    fields: BTreeMap<(String, String), String>,
}

impl Types {
    /// Reads the types of all modules.
    pub(super) fn of(tree: &Tree<'_>) -> Types {
        let mut types = Types::default();
        let items =
            tree.modules.iter().flat_map(|module| module.items.iter().map(move |item| (module, item)));
        for (module, item) in items.filter(|(_, item)| !is_test(attributes(item))) {
            match item {
                Item::Struct(item) => {
                    types.define(module, item.ident.to_string());
                    item.fields.iter().for_each(|field| types.read_field(&item.ident.to_string(), field));
                }
                Item::Enum(item) => types.define(module, item.ident.to_string()),
                Item::Impl(item) if item.trait_.is_none() => {
                    let methods = item.items.iter().filter_map(|item| match item {
                        ImplItem::Fn(function) => Some(function.sig.ident.to_string()),
                        _ => None,
                    });
                    let name = type_name(&item.self_ty);
                    let keys = methods.filter_map(|method| Some((name.clone()?, method)));
                    types.methods.extend(keys.map(|key| (key, module.unit().to_owned())));
                }
                _ => {}
            }
        }
        types
    }

    fn define(&mut self, module: &Module<'_>, name: String) {
        self.homes.entry(name).or_insert_with(|| (module.unit().to_owned(), 0)).1 += 1;
    }

    fn read_field(&mut self, of: &str, field: &Field) {
        if let (Some(name), Some(type_)) = (&field.ident, type_name(&field.ty)) {
            self.fields.insert((of.to_owned(), name.to_string()), type_);
        }
    }

    /// The unit in which a type is defined.
    pub(super) fn home(&self, type_: &str) -> Option<&str> {
        self.homes.get(type_).filter(|(_, definitions)| *definitions == 1).map(|(unit, _)| unit.as_str())
    }

    /// The unit in which a method of a type stands.
    pub(super) fn method(&self, type_: &str, method: &str) -> Option<&str> {
        self.home(type_)?;
        self.methods.get(&(type_.to_owned(), method.to_owned())).map(String::as_str)
    }

    /// The type of a field.
    pub(super) fn field(&self, type_: &str, field: &str) -> Option<&str> {
        self.fields.get(&(type_.to_owned(), field.to_owned())).map(String::as_str)
    }
}

/// The name of a type, without references and pointers.
pub(super) fn type_name(type_: &Type) -> Option<String> {
    match type_ {
        Type::Reference(reference) => type_name(&reference.elem),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            match &last.arguments {
                PathArguments::AngleBracketed(arguments)
                    if POINTERS.iter().any(|name| last.ident == name) =>
                {
                    arguments.args.iter().find_map(|argument| match argument {
                        GenericArgument::Type(inner) => type_name(inner),
                        _ => None,
                    })
                }
                _ => Some(last.ident.to_string()),
            }
        }
        _ => None,
    }
}

/// The parameters of a function whose type has a name.
pub(super) fn parameters(signature: &Signature) -> BTreeMap<String, String> {
    let typed = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    });
    let named = typed.filter_map(|input| match input.pat.as_ref() {
        Pat::Ident(name) => Some((name.ident.to_string(), type_name(&input.ty)?)),
        _ => None,
    });
    named.collect()
}
