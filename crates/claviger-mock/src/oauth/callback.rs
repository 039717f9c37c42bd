//! The redirect back to the app.

use http::StatusCode;

use crate::exchange::{self, Answer};

/// A callback under construction: the redirect URI and its query, in Twitch's order.
pub(crate) struct Callback {
    location: String,
    separator: char,
}

impl Callback {
    pub(crate) fn new(redirect_uri: &str) -> Self {
        let separator = if redirect_uri.contains('?') { '&' } else { '?' };
        Self { location: redirect_uri.to_owned(), separator }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.location.push(self.separator);
        self.separator = '&';
        self.location.push_str(name);
        self.location.push('=');
        self.location.extend(form_urlencoded::byte_serialize(value.as_bytes()));
        self
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The address so far.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// The redirect: 302 from the page, 303 from the form.
    pub(crate) fn answer(self, from_form: bool) -> Option<Answer> {
        let status = if from_form { StatusCode::SEE_OTHER } else { StatusCode::FOUND };
        exchange::redirect(status, &self.location)
    }
}
