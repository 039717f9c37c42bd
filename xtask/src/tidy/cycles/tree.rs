//! The modules of a crate, and the unit that a path leads to.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, Meta, UseTree, Visibility};

use super::RustFiles;

/// The name of the crate's root among the units.
pub(super) const ROOT: &str = "crate root";

/// The modules of a crate, without those of its tests.
pub(super) struct Tree<'a> {
    pub(super) modules: Vec<Module<'a>>,
    /// The top modules.
    units: BTreeSet<String>,
    /// Names that the root imports, and the units they are from; none for those of other crates.
    imports: BTreeMap<String, Option<String>>,
    /// Units of which the root imports everything.
    globs: Vec<String>,
}

/// A module: the names on the way to it, its file, and its items.
pub(super) struct Module<'a> {
    pub(super) path: Vec<String>,
    pub(super) file: &'a str,
    pub(super) items: &'a [Item],
}

impl Module<'_> {
    pub(super) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    pub(super) fn unit(&self) -> &str {
        self.path.first().map_or(ROOT, String::as_str)
    }
}

impl<'a> Tree<'a> {
    /// Reads the modules from the file of the root.
    ///
    /// # Errors
    /// If the file of a module is missing.
    pub(super) fn read(root: &'a str, files: &'a RustFiles) -> Result<Tree<'a>> {
        let file = files.get(root).with_context(|| format!("{root} is missing"))?;
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut modules = Vec::new();
        collect(
            Module { path: Vec::new(), file: root, items: &file.syntax.items },
            folder,
            files,
            &mut modules,
        )?;
        let units = modules.iter().filter_map(|module| module.path.first().cloned()).collect();
        let mut tree = Tree { modules, units, imports: BTreeMap::new(), globs: Vec::new() };
        tree.read_imports(&file.syntax.items);
        Ok(tree)
    }

    fn read_imports(&mut self, items: &[Item]) {
        for item in items {
            let Item::Use(item) = item else { continue };
            for import in imports(&item.tree) {
                let first = import.path.iter().find(|name| !matches!(name.as_str(), "crate" | "self"));
                let unit = first.filter(|name| self.units.contains(*name)).cloned();
                match import.name {
                    Some(name) => _ = self.imports.insert(name, unit),
                    None => self.globs.extend(unit),
                }
            }
        }
    }

    /// The unit that a path leads to from a module, if it leads to one of this crate.
    pub(super) fn unit_of(&self, module: &Module<'_>, path: &[String]) -> Option<String> {
        let (first, rest) = path.split_first()?;
        let mut base = module.path.as_slice();
        let mut rest = rest;
        match first.as_str() {
            // A visibility, as in `pub(crate)`, names nothing.
            "crate" if rest.is_empty() => return None,
            "crate" => base = &[],
            "self" => {}
            "super" => {
                base = base.split_last()?.1;
                while let Some((_, after)) = rest.split_first().filter(|(name, _)| *name == "super") {
                    base = base.split_last()?.1;
                    rest = after;
                }
            }
            // Only in the root do names without a prefix lead to a unit; elsewhere a `use` brings
            // them. A module's name alone is that of a variable.
            name if module.is_root() => {
                let is_known =
                    self.imports.contains_key(name) || (self.units.contains(name) && !rest.is_empty());
                return is_known.then(|| self.unit_in_root(name)).flatten();
            }
            _ => return None,
        }
        match base.first() {
            Some(unit) => Some(unit.clone()),
            None => rest.first().map_or(Some(ROOT.to_owned()), |name| self.unit_in_root(name)),
        }
    }

    /// The unit that a name in the root belongs to.
    fn unit_in_root(&self, name: &str) -> Option<String> {
        if self.units.contains(name) {
            return Some(name.to_owned());
        }
        if let Some(unit) = self.imports.get(name) {
            return unit.clone();
        }
        let defines = |unit: &&String| {
            let top = self.modules.iter().filter(|module| module.path.iter().eq([*unit]));
            top.flat_map(|module| module.items).any(|item| name_of(item).is_some_and(|ident| ident == name))
        };
        Some(self.globs.iter().find(defines).cloned().unwrap_or_else(|| ROOT.to_owned()))
    }
}

/// Adds a module and those below it, but for one whose file an attribute names.
fn collect<'a>(
    module: Module<'a>,
    folder: &str,
    files: &'a RustFiles,
    modules: &mut Vec<Module<'a>>,
) -> Result<()> {
    let (path, file, items) = (module.path.clone(), module.file, module.items);
    modules.push(module);
    for item in items {
        let Item::Mod(ItemMod { attrs, ident, content, .. }) = item else { continue };
        let is_elsewhere = attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        if is_test(attrs) || is_elsewhere {
            continue;
        }
        let below = format!("{folder}/{ident}");
        let path = path.iter().cloned().chain([ident.to_string()]).collect();
        let child = if let Some((_, items)) = content {
            Module { path, file, items }
        } else {
            let names = [format!("{below}.rs"), format!("{below}/mod.rs")];
            let found = names.iter().find_map(|name| files.get_key_value(name));
            let (file, source) =
                found.with_context(|| format!("{file}: there is no file for `mod {ident};`"))?;
            Module { path, file, items: &source.syntax.items }
        };
        collect(child, &below, files, modules)?;
    }
    Ok(())
}

/// What a `use` imports: a path, and the name that it has here, or none for everything.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    pub(super) name: Option<String>,
}

/// The imports of a `use`.
pub(super) fn imports(tree: &UseTree) -> Vec<Import> {
    let mut found = Vec::new();
    flatten(tree, &[], &mut found);
    found
}

fn flatten(tree: &UseTree, before: &[String], found: &mut Vec<Import>) {
    let path = |name: &Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(part) => flatten(&part.tree, &path(&part.ident), found),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
        UseTree::Glob(_) => found.push(Import { path: before.to_vec(), name: None }),
        UseTree::Name(name) if name.ident == "self" => {
            found.push(Import { path: before.to_vec(), name: before.last().cloned() });
        }
        UseTree::Name(name) => {
            found.push(Import { path: path(&name.ident), name: Some(name.ident.to_string()) });
        }
        UseTree::Rename(name) => {
            found.push(Import { path: path(&name.ident), name: Some(name.rename.to_string()) });
        }
    }
}

/// Whether a `use` only hands a name on.
pub(super) fn is_re_export(item: &ItemUse) -> bool {
    !matches!(item.vis, Visibility::Inherited)
}

/// Whether something is compiled for tests alone.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let mut words = list.tokens.clone().into_iter();
            let first = words.next().map(|word| word.to_string());
            matches!((first.as_deref(), words.next()), (Some("test"), None))
        }
        _ => false,
    })
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        _ => None,
    }
}
