//! The embedded session store: one SQLite file, served by one process.
//!
//! | module | what it does |
//! |---|---|
//! | `store` | turns each call of the trait into a read or a write |
//! | `sessions`, `queues`, `logins`, `shared_entries` | hold the SQL on each table |
//! | `apply` | writes each kind of change |
//! | `archive` | reads all rows, and adds them as they are |
//! | `values` | reads the values of SQLite's columns |
//! | `writer` | lets many callers share one commit |
//! | `pool` | opens and configures the connections |
//! | `schema` | creates and upgrades the tables |
//! | `file` | locks the file |
//! | `backup` | copies the file while it is used |
//! | `error` | says what went wrong, and who must act |
//!
//! A write that returned survives `kill -9` and a power cut: it was committed with
//! `synchronous=FULL`. An accepted write is done even if its caller is dropped. Dropping the store
//! waits for accepted writes.
//!
//! The file holds sealed tokens and hashes, and no plain secret. It has mode 0600, and deleted data
//! is overwritten (`secure_delete`). The log beside it keeps older pages until it is reused or the
//! store is closed.
//!
//! # How to add a schema step
//!
//! Write it in `migrations/`, and append it to `MIGRATIONS` in `schema`. Never change an older one.
//! The previous release refuses a file that has the new step.

mod apply;
mod archive;
mod backup;
mod error;
mod file;
mod logins;
mod pool;
mod queues;
mod schema;
mod sessions;
mod shared_entries;
mod store;
mod values;
mod writer;

pub use backup::{BackupError, back_up};
pub use error::OpenError;
pub use pool::Options;
pub use store::SqliteStore;

#[cfg(test)]
mod tests;
