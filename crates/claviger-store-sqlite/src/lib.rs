//! The embedded session store: one SQLite file, served by one process.
//!
//! | module | question it answers |
//! |---|---|
//! | `store` | how a call of the trait becomes a read or a write |
//! | `sessions`, `slots`, `owed`, `suspicions`, `logins`, `memos` | what is asked of each table; all SQL on it |
//! | `archive` | how all rows are read, and added as they are |
//! | `values` | how a value becomes columns and back |
//! | `writer` | how many callers share one commit |
//! | `pool` | which connections there are, and how they are set |
//! | `schema` | which tables there are, and how a file comes to have them |
//! | `file` | who may open the file |
//! | `error` | what went wrong, and who must act |
//!
//! A write that returned survives `kill -9` and a power cut: it was committed with `synchronous=FULL`. A write that was
//! accepted is done even if its caller goes away. Dropping the store waits for the writes that were accepted.
//!
//! The file holds sealed tokens and hashes, no plain secret. It has mode 0600, and what is deleted is overwritten in it
//! (`secure_delete`); the log beside it keeps older pages until it is used again or the store is closed.

mod archive;
mod error;
mod file;
mod logins;
mod memos;
mod owed;
mod pool;
mod schema;
mod sessions;
mod slots;
mod store;
mod suspicions;
mod values;
mod writer;

pub use error::OpenError;
pub use store::{Options, SqliteStore};

#[cfg(test)]
mod tests;
