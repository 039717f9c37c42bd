//! A changed answer: single fields, headers, status and encoding.

use std::collections::BTreeMap;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check_status;

/// What is different about an answer. The request has its usual effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Another status, 200 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// New values of JSON fields by path, such as `expires_in` or `data.0.login`. A body that is
    /// not JSON stays.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// Paths of JSON fields that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Headers by name; `None` removes one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Option<String>>,
    /// Puts a UTF-8 byte order mark before the body.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub byte_order_mark: bool,
    /// Compresses the body, whether or not the client accepts that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// A `Content-Encoding` (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// gzip.
    Gzip,
    /// deflate, in the zlib format that the standard asks for.
    Deflate,
    /// deflate without the zlib format, as some servers send it.
    RawDeflate,
}

impl Change {
    /// Another value of one JSON field.
    pub fn set(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { set: BTreeMap::from([(path.into(), value.into())]), ..Self::default() }
    }

    /// Without one JSON field.
    pub fn remove(path: impl Into<String>) -> Self {
        Self { remove: vec![path.into()], ..Self::default() }
    }

    /// Another status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// One more header, or another value of it.
    pub fn header(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { headers: BTreeMap::from([(name.into(), Some(value.into()))]), ..Self::default() }
    }

    /// A compressed body.
    pub fn encoding(encoding: Encoding) -> Self {
        Self { encoding: Some(encoding), ..Self::default() }
    }

    /// Checks a change from outside.
    ///
    /// # Errors
    /// A sentence for the person who adds it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if *self == Self::default() {
            return Err("say what is different about the answer".to_owned());
        }
        self.status.map_or(Ok(()), check_status)?;
        for (name, value) in &self.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name:?} is not the name of a header"))?;
            if parsed == CONTENT_LENGTH || parsed == TRANSFER_ENCODING {
                return Err(format!("{name} always says how long the body is, and cannot be changed"));
            }
            if value.as_ref().is_some_and(|value| HeaderValue::from_str(value).is_err()) {
                return Err(format!("the value of {name} cannot be sent in a header"));
            }
        }
        Ok(())
    }

    /// Changes an answer.
    pub(crate) fn apply(&self, answer: &mut Response<Bytes>) {
        if let Some(status) = self.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            *answer.status_mut() = status;
        }
        if !(self.set.is_empty() && self.remove.is_empty()) {
            self.change_fields(answer);
        }
        if self.byte_order_mark {
            let marked = ["\u{feff}".as_bytes(), answer.body()].concat();
            *answer.body_mut() = Bytes::from(marked);
        }
        if let Some(encoding) = self.encoding {
            encoding.apply(answer);
        }
        for (name, value) in &self.headers {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
                continue;
            };
            match value.as_ref().map(|value| HeaderValue::from_str(value)) {
                Some(Ok(value)) => drop(answer.headers_mut().insert(name, value)),
                Some(Err(_)) => {}
                None => drop(answer.headers_mut().remove(name)),
            }
        }
    }

    fn change_fields(&self, answer: &mut Response<Bytes>) {
        let Ok(mut body) = serde_json::from_slice::<Value>(answer.body()) else {
            return;
        };
        for (path, value) in &self.set {
            set(&mut body, path, value);
        }
        for path in &self.remove {
            remove(&mut body, path);
        }
        *answer.body_mut() = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    }
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate | Self::RawDeflate => "deflate",
        }
    }

    fn apply(self, answer: &mut Response<Bytes>) {
        let body = answer.body();
        let level = Compression::default();
        // Writing into memory does not fail.
        let encoded = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::RawDeflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        *answer.body_mut() = Bytes::from(encoded.unwrap_or_default());
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(self.name()));
    }
}

/// Sets the field at a path. Objects on the way that are missing are made.
fn set(body: &mut Value, path: &str, value: &Value) {
    let mut place = body;
    for name in path.split('.') {
        place = match place {
            Value::Array(list) => match name.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                Some(found) => found,
                None => return,
            },
            Value::Object(fields) => fields.entry(name).or_insert_with(|| Value::Object(Map::new())),
            _ => return,
        };
    }
    *place = value.clone();
}

fn remove(body: &mut Value, path: &str) {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (body.pointer_mut(&format!("/{}", parent.replace('.', "/"))), name),
        None => (Some(body), path),
    };
    match parent {
        Some(Value::Object(fields)) => drop(fields.remove(name)),
        Some(Value::Array(list)) => {
            if let Some(index) = name.parse::<usize>().ok().filter(|index| *index < list.len()) {
                list.remove(index);
            }
        }
        _ => {}
    }
}
