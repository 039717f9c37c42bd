//! The page from which a person drives a mock, as plain data.
//!
//! It knows no provider: a mock describes its sections, items and forms, and reads the fields of
//! the forms that come back. Each form posts to `/mock/page`, and its field `do` names the order.

use askama::Template;
use bytes::Bytes;
use http::StatusCode;

use crate::exchange::{self, Answer};

/// Where all forms are posted to.
pub(crate) const ORDERS: &str = "/mock/page";

/// The whole page.
#[derive(Template)]
#[template(path = "page.html")]
pub(crate) struct Page {
    pub(crate) title: &'static str,
    pub(crate) words: &'static str,
    /// What the last order did, or why it was refused.
    pub(crate) said: Option<Said>,
    /// What an app needs to know: a name and a value.
    pub(crate) addresses: Vec<(&'static str, String)>,
    /// The sections that a person acts on.
    pub(crate) sections: Vec<Section>,
    /// The sections that a person watches.
    pub(crate) watched: Vec<Section>,
}

/// A message about the last order.
pub(crate) struct Said {
    pub(crate) words: String,
    pub(crate) is_error: bool,
}

/// A part of the page. Its items are kept up to date while the page is open.
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) words: &'static str,
    pub(crate) forms: Vec<Form>,
    pub(crate) items: Vec<Item>,
    /// What is said where there are no items.
    pub(crate) empty: &'static str,
}

/// One thing in a section, such as a user.
#[derive(Default)]
pub(crate) struct Item {
    pub(crate) title: String,
    pub(crate) mark: String,
    pub(crate) is_bad: bool,
    pub(crate) facts: Vec<String>,
    pub(crate) forms: Vec<Form>,
}

/// A button, with fields or without.
#[derive(Default)]
pub(crate) struct Form {
    /// The order.
    pub(crate) order: &'static str,
    /// The words on the button.
    pub(crate) button: &'static str,
    /// What a screen reader says instead of those words, where several buttons have the same.
    pub(crate) label: String,
    pub(crate) hidden: Vec<(&'static str, String)>,
    /// Fields to fill in. A form that has some is folded up.
    pub(crate) fields: Vec<Field>,
    pub(crate) is_open: bool,
}

/// A field to fill in.
#[derive(Default)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) value: String,
    pub(crate) kind: Kind,
}

/// How a field is filled in.
#[derive(Default)]
pub(crate) enum Kind {
    #[default]
    Text,
    Number,
    /// `true` or `false`.
    Check,
    /// Several lines.
    Lines,
    /// One of these: a value, and the words for it.
    Choice(Vec<(String, String)>),
}

impl Form {
    /// A button about one thing.
    pub(crate) fn button(order: &'static str, button: &'static str, thing: &str) -> Self {
        Self { order, button, label: format!("{button}: {thing}"), ..Self::default() }
    }

    /// Adds a value that the form carries.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.hidden.push((name, value.into()));
        self
    }

    /// Adds a field.
    pub(crate) fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }
}

impl Field {
    pub(crate) fn new(name: &'static str, label: &'static str, kind: Kind) -> Self {
        Self { name, label, kind, ..Self::default() }
    }

    pub(crate) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }

    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    fn is_checked(&self) -> bool {
        self.value == "true"
    }
}

impl Page {
    /// The answer with this page.
    pub(crate) fn answer(&self) -> Answer {
        let is_error = self.said.as_ref().is_some_and(|said| said.is_error);
        let status = if is_error { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        exchange::html(status, self.render().unwrap_or_default())
    }
}

/// The script that keeps an open page up to date. The page works without it.
pub(crate) fn script() -> Answer {
    let script = Bytes::from_static(include_bytes!("../templates/page.js"));
    exchange::typed(StatusCode::OK, "text/javascript; charset=utf-8", script)
}
