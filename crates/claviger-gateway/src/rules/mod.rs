//! The rules that only the gateway has: which paths are its own, and which calls of the provider's
//! API pass. They depend on nothing else in this crate: the configuration checks its settings with
//! them, and the two proxies apply them.

pub mod calls;
pub mod claims;

/// Claviger's own paths, with that of the provider's API. No request at or below them reaches the
/// app.
pub fn own(api_path: &str) -> [&str; 4] {
    ["/auth", api_path, "/healthz", "/readyz"]
}
