//! Sign-in for axum apps: the routes under `/auth`, the devices page, a tower layer and extractors.
//!
//! | module | what it holds |
//! |---|---|
//! | `claviger` | the engine and the site: cookies, callers, refusals |
//! | `site` | the site's origin, and the names and attributes of its cookies |
//! | `head` | what is read of a request's head, once: cookies, audience, host, peer, path |
//! | `cookies` | reading, setting and removing our cookies |
//! | `identity` | the headers that tell an app behind us who is calling |
//! | `guard` | protection of unsafe methods by Fetch Metadata and Origin |
//! | `problem` | an error as a page or as JSON |
//! | `respond` | which denial or error gets which answer |
//! | `routes` | one file for each public address |
//! | `layer`, `extract` | what an app adds to its own routes |
//! | `pages`, `templates/` | the HTML pages and their style sheet |
//!
//! # How to add
//!
//! * **A route:** a file in `routes/` and a line in `routes::router`. Put it into the guarded
//!   router unless browsers never call it. Add tests in `tests/routes/auth/`, and the path to the
//!   table in `tests/routes/hostile.rs`.
//! * **A page:** a template in `templates/`, a struct in `pages`, an `IntoResponse` that calls
//!   `page`. Pages work without a script and load nothing from other
//!   sites. A script stands in the page, and its policy names the hash.
//! * **An error text:** a function or an arm in `respond`. The code (`error`) is stable and read by
//!   programs; the title and the message are for people. Say what to do next with an `Action`.
//! * **An end reason:** its text in `routes/sign_in.rs`, which the compiler asks for.
//!
//! # Example
//!
//! ```no_run
//! # async fn app(engine: claviger_engine::Engine) {
//! use axum::{Router, routing::get};
//! use claviger_axum::{Claviger, Site, SignedIn};
//!
//! let claviger = Claviger::new(engine, Site::new("https://app.example"));
//! let app: Router = Router::new()
//!     .route("/", get(|SignedIn(caller): SignedIn| async move { format!("Hello {}", caller.display_name()) }))
//!     .layer(claviger.layer())
//!     .merge(claviger.routes())
//!     .merge(claviger.health_routes());
//! # }
//! ```

mod claviger;
mod cookies;
mod extract;
mod guard;
mod head;
mod identity;
mod layer;
mod pages;
mod params;
mod problem;
mod readiness;
mod respond;
mod routes;
mod site;

pub use claviger::Claviger;
pub use extract::{MaybeSignedIn, SignedIn};
pub use head::{RequestHead, TooManyCookies, UnixPeer};
pub use identity::{
    HEADER_ASSERTION, HEADER_LOGIN, HEADER_NAME, HEADER_PROVIDER, HEADER_SESSION, HEADER_USER,
};
pub use layer::{Authenticate, ClavigerLayer};
pub use problem::{Problem, no_store};
pub use site::{SameSite, Site, SiteData};
